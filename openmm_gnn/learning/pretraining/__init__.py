"""Encoders fitted by denoising conformations."""
