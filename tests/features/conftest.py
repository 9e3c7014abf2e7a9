"""Real systems for the features: villin in water, and small topologies made by hand."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm.app
import pytest
import torch

from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.networks.encoders.encoder import Encoder

VILLIN = Path(openmm.app.__file__).parent / "data" / "test.pdb"
"""Villin N68H in explicit water with chloride, 8,867 atoms in a box of 4.9 x 4.6 x 3.9 nm; a file of OpenMM's."""


@pytest.fixture(scope="session")
def villin() -> openmm.app.PDBFile:
    return openmm.app.PDBFile(str(VILLIN))


@pytest.fixture(scope="session")
def villin_positions(villin: openmm.app.PDBFile) -> np.ndarray:
    return np.array(villin.getPositions(asNumpy=True)._value)


@pytest.fixture(scope="session")
def villin_box(villin: openmm.app.PDBFile) -> np.ndarray:
    return np.array(villin.topology.getPeriodicBoxVectors()._value)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(1)
    spec = EncoderSpec(Architecture.TORCHMD_ET, num_layers=2, cutoff=5.0, width=8, num_radial=8, num_heads=2)
    return Encoder(spec).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def featurizer(encoder: Encoder, villin: openmm.app.PDBFile) -> Featurizer:
    return Featurizer(encoder, villin.topology, dtype="float64")


def molecule(topology: mdtraj.Topology, chain: Any, name: str, atoms: str, bonds: bool = True, number: int = 1) -> Any:
    """Add a residue with the atoms "N:N CA:C ..." (name:element), bonded one to the next."""
    residue = topology.add_residue(name, chain, resSeq=number)
    made = []
    for entry in atoms.split():
        label, symbol = entry.split(":")
        element = mdtraj.element.virtual if symbol == "VS" else mdtraj.element.get_by_symbol(symbol)
        made.append(topology.add_atom(label, element, residue))
    if bonds:
        for first, second in itertools.pairwise(made):
            topology.add_bond(first, second)
    return residue


AMINO = "N:N CA:C CB:C C:C O:O"


@pytest.fixture
def zoo() -> mdtraj.Topology:
    """Two peptide chains with equal residue numbers and caps, DNA, a ligand, calcium, two waters (TIP4P and SPC)."""
    topology = mdtraj.Topology()
    for chain_id in "AB":
        chain = topology.add_chain(chain_id)
        molecule(topology, chain, "ACE", "CH3:C HH31:H C:C O:O", number=1)
        molecule(topology, chain, "ALA", AMINO + " H:H", number=2)
        molecule(topology, chain, "NME", "N:N CH3:C", number=3)
    dna = topology.add_chain("D")
    molecule(topology, dna, "DA5", "O5':O C4':C O4':O C1':C N9:N", number=1)
    molecule(topology, dna, "DT", "P:P O5':O C4':C O4':O C1':C N1:N", number=2)
    rest = topology.add_chain("X")
    molecule(topology, rest, "LIG", "CA:C C1:C P:P", number=900)
    molecule(topology, rest, "CA", "CA:Ca", number=901)
    molecule(topology, rest, "CL", "CL:Cl", number=902)
    molecule(topology, rest, "AR", "AR:Ar", number=903)
    molecule(topology, rest, "HOH", "O:O H1:H H2:H M:VS", bonds=False, number=904)
    molecule(topology, rest, "QQQ", "OW:O HW1:H HW2:H", bonds=False, number=905)
    return topology
