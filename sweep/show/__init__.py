"""What the user sees of a run: before, during and after it."""
