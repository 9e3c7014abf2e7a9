"""Predictions of a property model, and a table of them for structures from files."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.files import write_atomically
from openmm_gnn.base.specs.encoder import Target
from openmm_gnn.data.conformers.conformations import Conformations
from openmm_gnn.learning.properties.property_labels import XYZ_SUFFIXES, MoleculeFrame, check_frame, read_xyz
from openmm_gnn.learning.properties.property_sets import HYDROGEN, PropertyFrames
from openmm_gnn.md.systems.structure_files import STRUCTURE_SUFFIXES, read_structure
from openmm_gnn.networks.encoders.property_model import PropertyModel


def read_structures(path: Path) -> list[MoleculeFrame]:
    """The frames of a file or a directory of conformations, without labels.

    Of PDB and PDBx/mmCIF files the first model is taken, all its atoms that have an element, without a box.

    Raises:
        DataError: if the file is of another kind, cannot be read, or has no frames or atoms.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        frames = [
            MoleculeFrame(
                f"{molecule.name}, frame {number}",
                molecule.sequence,
                np.asarray(molecule.atomic_numbers, dtype=np.int64),
                np.asarray(molecule.positions[number], dtype=np.float64),
            )
            for molecule in Conformations.open(path).molecules
            for number in range(molecule.num_frames)
        ]
    elif suffix in XYZ_SUFFIXES:
        frames = list(read_xyz(path))
    elif suffix in STRUCTURE_SUFFIXES:
        topology, positions = read_structure(path)
        elements = [0 if atom.element is None else atom.element.atomic_number for atom in topology.atoms()]
        numbers = np.array(elements, dtype=np.int64)
        frames = [MoleculeFrame(str(path), path.stem, numbers[numbers > 0], positions[numbers > 0])]
        check_frame(frames[0].atomic_numbers, frames[0].positions, str(path))
    else:
        raise DataError(
            f"{path} is neither a directory of conformations nor a file of {[*XYZ_SUFFIXES, *STRUCTURE_SUFFIXES]}"
        )
    if not frames:
        raise DataError(f"{path} holds no frame: check that it was written to its end")
    return frames


def predict(model: PropertyModel, frames: Sequence[MoleculeFrame], batch_size: int = 16) -> list[np.ndarray]:
    """The property of each frame, float64, in the unit of the labels: (), (3,) or (N,), by the target.

    Of atoms, N are those that the model sees (`PropertyFrames`).

    Raises:
        DataError: if a frame has an element that the model does not know.
    """
    known = PropertyFrames(frames, model.spec)
    found: list[np.ndarray] = []
    with torch.no_grad():
        for start in range(0, len(known), batch_size):
            chosen = known.frames[start : start + batch_size]
            batch = known.collate(chosen)
            values = model(batch.atomic_numbers, batch.positions, batch.batch, batch.box_vectors).numpy()
            if model.spec.target is Target.ATOM:
                ends = np.cumsum([len(frame.atomic_numbers) for frame in chosen])[:-1]
                found += np.split(values, ends)
            else:
                found += list(values)
    return found


def write_predictions(
    model: PropertyModel, frames: Sequence[MoleculeFrame], path: str | os.PathLike[str], batch_size: int = 16
) -> int:
    """Write a .csv, complete or not at all, and return its number of rows.

    Columns: frame; atom and atomic_number where the model predicts of atoms, counted as in the file; the property, or
    its x, y and z.
    """
    path, name = Path(path), model.spec.name
    found = predict(model, frames, batch_size)
    columns = ["frame", name]
    rows: list[list[str]] = []
    if model.spec.target is Target.VECTOR:
        columns = ["frame", *(f"{name}_{axis}" for axis in "xyz")]
    elif model.spec.target is Target.ATOM:
        columns = ["frame", "atom", "atomic_number", name]
    for frame, values in zip(frames, found, strict=True):
        if model.spec.target is not Target.ATOM:
            rows.append([frame.name, *(f"{value:.8g}" for value in np.atleast_1d(values))])
            continue
        atoms = np.flatnonzero((frame.atomic_numbers != HYDROGEN) | model.spec.hydrogens)
        for atom, value in zip(atoms, values, strict=True):
            rows.append([frame.name, str(atom), str(frame.atomic_numbers[atom]), f"{value:.8g}"])
    path.parent.mkdir(parents=True, exist_ok=True)
    table = io.StringIO(newline="")
    csv.writer(table).writerows([columns, *rows])
    write_atomically(path, table.getvalue().encode())
    return len(rows)
