"""Training data from expensive Systems, and networks fitted to it."""
