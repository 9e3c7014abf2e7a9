"""Encoders: their training data, denoising, heads and transfer, and the study of their scaling."""
