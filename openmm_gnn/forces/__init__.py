"""Networks as OpenMM forces."""
