"""TorchScript modules that OpenMM calls, and their checks."""
