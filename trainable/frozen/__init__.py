"""Layers that do not train: their work done once a node and shared by all trials, and the reference that it equals."""
