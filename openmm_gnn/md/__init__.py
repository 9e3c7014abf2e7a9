"""OpenMM without networks: systems, contexts, integrators, trajectories, guards."""
