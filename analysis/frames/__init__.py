"""Data frames from records, and the winner."""
