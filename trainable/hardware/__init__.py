"""What a process runs on: its device, its CPUs, its memory."""
