"""OpenMM plugin: graph neural networks as forces, live features and slow variables."""
