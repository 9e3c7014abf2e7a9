"""Labelled trajectories on disk, and how they are made or imported."""
