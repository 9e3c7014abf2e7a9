"""Simulations on disk: forces, features, bias, progress, restarts."""
