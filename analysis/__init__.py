"""What runs left on disk: frames, the winner, one opening of the test set, and the report."""
