"""What people see of any command: the terminal, and the words and colours that all of them share."""
