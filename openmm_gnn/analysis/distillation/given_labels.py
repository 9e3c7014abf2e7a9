"""Labels that accelerated runs brought home, as records of the teacher that they were made by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from openmm_gnn.analysis.distillation.teacher import Purpose
from openmm_gnn.base.errors import DataError
from openmm_gnn.data.labels.trajectories import LabelledTrajectories
from openmm_gnn.md.run_settings import text_hash
from openmm_gnn.md.simulation_system import LabelledForces, SimulationSystem, stable_xml
from openmm_gnn.runs.network_watch import LABELS_FOLDER


def records_of_runs(
    runs: Sequence[Path],
    system: SimulationSystem,
    forces: LabelledForces,
    number: int,
    hold_out: int,
    dtype: np.dtype,
) -> np.ndarray:
    """All frames of runs with `--relearn`, (num_frames,), at least one; the last of each run are held out.

    Args:
        runs: their directories.
        system: the teacher, whose forces they must be.
        forces: those that the network learns.
        number: of the round that they count for.
        dtype: of the teacher's records.
        hold_out: one frame in so many is held out, of consecutive ones at the end of each run.
    Raises:
        DataError: if a run has no labels or frames, or those of another System or of other forces.
    """
    parts: list[np.ndarray] = []
    for run in runs:
        folder = run / LABELS_FOLDER
        if not folder.is_dir():
            raise DataError(f"{run} has no labels: run it with `openmm-gnn simulate --accelerate --relearn`")
        data = LabelledTrajectories.open(folder)
        said = LabelledForces(data.meta["settings"]["forces"])
        if said is not forces:
            raise DataError(f"{folder} holds {said.value} forces, the network learns {forces.value} ones: leave it out")
        if data.meta["system"]["sha256"] != text_hash(stable_xml(system.system)):
            raise DataError(f"{folder} holds the forces of another System than the teacher: leave it out")
        if not sum(map(len, data.trajectories)):
            raise DataError(f"{folder} holds no frames yet: run on until there are some")
        for trajectory in data.trajectories:
            records = np.zeros(len(trajectory), dtype)
            for field in ("positions", "forces", *(["box_vectors"] if system.periodic else [])):
                records[field] = trajectory.records[field]
            records["energy"], records["round"] = trajectory.records["potential_energy"], number
            records["purpose"] = Purpose.TRAIN
            records["purpose"][len(records) - len(records) // hold_out :] = Purpose.HELD_OUT
            parts.append(records)
    return np.concatenate(parts)
