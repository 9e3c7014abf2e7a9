"""`python -m openmm_gnn` is the command `openmm-gnn`."""

from openmm_gnn.cli import main

main()
