"""What a network needs of an OpenMM Topology, as tables: species and bonded partners of the atoms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from openmm_gnn.errors import TopologyError


def real_atoms(topology: Any) -> list[int]:
    """Indices of the atoms that have an element; virtual sites have none."""
    return [atom.index for atom in topology.atoms() if atom.element is not None]


def species_table(topology: Any, elements: tuple[int, ...]) -> Tensor:
    """(num_atoms,) int64, the index in `elements` of each real atom, in the order of `real_atoms`.

    Raises:
        TopologyError: if the topology has no atoms, or an element the model does not know.
    """
    index_of = {number: index for index, number in enumerate(elements)}
    species = []
    for atom in topology.atoms():
        if atom.element is None:
            continue
        if atom.element.atomic_number not in index_of:
            raise TopologyError(
                f"atom {atom.index} ({atom.name} of {atom.residue.name}{atom.residue.id}) is element "
                f"{atom.element.symbol} (atomic number {atom.element.atomic_number}); the model knows the atomic "
                f"numbers {list(elements)}: train one that has this element"
            )
        species.append(index_of[atom.element.atomic_number])
    if not species:
        raise TopologyError("the topology has no atoms with an element: give the topology of the simulated System")
    return torch.tensor(species, dtype=torch.int64)


def bonded_table(topology: Any) -> Tensor:
    """(num_atoms, max_bonds) int64, the partners of each real atom, padded with -1; max_bonds is at least 1."""
    position = {atom: row for row, atom in enumerate(real_atoms(topology))}
    partners: list[list[int]] = [[] for _ in position]
    for bond in topology.bonds():
        first, second = bond[0].index, bond[1].index
        if first in position and second in position:
            partners[position[first]].append(position[second])
            partners[position[second]].append(position[first])
    width = max([1, *map(len, partners)])
    table = torch.full((len(partners), width), -1, dtype=torch.int64)
    for row, atoms in enumerate(partners):
        table[row, : len(atoms)] = torch.tensor(sorted(atoms), dtype=torch.int64)
    return table


def bonded_pairs(table: Tensor, pairs: Tensor) -> Tensor:
    """(P,) bool, true where a pair (i, j) is bonded.

    Args:
        table: (num_atoms, max_bonds) of `bonded_table`.
        pairs: (2, P) int64; padding must be clamped to valid indices before.

    In a box narrower than twice the cutoff an image of a bonded partner counts as bonded too.
    """
    return (table.index_select(0, pairs[0]) == pairs[1].unsqueeze(1)).any(dim=1)
