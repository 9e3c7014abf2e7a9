"""The directory of a run: what is in it, how it is written so that kill -9 costs one chunk, how it is read.

    run.json         settings, hashes, versions; written first
    topology.pdb     the starting structure, to open the trajectory with
    trajectory.dcd   a frame every report_interval steps, unwrapped
    log.csv          energies, temperature, volume, temperature of each element, one row per frame; of an accelerated
                     run also the error of its network
    checkpoint       the exact state to go on from; replaced atomically, after frames and rows are on the disk
    final_state.xml  written when the run is complete
    features/        live features, if asked for: an embedding store
    labels/          of an accelerated run, if asked for: its frames with the forces that the network stands for
    bias/            of a biased run: hills and the bias of every frame, see bias/records.py

The checkpoint alone decides how far a run has come: frames and rows past its step are cut at a restart.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import flattened, read_document, write_json
from openmm_gnn.md.dcd_frames import dcd_layout, read_dcd, truncate_dcd
from openmm_gnn.md.run_settings import RunCourse, course_hash
from openmm_gnn.md.simulation_system import SimulationSystem

RUN_VERSION = 1
LOG_COLUMNS = ("step", "time_ps", "potential_kj_mol", "kinetic_kj_mol", "temperature_K", "volume_nm3")
"""Columns of every log; then comes `element_column` of each element, which logs of older versions do not have."""
ERROR_COLUMN = "network_error_mev_per_angstrom"
"""The log's column with the root mean square error of a force component of the network of an accelerated run."""


def element_column(element: str) -> str:
    """The log's column with the temperature of an element in K."""
    return f"temperature_{element}_K"


def elements_in(columns: Sequence[str]) -> list[str]:
    """The elements whose temperature a log has."""
    found = (re.fullmatch(r"temperature_([A-Z][a-z]?)_K", name) for name in columns)
    return [match[1] for match in found if match]


class RunDirectory:
    """Paths and contents of one run. Reading needs no lock; a writer holds its lock (`locked`)."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.description = self.path / "run.json"
        self.topology = self.path / "topology.pdb"
        self.trajectory = self.path / "trajectory.dcd"
        self.log = self.path / "log.csv"
        self.checkpoint = self.path / "checkpoint"
        self.final_state = self.path / "final_state.xml"

    @property
    def exists(self) -> bool:
        return self.description.exists()

    def identity(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            DataError: if the directory holds no run, or one of another version.
        """
        return read_document(self.description, RUN_VERSION, "`openmm-gnn simulate`")

    def settings(self) -> RunCourse:
        return RunCourse(**self.identity()["settings"])

    def write_identity(self, identity: dict[str, Any]) -> None:
        document = {**identity, "version": RUN_VERSION, "course_hash": course_hash(identity)}
        write_json(self.description, document, indent=2, sort_keys=True)

    def check_same_course(self, identity: dict[str, Any]) -> None:
        """Refuse a run of other settings than those of the stored one.

        Raises:
            SpecError: naming each setting that differs from the stored run's.
        """
        stored = self.identity()
        if stored["course_hash"] == course_hash(identity):
            return
        before, now = flattened(stored), flattened(identity)
        differences = [
            f"{name}: {before.get(name)!r} stored, {now.get(name)!r} given"
            for name in sorted({*before, *now} - {"version", "course_hash"})
            if before.get(name) != now.get(name) and not name.startswith("versions.")
        ]
        raise SpecError(
            f"{self.path} was started with other settings ({'; '.join(differences)}): "
            "give the same ones to resume, or another directory for a new run"
        )

    def check_files(self, course: RunCourse) -> None:
        """Whether what is there was made by this run, and will be kept or made again.

        Raises:
            DataError: if there are files of a run, but no run.json; or if there is no checkpoint, and there are more
                frames than a run makes until its first one.
        """
        files = (self.topology, self.trajectory, self.log, self.checkpoint, self.final_state)
        if not self.exists and (there := [path.name for path in files if path.exists()]):
            raise DataError(
                f"{self.path} has {' and '.join(there)}, which a new run would replace, and no {self.description.name} "
                "of the run they are of: put that back, or run in another directory"
            )
        if self.checkpoint.exists() or not self.trajectory.exists():
            return
        frames = dcd_layout(self.trajectory).whole_frames(self.trajectory.stat().st_size)
        if frames * course.report_interval > course.checkpoint_interval:
            raise DataError(
                f"{self.path} has {frames} frames, but no {self.checkpoint.name} to go on from, and would begin again "
                "without them: put the file back, or run in another directory"
            )

    def rewind(self, num_frames: int) -> None:
        """Cut trajectory and log to the first `num_frames` frames; with 0 both start anew."""
        if num_frames == 0:
            self.trajectory.unlink(missing_ok=True)
            self.log.unlink(missing_ok=True)
        else:
            truncate_dcd(self.trajectory, num_frames)
            _truncate_lines(self.log, 1 + num_frames)
        self.final_state.unlink(missing_ok=True)

    def read_positions(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Unwrapped positions (frames, atoms, 3) and box vectors (frames, 3, 3) of the production, nm."""
        if not self.trajectory.exists():
            raise DataError(f"{self.path} holds no trajectory yet: the run was not started or is equilibrating")
        return read_dcd(self.trajectory)

    def read_log(self) -> np.ndarray:
        """The log as a structured array: LOG_COLUMNS and the temperature of each element; an unknown energy is NaN.

        Raises:
            DataError: if the log has not begun, its first line names no columns, or it is damaged.
        """
        if not self.log.exists():
            raise DataError(f"{self.path} holds no log yet: the run was not started or is equilibrating")
        columns = log_columns(self.log)
        lines = self.log.read_text(errors="replace").splitlines(keepends=True)
        whole = [line for line in lines[1:] if line.endswith("\n")]
        try:
            rows = [tuple(float(value) if value.strip() else np.nan for value in line.split(",")) for line in whole]
            return np.array(rows, dtype=[(name, np.float64) for name in columns])
        except ValueError as error:
            raise DataError(f"{self.log} is damaged ({error}): copy the run again") from error


def log_columns(path: Path) -> list[str]:
    """The columns that the first line of a log names.

    Raises:
        DataError: if they do not begin with LOG_COLUMNS.
    """
    with open(path, errors="replace") as file:
        columns = file.readline().rstrip("\n").split(",")
    if tuple(columns[: len(LOG_COLUMNS)]) != LOG_COLUMNS:
        raise DataError(f"{path} begins with {','.join(columns)[:80]!r}: expected the columns {','.join(LOG_COLUMNS)}")
    return columns


def _truncate_lines(path: Path, num_lines: int) -> None:
    content = path.read_bytes()
    end = 0
    for _ in range(num_lines):
        end = content.find(b"\n", end) + 1
        if end == 0:
            raise DataError(f"{path} is shorter than its checkpoint says: start the run in a new directory")
    os.truncate(path, end)


def starting_from(system: SimulationSystem, run: Path | str) -> SimulationSystem:
    """The same system with the positions, and the box, of a run's last frame; velocities are drawn anew.

    Args:
        system: left as it is.
        run: directory of a run of the same particles, finished or not.
    Raises:
        DataError: if the run has no frames yet, or another number of particles.
    """
    positions, boxes = RunDirectory(run).read_positions()
    if len(positions) == 0:
        raise DataError(f"{run} holds no frame yet: start from it once it has written one")
    if positions.shape[1:] != system.positions.shape:
        raise DataError(
            f"{run} has {positions.shape[1]} particles, {system.name} {len(system.positions)}: "
            "start from a run of the same system"
        )
    openmm_system = copy.deepcopy(system.system)
    if boxes is not None and system.periodic:
        openmm_system.setDefaultPeriodicBoxVectors(*boxes[-1].astype(float))
    last = positions[-1].astype(float)
    return replace(system, system=openmm_system, positions=last, prepare=None, started_from=str(run))
