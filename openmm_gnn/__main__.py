"""`python -m openmm_gnn` is the command `openmm-gnn`."""

import sys

from openmm_gnn.cli import main

sys.exit(main())
