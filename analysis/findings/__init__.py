"""What the frames say: is the winner better, what mattered, what did it cost."""
