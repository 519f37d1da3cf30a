"""What a person sees of a run: before, while and after it runs."""
