"""A small box of water and networks that know nothing of it, for tests of acceleration."""

from __future__ import annotations

import numpy as np
import openmm
from openmm import app, unit
from untrained_networks import untrained

from openmm_gnn.md.systems.fluids import water_topology
from openmm_gnn.networks.gamd import GAMD

MOLECULES, EDGE, CUTOFF = 27, 0.95, 0.45
TOPOLOGY = water_topology(MOLECULES, EDGE)


def network(force_scale: float = 3000.0, elements: tuple[int, ...] = (8, 1), **changes: object) -> GAMD:
    """Random weights: an arbitrarily bad approximation, in float64 so that comparisons are sharp."""
    return untrained(elements, 0.35, force_scale=force_scale, **changes).double()


def water(rigid: bool = False, method: object = app.PME) -> openmm.System:
    return app.ForceField("tip3p.xml").createSystem(
        TOPOLOGY, nonbondedMethod=method, nonbondedCutoff=CUTOFF * unit.nanometer, rigidWater=rigid
    )


def make_context(system: openmm.System, integrator: openmm.Integrator, platform: str = "Reference") -> openmm.Context:
    return openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))


def values(quantity: object) -> np.ndarray:
    return np.array(quantity._value)  # type: ignore[attr-defined]
