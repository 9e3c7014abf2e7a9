"""Labels of molecules and atoms from files: extended XYZ, or a table beside a directory of conformations."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.specs.encoder import Target
from openmm_gnn.base.units import ANGSTROM_PER_NM
from openmm_gnn.data.conformers.conformations import Conformations
from openmm_gnn.data.labels.external_labels import XYZ_SUFFIXES, check_atoms, read_extended_xyz
from openmm_gnn.learning.settings import LearnedProperty

if TYPE_CHECKING:
    from ase import Atoms

MOLECULE_COLUMN, FRAME_COLUMN = "molecule", "frame"


@dataclass(frozen=True)
class MoleculeFrame:
    """One frame of a molecule, perhaps labelled."""

    name: str
    """File and frame, for messages and tables."""
    group: str
    """The same for frames of one molecule, which are never on both sides of a split."""
    atomic_numbers: np.ndarray
    """(N,) int64."""
    positions: np.ndarray
    """(N, 3) float64, nm."""
    box_vectors: np.ndarray | None = None
    """(3, 3), rows a, b, c, nm; None: open boundary."""
    label: np.ndarray | None = None
    """float64, in the unit of the file: (), (3,) or (N,), by the target."""


def read_labels(path: Path, wanted: LearnedProperty) -> list[MoleculeFrame]:
    """All labelled frames of a file.

    Args:
        path: extended XYZ, with the property among its `info` (one value, or three, of a frame) or its columns; or a
            .csv with the columns molecule, perhaps frame, and the property, for `wanted.conformations`.
    Raises:
        DataError: if the file cannot be read, holds nothing, or a frame has no such property, one of another shape, or
            one that is not finite.
    """
    if path.suffix.lower() == ".csv":
        if wanted.conformations is None:
            raise DataError(f"{path} is a table of labels: say which molecules they are of with --conformations DIR")
        frames = list(_table(path, wanted, Conformations.open(wanted.conformations)))
    else:
        frames = list(read_xyz(path, wanted))
    if not frames:
        raise DataError(f"{path} holds no frame: check that it was written to its end")
    return frames


def read_xyz(path: Path, wanted: LearnedProperty | None = None) -> Iterator[MoleculeFrame]:
    """The frames of an extended XYZ file, with a property as their labels, or without labels."""
    if path.suffix.lower() not in XYZ_SUFFIXES:
        raise DataError(f"{path} ends in {path.suffix!r}: give extended XYZ, {' or '.join(XYZ_SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"there is no file {path}: check the path")
    for where, atoms in read_extended_xyz(path):
        yield _frame(atoms, where, wanted)


def _frame(atoms: Atoms, where: str, wanted: LearnedProperty | None) -> MoleculeFrame:
    numbers = np.asarray(atoms.numbers, dtype=np.int64)
    positions = np.asarray(atoms.positions, dtype=np.float64) / ANGSTROM_PER_NM
    check_atoms(numbers, {"position": positions}, where)
    group_key = None if wanted is None else wanted.group_key
    if group_key is not None and group_key not in atoms.info:
        raise DataError(f"{where} has no {group_key!r}, which distinguishes molecules: it has {sorted(atoms.info)}")
    box = np.asarray(atoms.cell.array, dtype=np.float64) / ANGSTROM_PER_NM if all(atoms.pbc) else None
    label = None
    if wanted is not None:
        results: dict[str, Any] = {} if atoms.calc is None else atoms.calc.results
        values = {**atoms.info, **atoms.arrays, **results}
        if wanted.name not in values:
            there = sorted({*values} - {"numbers", "positions"})
            raise DataError(f"{where} has no property {wanted.name!r}: it has {there}")
        label = _label(values[wanted.name], wanted, len(numbers), where)
    group = atoms.get_chemical_formula() if group_key is None else str(atoms.info[group_key])
    return MoleculeFrame(where, group, numbers, positions, box, label)


def _label(value: Any, wanted: LearnedProperty, num_atoms: int, where: str) -> np.ndarray:
    name, target = wanted.name, wanted.target
    shape = {Target.MOLECULE: (), Target.VECTOR: (3,), Target.ATOM: (num_atoms,)}[target]
    try:
        label = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} of {where} is {value!r}, no number: {error}") from error
    if label.shape != shape:
        kinds = {Target.MOLECULE: "one number", Target.VECTOR: "three numbers", Target.ATOM: "one number of each atom"}
        raise DataError(
            f"{name} of {where} has shape {label.shape}, expected {shape}, {kinds[target]}: choose another target, "
            "one of molecule, vector, atom"
        )
    if not np.isfinite(label).all():
        of = "" if label.ndim == 0 else f" (entry {int(np.argmax(~np.isfinite(label)))})"
        raise DataError(f"{name} of {where} is not finite{of}: remove the frame, or calculate it again")
    return label


def _table(path: Path, wanted: LearnedProperty, conformations: Conformations) -> Iterator[MoleculeFrame]:
    if wanted.target is not Target.MOLECULE:
        raise DataError(f"{path} is a table with one number in a row: give labels of atoms and vectors as extended XYZ")
    if not path.is_file():
        raise DataError(f"there is no file {path}: check the path")
    molecules = {molecule.name: molecule for molecule in conformations.molecules}
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        for needed in (MOLECULE_COLUMN, wanted.name):
            if needed not in columns:
                raise DataError(f"{path} has no column {needed!r}: it has {list(columns)}")
        for row in reader:
            where = f"line {reader.line_num} of {path}"
            molecule = molecules.get(row[MOLECULE_COLUMN])
            if molecule is None:
                raise DataError(
                    f"{where} names the molecule {row[MOLECULE_COLUMN]!r}, which {conformations.path} does not have"
                )
            label = _label(row[wanted.name], wanted, 0, where)
            for frame in _frames_of(row, molecule.num_frames, where):
                positions = np.asarray(molecule.positions[frame], dtype=np.float64)
                numbers = np.asarray(molecule.atomic_numbers, dtype=np.int64)
                check_atoms(numbers, {"position": positions}, where)
                called = f"{molecule.name}, frame {frame}"
                yield MoleculeFrame(called, molecule.sequence, numbers, positions, None, label)


def _frames_of(row: dict[str, Any], num_frames: int, where: str) -> Sequence[int]:
    """The frames that a row labels: one, or all of the molecule."""
    if not row.get(FRAME_COLUMN):
        return range(num_frames)
    try:
        frame = int(row[FRAME_COLUMN])
    except ValueError:
        frame = -1
    if not 0 <= frame < num_frames:
        raise DataError(f"{where} names frame {row[FRAME_COLUMN]!r}: the molecule has the frames 0 to {num_frames - 1}")
    return [frame]
