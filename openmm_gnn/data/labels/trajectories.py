"""Labelled trajectories: the directory that `label` writes and training reads.

    meta.json                         what was run: system, settings, trajectories, units, versions, commands
    system.xml, topology.cif          the labelled System and its topology: nothing else is needed to go on
    trajectories/100K-seed-1/frames.npy   a growing array, one record per frame
    trajectories/100K-seed-1/checkpoint   where the run goes on from
    trajectories/100K-seed-1/start.npy    where it began, if not at the positions of topology.cif

A trajectory is held out as a whole, by its seed: frames of one run resemble each other, those of another do not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.growing_array import read_growing_array
from openmm_gnn.data.description import DataKind
from openmm_gnn.md.systems.systems import SimulationSystem, load_system

if TYPE_CHECKING:
    from openmm import app

LABELLED = DataKind("openmm_gnn labelled trajectories", 1, "openmm-gnn label")
UNITS = {
    "step": "1, counted from the start of equilibration",
    "time": "ps",
    "potential_energy": "kJ/mol",
    "kinetic_energy": "kJ/mol",
    "box_vectors": "nm, rows a, b, c",
    "positions": "nm, unwrapped",
    "velocities": "nm/ps",
    "forces": "kJ/mol/nm, at exactly these positions, without those of constraints; what pulls at a virtual site is "
    "in the forces of its atoms too",
}
MARGIN_NM = 10.0
"""Wider than any cutoff."""


def frame_fields(num_atoms: int, periodic: bool) -> list[tuple[Any, ...]]:
    """The fields of a frame's record, for `GrowingArray`. Units: `UNITS`."""
    return [
        ("step", "<i8"),
        ("time", "<f8"),
        ("potential_energy", "<f8"),
        ("kinetic_energy", "<f8"),
        *([("box_vectors", "<f8", (3, 3))] if periodic else []),
        ("positions", "<f8", (num_atoms, 3)),
        ("velocities", "<f4", (num_atoms, 3)),
        ("forces", "<f4", (num_atoms, 3)),
    ]


@dataclass(frozen=True)
class LabelledTrajectory:
    """One run at one temperature from one seed; its arrays are read-only memory maps."""

    path: Path
    """The directory of the trajectory."""
    temperature: float
    """K."""
    seed: int
    frames: int
    """Frames it has when complete; `len(self)` are there now."""

    @property
    def name(self) -> str:
        """Such as '100K-seed-1'."""
        return trajectory_name(self.temperature, self.seed)

    @property
    def frames_file(self) -> Path:
        return self.path / "frames.npy"

    @property
    def checkpoint_file(self) -> Path:
        return self.path / "checkpoint"

    @property
    def start_file(self) -> Path:
        return self.path / "start.npy"

    @cached_property
    def records(self) -> np.ndarray:
        """All frames, (num_frames,) of `frame_fields`; those of a run that grows, up to this call."""
        return read_growing_array(self.frames_file)[: self.frames]

    def __len__(self) -> int:
        return len(self.records)

    @property
    def complete(self) -> bool:
        return len(self) == self.frames

    @property
    def positions(self) -> np.ndarray:
        """(num_frames, num_atoms, 3) float64, nm, unwrapped."""
        return self.records["positions"]

    @property
    def forces(self) -> np.ndarray:
        """(num_frames, num_atoms, 3) float32, kJ/mol/nm, at exactly these positions."""
        return self.records["forces"]

    @property
    def box_vectors(self) -> np.ndarray:
        """(num_frames, 3, 3), rows a, b, c, nm.

        Raises:
            DataError: if the system has no periodic boundaries.
        """
        if "box_vectors" not in (self.records.dtype.names or ()):
            raise DataError(f"{self.path} holds a system without periodic boundaries: it has no box vectors")
        return self.records["box_vectors"]

    def verify(self) -> None:
        """Read every frame and compare its checksum; DataError names the first damaged frame."""
        read_growing_array(self.frames_file, verify=True)


@dataclass(frozen=True)
class Split:
    """Whole trajectories for each purpose; no seed is in two of them."""

    train: list[LabelledTrajectory]
    validation: list[LabelledTrajectory]
    test: list[LabelledTrajectory]


@dataclass(frozen=True)
class LabelledTrajectories:
    """A directory of labelled trajectories, sorted by temperature and seed."""

    path: Path
    meta: dict[str, Any]
    trajectories: list[LabelledTrajectory]

    @classmethod
    def open(cls, path: str | Path) -> LabelledTrajectories:
        """Open a directory that `openmm-gnn label` has written or is writing; trajectories not begun are left out.

        Raises:
            DataError: if it is no such directory, or of another version.
        """
        path = Path(path)
        meta = LABELLED.read(path)
        begun = [t for t in listed_trajectories(path, meta) if t.frames_file.exists() and t.frames_file.stat().st_size]
        return cls(path, meta, sorted(begun, key=lambda trajectory: (trajectory.temperature, trajectory.seed)))

    def __len__(self) -> int:
        return len(self.trajectories)

    @cached_property
    def system(self) -> SimulationSystem:
        """The labelled System with its topology."""
        return load_system(self.path)

    @property
    def topology(self) -> app.Topology:
        return self.system.topology

    @property
    def seeds(self) -> list[int]:
        """Every seed once, ascending."""
        return sorted({trajectory.seed for trajectory in self.trajectories})

    def select(self, seeds: Iterable[int], temperature: float | None = None) -> list[LabelledTrajectory]:
        """The trajectories of these seeds, at every temperature or at one.

        Raises:
            DataError: if a seed has no trajectory, or one that is not complete.
        """
        chosen = []
        for seed in seeds:
            found = [t for t in self.trajectories if t.seed == seed and temperature in (None, t.temperature)]
            if not found:
                where = "" if temperature is None else f" at {temperature:g} K"
                raise DataError(f"{self.path} has no trajectory of seed {seed}{where}: it has seeds {self.seeds}")
            chosen += found
        for trajectory in chosen:
            if not trajectory.complete:
                raise DataError(
                    f"{trajectory.path} has {len(trajectory)} of {trajectory.frames} frames: run the same "
                    "`openmm-gnn label` command again to complete it"
                )
        return chosen

    def split(
        self, train_seeds: Iterable[int], validation_seeds: Iterable[int] = (), test_seeds: Iterable[int] = ()
    ) -> Split:
        """Whole trajectories by seed, for training, validation and test.

        Raises:
            DataError: if a seed is given twice or has no complete trajectory.
        """
        parts: list[Sequence[int]] = [list(train_seeds), list(validation_seeds), list(test_seeds)]
        every = [seed for part in parts for seed in part]
        twice = sorted({seed for seed in every if every.count(seed) > 1})
        if twice:
            raise DataError(f"the seeds {twice} are given twice: a trajectory is for training, validation or test")
        return Split(*(self.select(part) for part in parts))


def trajectory_name(temperature: float, seed: int) -> str:
    """The directory of a trajectory, such as '100K-seed-1'."""
    return f"{temperature:.10g}K-seed-{seed}"


def listed_trajectories(path: Path, meta: dict[str, Any]) -> list[LabelledTrajectory]:
    """Every trajectory that meta.json asks for, begun or not."""
    return [
        LabelledTrajectory(path / "trajectories" / name, entry["temperature"], entry["seed"], entry["frames"])
        for name, entry in meta["trajectories"].items()
    ]


class Trajectory(Protocol):
    """What a batch needs of a labelled trajectory: arrays by frame, nm and kJ/mol/nm."""

    @property
    def positions(self) -> np.ndarray: ...
    @property
    def forces(self) -> np.ndarray: ...
    @property
    def box_vectors(self) -> np.ndarray: ...


@dataclass(frozen=True)
class TrajectoryView:
    """A labelled trajectory seen in another way: fewer of its frames, or in a box where it has none."""

    positions: np.ndarray
    forces: np.ndarray
    box_vectors: np.ndarray


def every_nth(trajectory: Trajectory, stride: int) -> Trajectory:
    """The trajectory with only every n-th of its frames."""
    return TrajectoryView(trajectory.positions[::stride], trajectory.forces[::stride], trajectory.box_vectors[::stride])


def in_open_space(positions: np.ndarray, forces: np.ndarray) -> Trajectory:
    """Frames without periodic boundaries, in one cube so wide that no atom meets an image of another."""
    extent = max((float(np.ptp(frame, axis=0).max()) for frame in positions), default=0.0)
    box_vectors = np.broadcast_to(np.eye(3) * (extent + MARGIN_NM), (len(positions), 3, 3))
    return TrajectoryView(positions, forces, box_vectors)
