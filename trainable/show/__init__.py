"""What users see of every command: the terminal, and the words and colours that all commands share."""
