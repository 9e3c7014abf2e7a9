"""Networks of residue tokens: mixers, merging, attention, collective variables."""
