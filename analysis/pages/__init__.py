"""HTML pages, and plots as picture files."""
