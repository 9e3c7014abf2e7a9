"""Bonds and where atoms are: bonds that a reader did not make, chains that none joins, and frames of other atoms.

Two atoms are bonded where they are nearer than the sum of their covalent radii and 0.04 nm, nearly as in Open Babel:
O'Boyle et al., J. Cheminform. 3, 33 (2011), DOI 10.1186/1758-2946-3-33.
"""

from __future__ import annotations

import itertools
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from openmm_gnn.base.boxes import can_be_box
from openmm_gnn.base.elements import COVALENT_RADII_NM, WATERS
from openmm_gnn.base.errors import DataError
from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs

if TYPE_CHECKING:
    import mdtraj

_LONGEST_BOND_NM, _SLACK_NM = 0.3, 0.04
_HEAVIEST_RADIUS_NM = 0.2
_CHAIN_ELEMENTS = frozenset((6, 7, 8, 15, 16, 34))
"""What joins the residues of a chain."""
_BONDLESS = (3, 11, 12, 19, 20, 37, 38, 55, 56)
"""Alkali and alkaline earth metals: near their neighbours, and bonded to none."""
_SHOWN = 3


def atom_name(atom: Any) -> str:
    """An atom of mdtraj's in words for an error: "1204 (CB of ALA79)"."""
    return f"{atom.index} ({atom.name} of {atom.residue.name}{atom.residue.resSeq})"


def missing_bonds(
    topology: mdtraj.Topology, positions: np.ndarray, box_vectors: np.ndarray | None
) -> list[tuple[int, int]]:
    """Bonds by covalent radii, as pairs of atoms, where the reader made none: inside a residue that is in pieces, and
    between residues that follow each other in a chain.

    Args:
        positions: (num_atoms, 3) nm.
        box_vectors: (3, 3) nm; None, or a dummy box: no images.
    """
    pieces = _residues_in_pieces(topology)
    joined = {tuple(sorted((a.residue.index, b.residue.index))) for a, b in topology.bonds}
    candidates = set(pieces)
    for chain in topology.chains:
        residues = [one for one in chain.residues if one.n_atoms > 1 and one.name not in WATERS]
        for one, after in itertools.pairwise(residues):
            if after.index == one.index + 1 and (one.index, after.index) not in joined:
                candidates |= {one.index, after.index}
    atoms = np.array([atom.index for one in sorted(candidates) for atom in topology.residue(one).atoms], dtype=np.int64)
    known = {tuple(sorted((a.index, b.index))) for a, b in topology.bonds}
    new = []
    for pair in _close_pairs(topology, atoms, positions, box_vectors):
        first, second = topology.atom(pair[0]), topology.atom(pair[1])
        one, other = sorted((first.residue.index, second.residue.index))
        inside = one == other and one in pieces
        between = other == one + 1 and (one, other) not in joined and first.residue.chain is second.residue.chain
        between &= {first.element.number, second.element.number} <= _CHAIN_ELEMENTS
        if pair not in known and (inside or between):
            new.append((first.index, second.index))
    return new


def warn_of_open_chains(topology: mdtraj.Topology, atoms: np.ndarray) -> None:
    """Warn where residues of consecutive numbers, both amino acids or both nucleotides, are joined by no bond."""
    chosen = {topology.atom(int(index)).residue.index for index in atoms}
    joined = {tuple(sorted((a.residue.index, b.residue.index))) for a, b in topology.bonds}
    ends = []
    for chain in topology.chains:
        for one, after in itertools.pairwise(chain.residues):
            follows = {one.index, after.index} <= chosen and after.resSeq == one.resSeq + 1
            if follows and _links(one, after) and (one.index, after.index) not in joined:
                ends.append(f"{one.name}{one.resSeq} and {after.name}{after.resSeq}")
    if ends:
        warnings.warn(
            f"no bond joins {', '.join(ends[:_SHOWN])}{' and others' if len(ends) > _SHOWN else ''}: windows of "
            "residues end there, and in a periodic box the parts are molecules of their own. Give a topology that has "
            "these bonds",
            stacklevel=3,
        )


def check_bond_lengths(
    what: str, topology: mdtraj.Topology, atoms: np.ndarray, positions: np.ndarray, box_vectors: np.ndarray | None
) -> None:
    """Refuse positions in which a bond of the topology is far too long.

    Args:
        what: what the positions are, for the error.
        atoms: indices of those whose positions are given.
        positions: (num_given, 3) nm.
        box_vectors: (3, 3) nm, or None; of a bond the shortest image counts.
    Raises:
        DataError: if a bond is longer than twice the sum of its covalent radii: the positions are those of other atoms.
    """
    row = {int(index): number for number, index in enumerate(atoms)}
    bonds = [(a, b) for a, b in topology.bonds if a.index in row and b.index in row]
    bonds = [(a, b) for a, b in bonds if a.element.number and b.element.number]
    if not bonds:
        return
    first, second = np.array([(row[a.index], row[b.index]) for a, b in bonds]).T
    vectors = np.asarray(positions, dtype=np.float64)[second] - np.asarray(positions, dtype=np.float64)[first]
    if box_vectors is not None and can_be_box(box_vectors, topology.n_atoms):
        vectors -= np.round(vectors @ np.linalg.inv(box_vectors)) @ box_vectors
    lengths = np.linalg.norm(vectors, axis=1)
    longest = np.array([2 * (_radius(a) + _radius(b)) for a, b in bonds])
    bad = np.flatnonzero(~(lengths <= longest))
    if len(bad):
        a, b = bonds[int(bad[0])]
        raise DataError(
            f"{what} does not belong to the topology: {len(bad)} of {len(bonds)} bonds are too long, the first is "
            f"{lengths[bad[0]]:.3f} nm between atoms {atom_name(a)} and {atom_name(b)}. The atoms are in another "
            "order, or molecules are broken at a box that the file does not have: give the topology of the same run"
        )


def _radius(atom: Any) -> float:
    number = int(atom.element.number)
    return COVALENT_RADII_NM[number] if number < len(COVALENT_RADII_NM) else _HEAVIEST_RADIUS_NM


def _residues_in_pieces(topology: mdtraj.Topology) -> frozenset[int]:
    """Residues of several atoms that their own bonds do not join to one piece."""
    root = list(range(topology.n_atoms))

    def find(index: int) -> int:
        while root[index] != index:
            root[index] = root[root[index]]
            index = root[index]
        return index

    for first, second in topology.bonds:
        if first.residue is second.residue:
            root[find(first.index)] = find(second.index)
    return frozenset(
        residue.index
        for residue in topology.residues
        if len({find(atom.index) for atom in residue.atoms if atom.element.number > 0}) > 1
    )


def _close_pairs(
    topology: mdtraj.Topology, atoms: np.ndarray, positions: np.ndarray, box_vectors: np.ndarray | None
) -> list[tuple[int, int]]:
    """Pairs among these atoms that are as near as a bond, the smaller index first, each once."""
    if not len(atoms) or not np.isfinite(positions[atoms]).all():
        return []
    box = None
    if box_vectors is not None and can_be_box(box_vectors, topology.n_atoms):
        box = torch.tensor(np.asarray(box_vectors), dtype=torch.float64)
    points = torch.tensor(np.asarray(positions)[atoms], dtype=torch.float64)
    pairs, _, distances = neighbor_pairs(points, _LONGEST_BOND_NM, box, full=False)
    members = [topology.atom(int(index)) for index in atoms]
    numbers = np.array([atom.element.number for atom in members])
    radii = np.array([_radius(atom) for atom in members])
    first, second = pairs.numpy()
    bonded = distances.numpy() < radii[first] + radii[second] + _SLACK_NM
    bonded &= (numbers[first] > 0) & (numbers[second] > 0) & (np.maximum(numbers[first], numbers[second]) > 1)
    bonded &= ~np.isin(numbers[first], _BONDLESS) & ~np.isin(numbers[second], _BONDLESS) & (first != second)
    found = np.sort(np.stack([atoms[first[bonded]], atoms[second[bonded]]]), axis=0).T
    return [(int(one), int(other)) for one, other in np.unique(found, axis=0)]


def _links(one: Any, after: Any) -> bool:
    """Whether two residues are of the kind whose chain goes on from one to the other."""
    names, others = ({atom.name for atom in residue.atoms} for residue in (one, after))
    amino = {"N", "CA", "C"}
    return (amino <= names and amino <= others) or ("O3'" in names and "P" in others)
