"""What machines have and trials get of it. Pure: facts in, decisions out."""
