"""Directories as `label` leaves them, made in the test's own process from any small System."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import openmm

from openmm_gnn.base.growing_array import GrowingArray
from openmm_gnn.data.labels.trajectories import LABELLED, frame_fields, trajectory_name
from openmm_gnn.md.simulation_system import SimulationSystem
from openmm_gnn.md.systems.systems import save_system


def write_labels(
    path: Path,
    system: SimulationSystem,
    seeds: list[int],
    num_frames: int = 4,
    temperature: float = 300.0,
    forces: str = "all",
) -> Path:
    """Frames jittered about the start, with the forces of OpenMM's Reference platform."""
    save_system(path, system)
    context = openmm.Context(
        system.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    entries = {}
    fields = frame_fields(len(system.positions), system.periodic)
    for seed in seeds:
        name = trajectory_name(temperature, seed)
        entries[name] = {"temperature": temperature, "seed": seed, "frames": num_frames}
        generator = np.random.default_rng([seed, round(temperature)])
        (path / "trajectories" / name).mkdir(parents=True)
        with GrowingArray.open(path / "trajectories" / name / "frames.npy", fields) as frames:
            records = frames.empty_records(num_frames)
            for record in records:
                context.setPositions(system.positions + generator.normal(scale=0.01, size=system.positions.shape))
                context.computeVirtualSites()
                state = context.getState(positions=True, forces=True, energy=True)
                record["positions"] = state.getPositions(asNumpy=True)._value
                record["forces"] = state.getForces(asNumpy=True)._value
                record["potential_energy"] = state.getPotentialEnergy()._value
                if system.periodic:
                    record["box_vectors"] = system.box_vectors
            frames.append(records)
    meta = {"kind": LABELLED.name, "version": LABELLED.version, "settings": {"forces": forces}, "trajectories": entries}
    (path / "meta.json").write_text(json.dumps(meta))
    return path
