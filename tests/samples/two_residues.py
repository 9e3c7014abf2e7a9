"""A dipeptide without hydrogens, for tests of files."""

from __future__ import annotations

import mdtraj
import numpy as np


def peptide() -> tuple[mdtraj.Topology, np.ndarray]:
    """Alanine and glycine, heavy atoms, (9, 3) nm."""
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for residue, names in (("ALA", "N CA C O CB"), ("GLY", "N CA C O")):
        made = topology.add_residue(residue, chain)
        for name in names.split():
            topology.add_atom(name, mdtraj.element.get_by_symbol(name[0]), made)
    topology.create_standard_bonds()
    ala = [[0.0, 0, 0], [0.146, 0, 0], [0.201, 0.142, 0], [0.125, 0.24, 0.01], [0.2, -0.072, 0.124]]
    gly = [[0.334, 0.153, 0.002], [0.4, 0.282, 0.004], [0.549, 0.264, 0.012], [0.601, 0.152, 0.02]]
    return topology, np.array(ala + gly)
