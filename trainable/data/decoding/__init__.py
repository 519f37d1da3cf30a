"""Image files become pixels, in processes of their own where that pays."""
