"""Topologies as features and CVs need them, whoever read them: every atom has its element, or is known to be none; the
atoms of a residue belong together; residues that the reader did not bond are bonded by geometry.

What makes two topologies the same is elements, residues and bonds of the atoms in question, in their order: not names,
numbers and chains, which readers of one file spell in several ways.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.elements import (
    SITE,
    WATERS,
    element_of,
    is_site,
    named_element,
    parsed_elements,
)
from openmm_gnn.base.errors import DataError, OpenMMGNNError, TopologyError
from openmm_gnn.features.covalent_bonds import atom_name, missing_bonds
from openmm_gnn.features.trajectory_frames import ascii_path, check_reader
from openmm_gnn.md.systems.structure_files import STRUCTURE_SUFFIXES, read_models

if TYPE_CHECKING:
    import mdtraj
    from openmm import app

Elements = Mapping[str, str] | Sequence[str]
"""Symbols of elements by atom name, or by residue and atom name: see `base.elements.parsed_elements`."""
_NAMES_ONLY = (".gro", ".arc", ".hoomdxml", ".gsd")
"""Formats that name no elements."""
_SHOWN = 3


def as_mdtraj(topology: Any, elements: Elements = ()) -> mdtraj.Topology:
    """The topology as mdtraj's, whatever it was; the parts of a residue that stand apart are one.

    Args:
        topology: of mdtraj or OpenMM, also a copy of one.
        elements: what the user says about elements that the topology lacks.
    Raises:
        TopologyError: if it is a topology of neither, or the element of an atom is unknown, naming atoms and remedy.
    """
    import mdtraj
    from openmm import app

    if not isinstance(topology, mdtraj.Topology | app.Topology):
        raise TopologyError(
            f"{type(topology).__name__} is no topology: give an openmm.app.Topology or a mdtraj.Topology"
        )
    plain = topology if isinstance(topology, mdtraj.Topology) else _of_openmm(topology)
    given = parsed_elements(elements)
    symbols, parts = {}, _parts_of_residues(plain)
    unknown, doubtful, first_letters = [], [], []
    for residue in plain.residues:
        names = {atom.name for atom in residue.atoms}
        for atom in residue.atoms:
            said = given.get(f"{residue.name}:{atom.name}".upper()) or given.get(atom.name.upper())
            if said is not None:
                symbols[atom.index] = said
            elif atom.element.number == 0:
                if not is_site(atom):
                    unknown.append(atom)
            elif (named := named_element(residue.name, atom.name, names)) not in (None, atom.element.symbol):
                doubtful.append((atom, named))
            elif len(two := element_of(residue.name, atom.name, names) or "") == 2 and two[0] == atom.element.symbol:
                first_letters.append((atom, two))
    if unknown:
        raise TopologyError(
            f"the elements of {len(unknown)} atoms are unknown: {_some(unknown)}. Say them by elements "
            f'(--elements "{unknown[0].residue.name}:{unknown[0].name}=SYMBOL", {SITE} for a virtual site), or give a '
            "topology that has them"
        )
    if doubtful:
        atom, named = doubtful[0]
        raise TopologyError(
            f"{len(doubtful)} atoms have an element that their names contradict, the first is atom {atom_name(atom)}: "
            f"{atom.element.symbol}, where {named} is meant. Its file has no elements and its reader guessed: give one "
            f'that has them, or say them by elements (--elements "{atom.residue.name}:{atom.name}={named}")'
        )
    if first_letters:
        atom, two = first_letters[0]
        warnings.warn(
            f"{len(first_letters)} atoms have the first letter of their names for an element, the first is atom "
            f"{atom_name(atom)}: {atom.element.symbol}. If its reader guessed and {two} is meant, say so by elements "
            f'(--elements "{atom.residue.name}:{atom.name}={two}")',
            stacklevel=2,
        )
    if not parts and all(plain.atom(index).element.symbol == symbol for index, symbol in symbols.items()):
        return plain
    return _rebuilt(plain, symbols, parts)


def read_topology(path: Path, elements: Elements = ()) -> mdtraj.Topology:
    """The topology of a file: of PDB and PDBx/mmCIF as OpenMM reads it, else as mdtraj does.

    Args:
        elements: as for `as_mdtraj`.
    Raises:
        DataError: if there is no such file, or it holds none.
        TopologyError: if the element of an atom is unknown.
    """
    import mdtraj

    if not path.is_file():
        raise DataError(f"there is no file {path}: check the path of the topology")
    check_reader(path)
    suffix = path.suffix.lower()
    try:
        if suffix in STRUCTURE_SUFFIXES:
            # As a simulation reads it, so that features made live and offline are of one topology.
            structure = read_models(path, elements)
            topology = as_mdtraj(structure.topology, elements)
            return _bonded(topology, structure.frames[0], structure.box_vectors)
        with ascii_path(path) as named:
            plain = mdtraj.load_topology(named)
            frame = mdtraj.load(named, top=plain) if suffix == ".gro" else None
        if suffix in _NAMES_ONLY or (suffix in (".prmtop", ".parm7", ".prm7") and _lacks_numbers(path)):
            plain = _elements_by_name(plain, path, elements)
        topology = as_mdtraj(plain, elements)
        if frame is None:
            return topology
        boxes = frame.unitcell_vectors
        return _bonded(topology, frame.xyz[0], None if boxes is None else boxes[0])
    except OpenMMGNNError:
        raise
    except Exception as error:  # the parsers raise whatever the text makes them stumble over
        raise DataError(f"{path} cannot be read as a topology: {error or type(error).__name__}") from error


def topology_hash(topology: mdtraj.Topology, atoms: Sequence[int] | np.ndarray | None = None) -> str:
    """sha256 over element and residue of each of these atoms and the bonds among them, in their order.

    Names, numbers and chains do not count: readers of one file spell them in several ways. Bonds between hydrogens,
    which some force fields give to water, do not count either.

    Args:
        atoms: indices, ascending; None: all that have an element.
    """
    if atoms is None:
        atoms = [atom.index for atom in in_file_order(topology) if atom.element.number > 0]
    rank = {int(index): number for number, index in enumerate(atoms)}
    residues: dict[int, int] = {}
    digest = hashlib.sha256()
    for index in rank:
        atom = topology.atom(index)
        digest.update(f"{atom.element.number} {residues.setdefault(atom.residue.index, len(residues))}\n".encode())
    bonds = {
        tuple(sorted((rank[a.index], rank[b.index])))
        for a, b in topology.bonds
        if a.index in rank and b.index in rank and max(a.element.number, b.element.number) > 1
    }
    digest.update(repr(sorted(bonds)).encode())
    return digest.hexdigest()


def _some(atoms: Sequence[Any]) -> str:
    shown = ", ".join(atom_name(atom) for atom in atoms[:_SHOWN])
    return shown + (", ..." if len(atoms) > _SHOWN else "")


def _of_openmm(topology: app.Topology) -> mdtraj.Topology:
    """As `mdtraj.Topology.from_openmm`, but by indices: a deep copy has bonds between atoms that it does not hold."""
    import mdtraj

    plain = mdtraj.Topology()
    atoms = {}
    for chain in topology.chains():
        own = plain.add_chain(chain_id=chain.id)
        for residue in chain.residues():
            number = int(residue.id) if re.fullmatch(r"-?\d+", str(residue.id).strip()) else None
            added = plain.add_residue(residue.name, own, resSeq=number)
            for atom in residue.atoms():
                element = mdtraj.element.virtual if atom.element is None else atom.element.symbol
                element = mdtraj.element.get_by_symbol(element) if isinstance(element, str) else element
                atoms[atom.index] = plain.add_atom(atom.name, element, added)
    for first, second in topology.bonds():
        plain.add_bond(atoms[first.index], atoms[second.index])
    return plain


def _parts_of_residues(topology: mdtraj.Topology) -> dict[int, int]:
    """Residues that are a part of an earlier one that stands apart in the file, and of which: the same chain, name and
    number, and other atoms."""
    parts: dict[int, int] = {}
    known: dict[tuple[int, str, int, str], tuple[int, set[str]]] = {}
    for residue in topology.residues:
        if residue.name in WATERS:
            continue
        key = (residue.chain.index, residue.name, residue.resSeq, residue.segment_id)
        names = {atom.name for atom in residue.atoms}
        if key in known and not known[key][1] & names:
            parts[residue.index] = known[key][0]
            known[key][1].update(names)
        else:
            known[key] = (residue.index, names)
    return parts


def _bonded(topology: mdtraj.Topology, positions: np.ndarray, box_vectors: np.ndarray | None) -> mdtraj.Topology:
    """The topology with the bonds that its reader did not make; itself where none is missing."""
    bonds = missing_bonds(topology, positions, box_vectors)
    if not bonds:
        return topology
    bonded = _rebuilt(topology, {}, {})
    for one, other in bonds:
        bonded.add_bond(bonded.atom(one), bonded.atom(other))
    return bonded


def in_file_order(topology: mdtraj.Topology) -> list[Any]:
    """The atoms by their indices. mdtraj's own iterator and copies go residue by residue, which is another order where
    the atoms of a residue stand apart in the file."""
    return [topology.atom(index) for index in range(topology.n_atoms)]


def _rebuilt(topology: mdtraj.Topology, symbols: Mapping[int, str], parts: Mapping[int, int]) -> mdtraj.Topology:
    """A copy with other elements for some atoms, and with parts of residues joined to their residue."""
    import mdtraj

    new = mdtraj.Topology()
    residues: dict[int, Any] = {}
    for chain in topology.chains:
        own = new.add_chain(chain_id=chain.chain_id)
        for residue in chain.residues:
            if residue.index not in parts:
                residues[residue.index] = new.add_residue(residue.name, own, residue.resSeq, residue.segment_id)
    for atom in in_file_order(topology):
        symbol = symbols.get(atom.index, atom.element.symbol)
        element = mdtraj.element.virtual if symbol == SITE else mdtraj.element.get_by_symbol(symbol)
        index = parts.get(atom.residue.index, atom.residue.index)
        new.add_atom(atom.name, element, residues[index], serial=atom.serial)
    if parts:
        new.create_standard_bonds()
    known = {(a.index, b.index) for a, b in new.bonds}
    for first, second in topology.bonds:
        if not {(first.index, second.index), (second.index, first.index)} & known:
            new.add_bond(new.atom(first.index), new.atom(second.index))
    return new


def _elements_by_name(topology: mdtraj.Topology, path: Path, elements: Elements) -> mdtraj.Topology:
    """The topology of a file without elements; atoms that the names do not decide have none."""
    given = parsed_elements(elements)
    symbols, counts = {}, Counter[str]()
    for residue in topology.residues:
        names = [atom.name for atom in residue.atoms]
        for atom in residue.atoms:
            found = element_of(residue.name, atom.name, names)
            symbols[atom.index] = found or SITE
            if found not in (None, SITE) and not {f"{residue.name}:{atom.name}".upper(), atom.name.upper()} & set(
                given
            ):
                counts[str(found)] += 1
    kinds = ", ".join(f"{count} {symbol}" for symbol, count in counts.items())
    warnings.warn(f"{path} has no elements; by the names of residue and atom they are {kinds}", stacklevel=3)
    return _rebuilt(topology, symbols, {})


def _lacks_numbers(path: Path) -> bool:
    """Whether an Amber file has no atomic numbers, as those of old programs."""
    return "ATOMIC_NUMBER" not in path.read_text()
