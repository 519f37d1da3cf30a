"""Many trials: a hyperparameter sweep on Ray Tune, rebuilt from its run folder at every start."""
