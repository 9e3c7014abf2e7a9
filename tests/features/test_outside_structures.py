"""Structure files as others write them: elements missing or guessed, placeholders of boxes, atoms in any order.

The truth is the featurizer on arrays, of a topology that was made with the elements. What a file does not say must be
right, or said in a warning that names it, or refused in words.
"""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from two_residues import peptide

from openmm_gnn.base.errors import OpenMMGNNError
from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.features.topologies import read_topology
from openmm_gnn.features.trajectory_frames import check_atoms, frames_of
from openmm_gnn.networks.encoders.encoder import Encoder

SWEEP = settings(deadline=None, database=None, derandomize=True)
RESIDUES = {
    "ALA": "N:N CA:C C:C O:O CB:C",
    "GLY": "N:N CA:C C:C O:O",
    "CYS": "N:N CA:C C:C O:O CB:C SG:S",
    "HOH": "O:O H1:H H2:H",
    "FE": "FE:Fe",
    "CL": "CL:Cl",
    "CLA": "CLA:Cl",
    "SOD": "SOD:Na",
    "POT": "POT:K",
    "ZN": "ZN:Zn",
    "CA": "CA:Ca",
    "CU": "CU:Cu",
    "LIG": "C1:C N2:N O3:O S4:S CL1:Cl BR1:Br F1:F SE:Se",
}
"""Names and elements of atoms."""
SHAPE = {
    **{"N": (0.0, 0.0, 0.0), "CA": (0.146, 0.0, 0.0), "C": (0.201, 0.142, 0.0), "O": (0.125, 0.24, 0.01)},
    **{"CB": (0.2, -0.072, 0.124), "SG": (0.38, -0.07, 0.13), "H1": (0.096, 0.0, 0.0), "H2": (-0.024, 0.093, 0.0)},
}
CELLS = {
    "none": "",
    "bricks": "CRYST1   40.000   41.000   42.000  90.00  90.00  90.00 P 1           1\n",
    "placeholder": "CRYST1    1.000    1.000    1.000  90.00  90.00  90.00 P 1           1\n",
}


def structure(residues: list[str], order: np.random.Generator) -> tuple[mdtraj.Topology, np.ndarray]:
    """Residues 0.6 nm apart in a chain each, their atoms in some order, and positions in nm on a grid of 0.001."""
    topology, positions = mdtraj.Topology(), []
    for number, name in enumerate(residues):
        made = topology.add_residue(name, topology.add_chain(), resSeq=number + 1)
        atoms = RESIDUES[name].split()
        for atom in order.permutation(atoms):
            label, symbol = atom.split(":")
            topology.add_atom(label, mdtraj.element.get_by_symbol(symbol), made)
            place = SHAPE.get(label, (0.16 * atoms.index(atom), 0.07 * (atoms.index(atom) % 2), 0.0))
            place = (0.0, 0.0, 0.0) if len(atoms) == 1 or (name, label) == ("HOH", "O") else place
            shift = np.array([0.3 * (number % 3), 0.9 * number % 3.5, 0.8 * (number // 3)])
            positions.append(place + shift)
        for first, second in itertools.pairwise(made.atoms):  # what the features need: the residue is one molecule
            topology.add_bond(first, second)
    return topology, np.array(positions).round(3)


def pdb_text(topology: mdtraj.Topology, positions: np.ndarray, cell: str, elements: str) -> str:
    """A PDB file; its element columns are right, blank, or the first letters of names, as some programs guess them."""
    lines = [CELLS[cell]]
    for atom, (x, y, z) in zip(topology.atoms, 10 * positions, strict=True):
        symbol = {"right": atom.element.symbol, "blank": "", "first letter": atom.name[0]}[elements]
        name = f"{atom.name:<4}" if len(atom.element.symbol) == 2 or len(atom.name) > 3 else f" {atom.name:<3}"
        chain = "ABCDEFGH"[atom.residue.chain.index]
        lines.append(
            f"HETATM{atom.index + 1:5d} {name} {atom.residue.name:<4}{chain}{atom.residue.resSeq:4d}    "
            f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          {symbol.upper():>2}\n"
        )
    return "".join([*lines, "END\n"])


def gro_text(topology: mdtraj.Topology, positions: np.ndarray, cell: str) -> str:
    """A GROMACS file, which has no elements; it always has a box, of zeros where there is none."""
    lines = ["a structure\n", f"{topology.n_atoms:5d}\n"]
    for atom, (x, y, z) in zip(topology.atoms, positions, strict=True):
        residue = f"{atom.residue.resSeq:5d}{atom.residue.name:<5}"
        lines.append(f"{residue}{atom.name:>5}{atom.index + 1:5d}{x:8.3f}{y:8.3f}{z:8.3f}\n")
    box = {"none": (0, 0, 0), "bricks": (4.0, 4.1, 4.2), "placeholder": (0.1, 0.1, 0.1)}[cell]
    return "".join([*lines, "".join(f"{length:10.5f}" for length in box) + "\n"])


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(2)
    spec = EncoderSpec(Architecture.TORCHMD_ET, num_layers=1, cutoff=5.0, width=8, num_radial=8, num_heads=2)
    return Encoder(spec).requires_grad_(False)


@settings(SWEEP, max_examples=160)
@given(
    residues=st.lists(st.sampled_from(list(RESIDUES)), min_size=1, max_size=5),
    suffix=st.sampled_from(["pdb", "gro"]),
    cell=st.sampled_from(list(CELLS)),
    elements=st.sampled_from(["right", "blank", "first letter"]),
    seed=st.integers(0, 2**16),
)
def test_a_structure_gives_the_features_of_its_atoms_or_says_what_it_guesses(
    encoder: Encoder,
    tmp_path_factory: pytest.TempPathFactory,
    residues: list[str],
    suffix: str,
    cell: str,
    elements: str,
    seed: int,
) -> None:
    topology, positions = structure(residues, np.random.default_rng(seed))
    path = tmp_path_factory.mktemp("any") / f"structure.{suffix}"
    pdb = suffix == "pdb"
    path.write_text(pdb_text(topology, positions, cell, elements) if pdb else gro_text(topology, positions, cell))
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            featurizer = Featurizer(encoder, read_topology(path), "all")
            check_atoms(path, featurizer.topology)
            (frames,) = frames_of(path, featurizer.topology, featurizer.read_atoms)
            found = featurizer.features(frames.positions[0], box(frames.box_vectors), of_read_atoms=True)
    except OpenMMGNNError as error:
        assert elements != "right" or not pdb, error
        return
    said = " ".join(str(one.message) for one in caught)
    whole = Featurizer(encoder, topology, "all")
    truth = whole.features(positions, np.diag([4.0, 4.1, 4.2]) if cell == "bricks" else None)
    assert found.shape == truth.shape
    difference = np.linalg.norm(found - truth) / np.linalg.norm(truth)
    assert difference < 0.01 or "by the names" in said or "first letter of their names" in said, said
    if cell == "placeholder":
        assert "stands for none" in said or "cannot be one" in said, said
    if not pdb or (elements == "blank" and any(name != "HOH" for name in residues)):
        assert "by the names" in said, said


def box(vectors: np.ndarray | None) -> np.ndarray | None:
    return None if vectors is None else vectors[0]


ORDERS = [*(np.roll(np.arange(9), shift).tolist() for shift in range(1, 9)), list(range(9))[::-1]]
"""Atoms of a dipeptide, each time in another order than that of the topology."""


@settings(SWEEP, max_examples=40)
@given(case=st.sampled_from(list(itertools.product(ORDERS, ["xtc", "dcd", "pdb"]))))
def test_a_trajectory_of_other_atoms_is_refused(
    encoder: Encoder, tmp_path_factory: pytest.TempPathFactory, case: tuple[list[int], str]
) -> None:
    (order, suffix), (topology, positions) = case, peptide()
    path: Path = tmp_path_factory.mktemp("order") / f"run.{suffix}"
    mdtraj.Trajectory(positions[order], topology).save(str(path))
    with pytest.raises(OpenMMGNNError, match=rf"run.{suffix}"):
        check_atoms(path, topology)
