"""Frozen specs that are saved with weights: force models, encoders, networks of tokens, properties."""
