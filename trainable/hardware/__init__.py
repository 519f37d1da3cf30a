"""The hardware of a process: its device, its CPUs, its memory."""
