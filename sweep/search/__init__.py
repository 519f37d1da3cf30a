"""Which setting comes next, which trial is pruned, which is best. Pure: records in, decisions out."""
