"""A small system and a small featurizer, for tests of what surrounds them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import app, unit

from openmm_gnn.base.errors import SpecError

NUM_ATOMS, EDGE = 27, 1.6


class DistanceFeaturizer:
    """Random projections of the first atoms' positions about their centre; what it reads of the rest is nothing."""

    def __init__(self, num_tokens: int = 4, width: int = 8, seed: int = 1, seconds: float = 0.0) -> None:
        self.num_particles = NUM_ATOMS
        self.read_atoms = np.arange(num_tokens)
        self.num_tokens, self.width = num_tokens, width
        self.seconds = seconds
        self.nan_from = 10**9
        """From this frame on the encoder is broken."""
        self.num_frames = 0
        self._weights = np.random.default_rng(seed).normal(size=(num_tokens, width))
        self._seed = seed

    def features(self, positions: Any, box_vectors: Any = None, of_read_atoms: bool = False) -> np.ndarray:
        read = self.coordinates(positions, box_vectors, of_read_atoms, np.float64)
        if self.seconds:
            time.sleep(self.seconds)
        centred = read - read.mean(axis=0)
        result = np.empty((self.num_tokens, 4, self.width), np.float32)
        result[:, 0] = np.linalg.norm(centred, axis=1)[:, None] * self._weights
        result[:, 1:] = centred[:, :, None] * self._weights[:, None]
        if self.num_frames >= self.nan_from:
            result[2, 1, 0] = np.nan
        self.num_frames += 1
        return result

    def coordinates(
        self, positions: Any, box_vectors: Any = None, of_read_atoms: bool = False, dtype: Any = np.float32
    ) -> np.ndarray:
        positions = np.asarray(positions)
        if positions.shape != (len(self.read_atoms) if of_read_atoms else self.num_particles, 3):
            raise SpecError(f"positions of shape {positions.shape}")
        return (positions if of_read_atoms else positions[self.read_atoms]).astype(dtype)

    def describe(self) -> dict[str, Any]:
        return {
            "encoder": {"name": "distances", "hash": str(self._seed), "spec": {}},
            "topology_hash": "argon",
            "selection": None,
            "tokens": {"labels": [f"AR{index + 1}" for index in range(self.num_tokens)]},
            "reduction": "sum",
            "dtype": "float64",
        }


def argon_simulation(seed: int = 1, temperature: float = 100.0) -> app.Simulation:
    """27 Lennard-Jones atoms in a periodic box; on Reference, restored checkpoints go on bit for bit."""
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors((EDGE, 0, 0), (0, EDGE, 0), (0, 0, EDGE))
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.75)
    topology = app.Topology()
    topology.setPeriodicBoxVectors(np.eye(3) * EDGE * unit.nanometer)
    chain = topology.addChain()
    for _ in range(NUM_ATOMS):
        system.addParticle(39.9)
        force.addParticle(0.0, 0.34, 0.996)
        topology.addAtom("Ar", app.element.argon, topology.addResidue("AR", chain))
    system.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(temperature, 1.0, 0.002)
    integrator.setRandomNumberSeed(seed)
    simulation = app.Simulation(topology, system, integrator, openmm.Platform.getPlatformByName("Reference"))
    sites = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    simulation.context.setPositions((sites + 0.5) * (EDGE / 3))
    simulation.context.setVelocitiesToTemperature(temperature, seed)
    return simulation


def save_checkpoint(simulation: app.Simulation, path: Path) -> None:
    """As a whole: OpenMM's own reporter may be killed in the middle of its file."""
    partial = path.with_suffix(".partial")
    simulation.saveCheckpoint(str(partial))
    partial.replace(path)
