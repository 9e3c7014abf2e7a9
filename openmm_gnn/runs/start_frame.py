"""A System that begins where another run has ended."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from openmm_gnn.base.errors import DataError
from openmm_gnn.md.simulation_system import SimulationSystem
from openmm_gnn.runs.directory import RunDirectory


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
    return replace(system, system=openmm_system, positions=positions[-1].astype(float), prepare=None)
