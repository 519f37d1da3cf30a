"""What a person asks for: sweep.yaml, overrides, and the one way into a run that is on record."""
