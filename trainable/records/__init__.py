"""What is on record, and the truth: run folder, trials, rows, statuses, weights. Files that survive a crash."""
