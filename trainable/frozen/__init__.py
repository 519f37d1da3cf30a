"""Layers that do not train: their work is done once per node and shared by all trials, and equals a reference."""
