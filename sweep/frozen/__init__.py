"""Decides which frozen work a node keeps, by the time that it saves there."""
