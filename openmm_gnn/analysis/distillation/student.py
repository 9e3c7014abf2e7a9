"""The student of a round: a network that is trained on all labels so far, from the weights of the round before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.analysis.distillation.settings import DistillSettings, StudentSettings
from openmm_gnn.analysis.distillation.teacher import Purpose
from openmm_gnn.base.errors import DataError
from openmm_gnn.data.labels.trajectories import TrajectoryView, in_open_space
from openmm_gnn.learning.settings import TrainingSettings
from openmm_gnn.learning.trainer import provenance
from openmm_gnn.learning.training.data_sets import (
    TopologyFrames,
    elements_of,
    fit_pair_term,
    force_scale_of,
    frame_dataset,
    rest_scale,
)
from openmm_gnn.learning.training.force_matching import train_on_frames
from openmm_gnn.learning.training.training_distribution import TRAINING_DISTRIBUTION, fit_distribution, training_frames
from openmm_gnn.md.simulation_system import LabelledForces, SimulationSystem
from openmm_gnn.networks.pair_term import PairTerm
from openmm_gnn.networks.weights import load_model, make_model

if TYPE_CHECKING:
    from openmm_gnn.base.specs.force import VectorGAMDSpec

LATER_RATE = 0.5
"""Learning rate of later rounds, as a share of the first one's."""
WARMUP_SHARE = 0.05
STRAINED = 3.0
"""Root mean square force of a frame, over that of the first round's, above which no network learns from it."""
VALIDATIONS = 4
"""Validations of a training; each leaves a checkpoint."""


def usable(records: np.ndarray, purpose: Purpose) -> np.ndarray:
    """The records for a purpose, without frames that are strained so much that nothing is learned from them."""
    chosen = records[records["purpose"] == purpose]
    first = records[(records["purpose"] == Purpose.TRAIN) & (records["round"] == 0)]
    if not len(first):
        raise DataError("no geometry of the first round is whole: relax the start, or give other geometries")
    sizes = np.sqrt(np.square(chosen["forces"]).mean(axis=(1, 2)))
    usual = np.sqrt(np.square(first["forces"]).mean(axis=(1, 2)))
    return chosen[sizes <= STRAINED * np.median(usual)]


def frames_of_records(system: SimulationSystem, records: np.ndarray) -> TopologyFrames:
    """Records of the teacher as frames to train on."""
    positions, forces = np.array(records["positions"]), np.array(records["forces"])
    if not system.periodic:
        return TopologyFrames(system.topology, [in_open_space(positions, forces)])
    return TopologyFrames(system.topology, [TrajectoryView(positions, forces, np.array(records["box_vectors"]))])


def train_student(
    system: SimulationSystem,
    records: np.ndarray,
    forces: LabelledForces,
    directory: Path,
    before: Path | None,
    steps: int,
    student: StudentSettings,
    settings: DistillSettings,
    progress: bool,
) -> Path:
    """Train on the records of the teacher, and return the path of the bundle; goes on where it was killed.

    Args:
        records: of `teacher.record_fields`.
        forces: what the records' forces are.
        before: bundle of the round before, whose weights are the first ones; its spec is kept.
        steps: of optimisation.
    """
    training = [frames_of_records(system, usable(records, Purpose.TRAIN))]
    held_out = [frames_of_records(system, usable(records, Purpose.HELD_OUT))]
    spec, pair_term = _begun(student, training, before)
    data = frame_dataset(spec, training, pair_term=pair_term)
    asked = TrainingSettings(
        num_steps=steps,
        batch_size=settings.batch(len(system.positions)),
        learning_rate=settings.learning_rate * (1.0 if before is None else LATER_RATE),
        warmup_steps=round(WARMUP_SHARE * steps),
        validate_every=max(1, steps // VALIDATIONS),
        seed=settings.seed,
    )
    metadata: dict[str, Any] = {
        TRAINING_DISTRIBUTION: fit_distribution(training_frames(data, spec.elements), spec.neighbors.cutoff),
        "data": [{"directory": directory.parent.name, "forces": forces.value}],
        "recipe": {**asdict(settings), "frames": len(data)},
        **provenance(),
    }
    return train_on_frames(
        spec,
        data,
        frame_dataset(spec, held_out, pair_term=pair_term),
        asked,
        directory,
        progress,
        metadata,
        pair_term,
        begin_with=before,
    )


def _begun(
    student: StudentSettings, training: Sequence[TopologyFrames], before: Path | None
) -> tuple[VectorGAMDSpec, PairTerm | None]:
    """The spec of a training, and its pair term: fitted in the first round, kept in the later ones."""
    if before is not None:
        network = load_model(before)
        spec: Any = network.spec
        return student.spec(spec.elements, spec.force_scale), network.pair_term
    spec = student.spec(elements_of(training), force_scale_of(training))
    pair_term = make_model(spec).pair_term
    if pair_term is not None:
        fit_pair_term(pair_term, frame_dataset(spec, training))
        rest = rest_scale(frame_dataset(spec, training, pair_term=pair_term))
        spec = student.spec(spec.elements, rest)
    return spec, pair_term
