"""What a network needs of an OpenMM Topology, as tables: species and bonded partners of the atoms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from openmm_gnn.base.elements import is_site
from openmm_gnn.base.errors import TopologyError


def real_atoms(topology: Any) -> list[int]:
    """Indices of the atoms that have an element; virtual sites have none.

    Raises:
        TopologyError: if an atom has no element and not the name of a virtual site either.
    """
    for atom in topology.atoms():
        if atom.element is None and not is_site(atom):
            raise TopologyError(
                f"the element of atom {atom.index} ({atom.name} of {atom.residue.name}{atom.residue.id}) is unknown: "
                "set it in the topology, or name the particle M, EP, LP or DUM if it is no atom"
            )
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


def no_partners(num_atoms: int) -> Tensor:
    """A `separation_table` in which nothing is bonded."""
    return torch.full((2, num_atoms, 1), -1, dtype=torch.int64)


SEPARATIONS = 3
"""Kinds of pairs by bonds: 0 none or more than two between them, 1 bonded, 2 with one atom in between."""


def separation_table(topology: Any) -> Tensor:
    """(2, num_atoms, most partners) int64: partners one and two bonds away of each real atom, padded with -1.

    For `pair_types`. In a box narrower than twice the cutoff an image of a bonded partner counts as bonded too.
    """
    position = {atom: row for row, atom in enumerate(real_atoms(topology))}
    near: list[set[int]] = [set() for _ in position]
    for bond in topology.bonds():
        first, second = bond[0].index, bond[1].index
        if first in position and second in position:
            near[position[first]].add(position[second])
            near[position[second]].add(position[first])
    far = [set().union(*(near[k] for k in partners)) - partners - {row} for row, partners in enumerate(near)]
    width = max([1, *map(len, near), *map(len, far)])
    table = torch.full((2, len(near), width), -1, dtype=torch.int64)
    for level, partners_of in enumerate((near, far)):
        for row, partners in enumerate(partners_of):
            table[level, row, : len(partners)] = torch.tensor(sorted(partners), dtype=torch.int64)
    return table
