"""The teacher of a distillation: a System that is asked for forces, and never twice at the same geometry.

Every evaluation is appended to labels.npy before its result is used, and looked up there by the bytes of its positions.
So a distillation that was killed is run again from its beginning: what it asks for a second time is answered from the
file, at no cost, up to where it was.
"""

from __future__ import annotations

import copy
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import openmm

from openmm_gnn.base.errors import NonFiniteError
from openmm_gnn.base.growing_array import GrowingArray, read_growing_array
from openmm_gnn.md.simulation_system import (
    BONDED_GROUP,
    NONBONDED_GROUP,
    LabelledForces,
    SimulationSystem,
    split_groups,
)


class Purpose(IntEnum):
    """What an evaluation is for, as labels.npy holds it."""

    PASSED = 0
    """On the way to another frame: no network learns from it."""
    TRAIN = 1
    HELD_OUT = 2


class OutOfCallsError(Exception):
    """The evaluations that were granted are spent."""


class CountedTeacher:
    """A System's forces at given positions, each evaluation counted and stored.

    Args:
        system: stays as it is.
        forces: those that a network is to learn.
        file: the growing array of all evaluations; what it holds already is known.
        platform: name of an OpenMM platform.
        most_calls: evaluations that are granted, the known ones included.
    """

    def __init__(
        self, system: SimulationSystem, forces: LabelledForces, file: Path, platform: str, most_calls: int
    ) -> None:
        self.forces, self.most_calls = forces, most_calls
        self.round = 0
        """The round that evaluations are counted for."""
        self._box = system.box_vectors
        grouped = copy.deepcopy(system.system)
        split_groups(grouped)
        self.context = openmm.Context(
            grouped, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform)
        )
        self.records = GrowingArray.open(file, record_fields(len(system.positions), system.periodic))
        self._stored = np.array(read_growing_array(file))
        self._known = {self._key(row["positions"], _box_of(row)): row for row in self._stored}

    @property
    def calls(self) -> int:
        """Evaluations so far."""
        return len(self.records)

    @property
    def left(self) -> int:
        """Evaluations that may still be made."""
        return max(0, self.most_calls - self.calls)

    def evaluate(self, positions: np.ndarray, purpose: Purpose, box: np.ndarray | None = None) -> np.ndarray:
        """The record of a geometry, of `record_fields`: from the file, or by an evaluation that is stored at once.

        Args:
            positions: (num_particles, 3), nm.
            box: (3, 3), nm; None: that of the System.
        Raises:
            OutOfCallsError: if it is not known, and the evaluations are spent.
            NonFiniteError: if an energy or a force is NaN or infinite.
        """
        positions = np.ascontiguousarray(positions, dtype=np.float64)
        box = self._box if box is None else np.asarray(box, dtype=np.float64)
        key = self._key(positions, box)
        if key in self._known:
            return self._known[key]
        if self.left == 0:
            raise OutOfCallsError
        record = self.records.empty_records(1)
        record["round"], record["purpose"], record["positions"] = self.round, purpose, positions
        if box is not None:
            self.context.setPeriodicBoxVectors(*_reduced(box))
            record["box_vectors"] = box
        self.context.setPositions(positions)
        learned, rest = {NONBONDED_GROUP, BONDED_GROUP}, set[int]()
        if self.forces is LabelledForces.NONBONDED:
            learned, rest = {NONBONDED_GROUP}, {BONDED_GROUP}
        state = self.context.getState(energy=True, forces=True, groups=learned)
        record["energy"] = state.getPotentialEnergy()._value
        record["forces"] = state.getForces(asNumpy=True)._value
        if rest:
            state = self.context.getState(forces=True, groups=rest)
            record["other_forces"] = state.getForces(asNumpy=True)._value
        if not (np.isfinite(record["forces"]).all() and np.isfinite(record["energy"]).all()):
            raise NonFiniteError(
                f"the teacher's forces are not finite at evaluation {self.calls + 1}: mend the start, or look for "
                "atoms that overlap in the geometries"
            )
        self.records.append(record)
        self._known[key] = record[0]
        return self._known[key]

    def all_records(self) -> np.ndarray:
        """(calls,) of `record_fields`, in the order of the evaluations."""
        return np.array(read_growing_array(self.records.path))

    def close(self) -> None:
        """Give up the file."""
        self.records.close()

    @staticmethod
    def _key(positions: np.ndarray, box: np.ndarray | None) -> bytes:
        return positions.tobytes() + (b"" if box is None else np.ascontiguousarray(box).tobytes())


def record_fields(num_particles: int, periodic: bool) -> list[tuple[Any, ...]]:
    """The record of an evaluation, for `GrowingArray`: nm, kJ/mol, kJ/mol/nm.

    `forces` are those that a network learns, `other_forces` the rest: bonded ones that stay in the accelerated System.
    """
    return [
        ("round", "<i8"),
        ("purpose", "<i8"),
        ("energy", "<f8"),
        *([("box_vectors", "<f8", (3, 3))] if periodic else []),
        ("positions", "<f8", (num_particles, 3)),
        ("forces", "<f8", (num_particles, 3)),
        ("other_forces", "<f8", (num_particles, 3)),
    ]


def _box_of(record: np.ndarray) -> np.ndarray | None:
    return record["box_vectors"] if "box_vectors" in (record.dtype.names or ()) else None


def _reduced(box_vectors: np.ndarray) -> Any:
    """The same lattice by shorter vectors, as OpenMM takes it."""
    from openmm.app.internal.unitcell import reducePeriodicBoxVectors

    return reducePeriodicBoxVectors([openmm.Vec3(*vector) for vector in box_vectors.tolist()] * openmm.unit.nanometer)
