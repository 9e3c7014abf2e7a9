"""Labelled molecules as the data sets of a property model, and its predictions.

The data sets say what the model sees, what is held out and what the elements alone say; predictions are written as a
table for structures from files.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import write_atomically
from openmm_gnn.base.specs.encoder import EncoderSpec, PropertySpec, Readout, Target
from openmm_gnn.data.conformers.conformations import Conformations
from openmm_gnn.data.labels.external_labels import XYZ_SUFFIXES, check_atoms
from openmm_gnn.learning.properties.property_labels import MoleculeFrame, read_xyz
from openmm_gnn.learning.settings import LearnedProperty
from openmm_gnn.md.systems.structure_files import STRUCTURE_SUFFIXES, read_structure
from openmm_gnn.networks.encoders.encoder import known_elements, transferred_spec
from openmm_gnn.networks.encoders.property_model import PropertyModel

HYDROGEN = 1


class PropertyBatch(NamedTuple):
    """Several molecules; atom k belongs to molecule batch[k]."""

    atomic_numbers: Tensor
    """(N,) int64."""
    positions: Tensor
    """(N, 3) float32, in the encoder's length unit, each molecule about its centre."""
    batch: Tensor
    """(N,) int64, non-decreasing."""
    box_vectors: Tensor | None
    """(molecules, 3, 3) float32, in the encoder's length unit."""
    labels: Tensor
    """float64, (molecules,), (molecules, 3) or (N,); nothing where there are none."""


class PropertySets(NamedTuple):
    """No molecule is in both."""

    training: list[MoleculeFrame]
    validation: list[MoleculeFrame]


class PropertyFrames(Dataset[MoleculeFrame]):
    """Frames as a model sees them, without hydrogens if its spec says so; `collate` makes batches of them.

    Raises:
        DataError: naming the first atom of an element that the model does not know.
    """

    def __init__(self, frames: Sequence[MoleculeFrame], spec: PropertySpec) -> None:
        self.spec = spec
        self.frames = [seen(frame, spec.hydrogens, spec.target) for frame in frames]
        check_elements(self.frames, spec.elements, "the model learned", "train one on molecules that have it")

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> MoleculeFrame:
        return self.frames[index]

    def collate(self, frames: Sequence[MoleculeFrame]) -> PropertyBatch:
        """Molecules one behind the other."""
        per_nm = self.spec.encoder.per_nm
        boxes = [frame.box_vectors for frame in frames if frame.box_vectors is not None]
        if boxes and len(boxes) != len(frames):
            raise DataError("some frames are periodic and some are not: keep them in files of their own")
        places = [frame.positions - frame.positions.mean(axis=0) for frame in frames]
        labels = [np.atleast_1d(frame.label) for frame in frames if frame.label is not None]
        if self.spec.target is Target.VECTOR:
            labels = [label[None] for label in labels]
        sizes = torch.tensor([len(frame.atomic_numbers) for frame in frames])
        return PropertyBatch(
            torch.from_numpy(np.concatenate([frame.atomic_numbers for frame in frames])),
            torch.from_numpy(per_nm * np.concatenate(places)).float(),
            torch.repeat_interleave(torch.arange(len(frames)), sizes),
            torch.from_numpy(per_nm * np.stack(boxes)).float() if boxes else None,
            torch.from_numpy(np.concatenate(labels)) if labels else torch.zeros(0, dtype=torch.float64),
        )


def seen(frame: MoleculeFrame, hydrogens: bool, target: Target) -> MoleculeFrame:
    """A frame without its hydrogens, unless they are wanted.

    Raises:
        DataError: if nothing is left of it.
    """
    if hydrogens:
        return frame
    heavy = frame.atomic_numbers != HYDROGEN
    if not heavy.any():
        raise DataError(f"{frame.name} has hydrogens alone, and the network sees none: remove it, or take --hydrogens")
    label = frame.label[heavy] if frame.label is not None and target is Target.ATOM else frame.label
    return dataclasses.replace(
        frame, atomic_numbers=frame.atomic_numbers[heavy], positions=frame.positions[heavy], label=label
    )


def check_elements(frames: Sequence[MoleculeFrame], known: Sequence[int], who: str, remedy: str) -> None:
    """Refuse frames with elements that a network does not know.

    Raises:
        DataError: naming the first atom whose element is not among the `known` atomic numbers.
    """
    for frame in frames:
        unknown = ~np.isin(frame.atomic_numbers, known)
        if unknown.any():
            atom = int(np.argmax(unknown))
            raise DataError(
                f"{frame.name} has {int(unknown.sum())} atoms of unknown elements, the first is atom {atom} with the "
                f"atomic number {frame.atomic_numbers[atom]}; {who} {list(known)}: {remedy}"
            )


def property_spec(pretrained: EncoderSpec, frames: Sequence[MoleculeFrame], wanted: LearnedProperty) -> PropertySpec:
    """The spec of a model of the `wanted` property on a pretrained encoder; `frames` are all that is labelled.

    Raises:
        DataError: if there is an element that the encoder has not met, and none are to be learned.
    """
    known = known_elements(pretrained)
    hydrogens = HYDROGEN in known if wanted.hydrogens is None else wanted.hydrogens
    kept = [seen(frame, hydrogens, wanted.target) for frame in frames]
    if not wanted.new_elements:
        remedy = (
            "leave such molecules out (hydrogens alone: --no-hydrogens), take another encoder, or let this one learn "
            "them with --new-elements"
        )
        check_elements(kept, known, "the encoder knows", remedy)
    elements = tuple(sorted({int(number) for frame in kept for number in np.unique(frame.atomic_numbers)}))
    return PropertySpec(
        encoder=transferred_spec(pretrained, elements, pretrained.neighbor_rule, pretrained.smooth),
        name=wanted.name,
        target=wanted.target,
        elements=elements,
        readout=wanted.readout,
        hydrogens=hydrogens,
        unit=wanted.unit,
        head_width=max(1, pretrained.width // 2),
    )


def hold_out(frames: Sequence[MoleculeFrame], every: int, by_frame: bool = False) -> PropertySets:
    """Hold out one of `every` molecules for validation, the last of each round; frames, if `by_frame`.

    Raises:
        DataError: if nothing is left for one of them.
    """
    groups = [str(index) if by_frame else frame.group for index, frame in enumerate(frames)]
    order = list(dict.fromkeys(groups))
    held = set(order[every - 1 :: every]) if every > 1 else set()
    training = [frame for frame, group in zip(frames, groups, strict=True) if group not in held]
    validation = [frame for frame, group in zip(frames, groups, strict=True) if group in held]
    if not training or not validation:
        raise DataError(
            f"{len(frames)} frames of {len(order)} molecules, every {every}th held out, leave {len(training)} frames "
            f"for training and {len(validation)} for validation: both need some; hold out more often, or give "
            "--by-frame where all frames are of one molecule"
        )
    return PropertySets(training, validation)


def fit_elements(model: PropertyModel, frames: PropertyFrames) -> None:
    """Set what the elements say, by least squares, and the scale of what they leave."""
    spec, elements = model.spec, model.spec.elements
    labels = [np.atleast_1d(frame.label) for frame in frames.frames if frame.label is not None]
    if len(labels) != len(frames):
        raise SpecError("some training frames have no label: give labelled ones")
    if spec.target is Target.VECTOR:
        model.scale.fill_(max(float(np.sqrt(np.mean(np.square(labels)))), 1e-30))
        return
    if spec.target is Target.ATOM:
        counts = np.concatenate([frame.atomic_numbers[:, None] == elements for frame in frames.frames]).astype(float)
    else:
        counts = np.array([(frame.atomic_numbers[:, None] == elements).sum(axis=0) for frame in frames.frames], float)
        if spec.readout is Readout.MEAN:
            counts /= counts.sum(axis=1, keepdims=True)
    wanted = np.concatenate(labels)
    numbers = np.linalg.lstsq(counts, wanted, rcond=None)[0]
    model.offsets.zero_()
    model.offsets[list(elements)] = torch.from_numpy(numbers)
    rest = float(np.std(wanted - counts @ numbers))
    model.scale.fill_(max(rest, 1e-9 * float(np.abs(wanted).max()), 1e-30))


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
        check_atoms(frames[0].atomic_numbers, {"position": frames[0].positions}, str(path))
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
