"""`python -m openmm_gnn` is the command `openmm-gnn`."""

import sys

from openmm_gnn.cli import main

sys.argv[0] = "openmm-gnn"
sys.exit(main())
