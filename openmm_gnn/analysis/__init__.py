"""Looking at runs: structure, diffusion, comparison with a reference, figures."""
