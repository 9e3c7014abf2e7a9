"""Which atoms an encoder sees: mdtraj's selection language, and a default for those who give none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.errors import SpecError, TopologyError
from openmm_gnn.features.covalent_bonds import atom_name

if TYPE_CHECKING:
    import mdtraj

_ION_ELEMENTS = frozenset(
    {3, 4, 9, *range(11, 14), 17, *range(19, 32), 35, *range(37, 52), 53, *range(55, 85), *range(87, 104)}
)
"""Metals and halogens: a residue that is one such atom, bonded to nothing, is taken for a monatomic ion."""
_WATER_NUMBERS = (1, 1, 8)


def select_atoms(topology: mdtraj.Topology, selection: str | None = None) -> np.ndarray:
    """Indices of the selected atoms, ascending, (num_atoms,) int64.

    Args:
        selection: in mdtraj's language. None: the atoms heavier than hydrogen of everything that is neither water nor
            a monatomic ion (a single metal or halogen atom without bonds).
    Raises:
        SpecError: if the selection cannot be read, or matches nothing.
        TopologyError: if it takes virtual sites in, which have no element.
    """
    if selection is None:
        atoms = np.sort(_default_atoms(topology))
        if len(atoms) == 0:
            raise SpecError(
                f"the {topology.n_atoms} atoms of the topology are hydrogens, water or monatomic ions, which are left "
                'out by default: say what to take, such as selection="water and element O"'
            )
        return atoms
    try:
        atoms = np.sort(np.asarray(topology.select(selection), dtype=np.int64))
    except Exception as error:  # mdtraj compiles the text to Python, which raises whatever it then stumbles over
        raise SpecError(
            f"the selection {selection!r} is not mdtraj's language ({str(error).strip()}): "
            'write it such as "protein and not element H"'
        ) from error
    if len(atoms) == 0:
        raise SpecError(
            f"the selection {selection!r} matches none of the {topology.n_atoms} atoms: the residues are "
            f"{_some_residues(topology)}"
        )
    sites = [index for index in atoms if topology.atom(int(index)).element.number == 0]
    if sites:
        raise TopologyError(
            f"the selection {selection!r} takes {len(sites)} virtual sites in, the first is atom "
            f"{atom_name(topology.atom(int(sites[0])))}: they have no element, write '({selection}) and not element VS'"
        )
    return atoms


def check_elements(topology: mdtraj.Topology, atoms: Sequence[int] | np.ndarray, known: Sequence[int]) -> None:
    """Refuse selected atoms of elements that an encoder does not know.

    Raises:
        TopologyError: naming the selected elements that are not among the `known` atomic numbers.
    """
    unknown: dict[str, list[Any]] = {}
    for index in atoms:
        atom = topology.atom(int(index))
        if atom.element.number not in known:
            unknown.setdefault(atom.element.symbol, []).append(atom)
    if unknown:
        found = "; ".join(
            f"{symbol} ({len(members)} atoms, the first is atom {atom_name(members[0])})"
            for symbol, members in unknown.items()
        )
        without = " and ".join(f"not element {symbol}" for symbol in unknown)
        raise TopologyError(
            f"the encoder does not know the element {found}: it was trained on the atomic numbers {_ranges(known)}; "
            f"select without it ({without}) or take another encoder"
        )


def _default_atoms(topology: mdtraj.Topology) -> np.ndarray:
    bonded = {atom.index for bond in topology.bonds for atom in bond}
    chosen: list[int] = []
    for residue in topology.residues:
        numbers = {atom.index: atom.element.number for atom in residue.atoms if atom.element.number > 0}
        if residue.is_water or tuple(sorted(numbers.values())) == _WATER_NUMBERS:
            continue
        if len(numbers) == 1:
            [(index, number)] = numbers.items()
            if number in _ION_ELEMENTS and index not in bonded:
                continue
        chosen += [index for index, number in numbers.items() if number > 1]
    return np.array(chosen, dtype=np.int64)


def _some_residues(topology: mdtraj.Topology) -> str:
    names = list(dict.fromkeys(residue.name for residue in topology.residues))
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")


def _ranges(numbers: Sequence[int]) -> str:
    """ "1-3, 6" of 1, 2, 3, 6."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)
