"""Records → frames, and the winner."""
