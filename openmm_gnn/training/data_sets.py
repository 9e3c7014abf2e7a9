"""Labelled trajectories as the data sets of a network: whole trajectories for training, validation and test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from openmm_gnn.errors import DataError
from openmm_gnn.graph.topology_tables import bonded_table, real_atoms, species_table
from openmm_gnn.models.gamd import GAMD
from openmm_gnn.spec import Decoder, GAMDSpec
from openmm_gnn.training.frames import FrameDataset, Trajectory
from openmm_gnn.training.metrics import ForceErrorMeter, ForceErrors
from openmm_gnn.training.trajectories import LabelledTrajectories

if TYPE_CHECKING:
    from openmm import app


@dataclass(frozen=True)
class EveryNth:
    """A trajectory with only every n-th of its frames."""

    trajectory: Trajectory
    stride: int

    @property
    def positions(self) -> np.ndarray:
        return self.trajectory.positions[:: self.stride]

    @property
    def forces(self) -> np.ndarray:
        return self.trajectory.forces[:: self.stride]

    @property
    def box_vectors(self) -> np.ndarray:
        return self.trajectory.box_vectors[:: self.stride]


def open_all(paths: Sequence[Path]) -> list[LabelledTrajectories]:
    """Open several directories, which must be of one topology.

    Raises:
        DataError: if there is none, or their atoms or bonds differ.
    """
    if not paths:
        raise DataError("no data was given: give a directory written by `openmm-gnn label`")
    opened = [LabelledTrajectories.open(path) for path in paths]
    for other in opened[1:]:
        same = np.array_equal(opened[0].atomic_numbers, other.atomic_numbers) and np.array_equal(
            opened[0].bonds, other.bonds
        )
        if not same:
            raise DataError(f"{other.path} has other atoms or bonds than {opened[0].path}: train on one topology")
    return opened


def select_seeds(opened: Sequence[LabelledTrajectories], seeds: Sequence[int]) -> list[Trajectory]:
    """The trajectories of these seeds in any of the directories.

    Raises:
        DataError: if a seed is in none of them, or its trajectory is not complete.
    """
    chosen: list[Trajectory] = []
    known = sorted({seed for data in opened for seed in data.seeds})
    for seed in seeds:
        if seed not in known:
            raise DataError(f"no data has seed {seed}: it has the seeds {known}")
        for data in opened:
            if seed in data.seeds:
                chosen += data.select([seed])
    return chosen


def force_matching_sets(
    paths: Sequence[Path],
    train_seeds: Sequence[int],
    validation_seeds: Sequence[int],
    make_spec: Callable[[tuple[int, ...], float], GAMDSpec],
    validation_frames: int,
    seed: int,
) -> tuple[GAMDSpec, FrameDataset, FrameDataset]:
    """The spec and the data sets of a training run.

    Args:
        paths: directories written by `openmm-gnn label`.
        train_seeds, validation_seeds: whole trajectories; none may be in both.
        make_spec: gives the spec for (atomic numbers, force scale in kJ/mol/nm).
        validation_frames: about how many frames to validate on, evenly spread.
        seed: of the rotations, if the network needs them.
    Raises:
        DataError: if a seed is in both lists or missing.
    """
    if both := sorted(set(train_seeds) & set(validation_seeds)):
        raise DataError(f"the seeds {both} are for training and for validation: a trajectory is for one of them")
    opened = open_all(paths)
    training, validation = select_seeds(opened, train_seeds), select_seeds(opened, validation_seeds)
    topology = opened[0].topology
    elements = tuple(sorted({int(number) for number in opened[0].atomic_numbers if number > 0}))
    squares = [float(np.square(np.asarray(t.forces[::10], dtype=np.float64)).mean()) for t in training]
    spec = make_spec(elements, float(np.sqrt(np.mean(squares))))
    atoms, species = real_atoms(topology), species_table(topology, elements)
    bonds = bonded_table(topology) if spec.use_bonds else None
    cutoff = spec.neighbors.cutoff
    stride = max(1, sum(len(t.positions) for t in validation) // max(1, validation_frames))
    thinned: list[Trajectory] = [EveryNth(trajectory, stride) for trajectory in validation]
    return (
        spec,
        FrameDataset(training, atoms, species, bonds, cutoff, rotate=spec.decoder is Decoder.NODE, seed=seed),
        FrameDataset(thinned, atoms, species, bonds, cutoff),
    )


class ErrorsOfFrames:
    """Errors of a network on every frame of some trajectories, added one by one so that progress can be shown.

    Raises:
        TopologyError: if the topology has an element the network does not know.
    """

    def __init__(self, model: GAMD, topology: app.Topology, trajectories: Sequence[Trajectory]) -> None:
        species = species_table(topology, model.spec.elements)
        bonds = bonded_table(topology) if model.spec.use_bonds else None
        self.model = model
        self.frames = FrameDataset(trajectories, real_atoms(topology), species, bonds, model.spec.neighbors.cutoff)
        self.meter = ForceErrorMeter()

    def __len__(self) -> int:
        return len(self.frames)

    def add(self, index: int) -> None:
        """Predict the forces of one frame and compare them."""
        frame = self.frames[index]
        with torch.no_grad():
            predicted = self.model(frame.species, frame.pairs, frame.vectors, frame.distances, frame.bonded)
        self.meter.add(predicted, frame.forces)

    def errors(self) -> ForceErrors:
        """The figures of all frames added so far."""
        return self.meter.errors()
