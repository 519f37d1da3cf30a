"""VGG-16: where it is cut, what trains, and the weights that it starts from."""
