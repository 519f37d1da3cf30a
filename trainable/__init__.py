"""One trial: fine-tune VGG-16 on a face attribute with one setting. Useful without a sweep, a cluster or Ray."""
