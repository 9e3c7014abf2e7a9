"""What networks learn from: labelled trajectories, and molecules for pretraining."""
