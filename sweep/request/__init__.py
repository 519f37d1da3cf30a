"""What the user asks for: sweep.yaml, overrides, and the only way to open a recorded run."""
