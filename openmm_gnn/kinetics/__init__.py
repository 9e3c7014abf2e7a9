"""Slow variables and kinetics from embeddings: pairs, VAMP, SPIB, Markov models, weights of biased runs, reports."""
