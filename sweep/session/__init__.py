"""A run between its sessions and as they begin: created, locked, extended, replicated, resumed, finished."""
