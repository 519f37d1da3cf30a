"""A run between its sessions and as they begin: made, held, extended, replicated, resumed, finished."""
