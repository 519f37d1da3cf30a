"""The winner in use: loaded and checked, asked about images, written for programs that lack this project."""
