"""Force models fitted to labelled trajectories."""
