"""What machines have, and what trials get of it. Pure: facts in, answers out."""
