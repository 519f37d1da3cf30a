"""What a GPU alone can tell, and the same experiments on a CPU in its place."""
