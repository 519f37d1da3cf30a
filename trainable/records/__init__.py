"""The records of a run, which are the truth: run folder, trials, rows, statuses, weights. Crash-safe files."""
