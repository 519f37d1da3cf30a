"""Which frozen work is kept on a node, decided by what it saves there."""
