"""One small System for each network and CV that is shipped, and for each kind of network that is not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import openmm
from openmm import app
from small_encoders import small_encoder_force
from small_water import water_on_a_lattice

from openmm_gnn.base.specs.encoder import Architecture
from openmm_gnn.features.learned_cv import LEARNED_CVS, LearnedCV, load_learned_cv
from openmm_gnn.forces.cv_force import cv_force
from openmm_gnn.forces.gamd_force import gamd_force
from openmm_gnn.md.simulation_system import SimulationSystem
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.networks.force_model import ForceModel
from openmm_gnn.networks.weights import FORCE_MODELS, load_model, shipped_names

EDGE = 4
"""Molecules of water along an edge of the box."""


@dataclass(frozen=True)
class Example:
    """A network or a CV, and a System without forces for it."""

    network: ForceModel | LearnedCV
    start: SimulationSystem

    def force(self, backend: Any) -> Any:
        """The OpenMM Force."""
        make: Callable[..., Any] = cv_force if isinstance(self.network, LearnedCV) else gamd_force
        return make(self.network, self.start.topology, backend=backend, periodic=self.start.periodic)

    def system(self, backend: Any) -> openmm.System:
        """A System with this Force alone."""
        system = copy.deepcopy(self.start.system)
        system.addForce(self.force(backend))
        return system


def evaluated(system: openmm.System, positions: np.ndarray) -> tuple[float, np.ndarray]:
    """Energy, kJ/mol, and forces (N, 3), kJ/mol/nm, on the CPU platform."""
    platform = openmm.Platform.getPlatformByName("CPU")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(positions)
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def bare(topology: app.Topology, positions: np.ndarray, box: np.ndarray | None = None) -> SimulationSystem:
    """A System of these particles; with a box, a force without terms says that it is periodic."""
    system = openmm.System()
    for atom in topology.atoms():
        system.addParticle(0.0 if atom.element is None else atom.element.mass)
    if box is not None:
        vectors = [openmm.Vec3(*row) for row in box]
        system.setDefaultPeriodicBoxVectors(*vectors)
        topology.setPeriodicBoxVectors(vectors)
        empty = openmm.NonbondedForce()
        empty.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
        empty.setCutoffDistance(0.1)
        for _ in positions:
            empty.addParticle(0.0, 1.0, 0.0)
        system.addForce(empty)
    return SimulationSystem("example", system, topology, positions)


def water(with_sites: bool) -> SimulationSystem:
    """Water in a box, with particles without an element where TIP4P has its charges."""
    topology, spacing = app.Topology(), 0.31
    molecules = topology.addChain()
    for _ in range(EDGE**3):
        residue = topology.addResidue("HOH", molecules)
        oxygen = topology.addAtom("O", app.element.oxygen, residue)
        for name in ("H1", "H2"):
            topology.addBond(oxygen, topology.addAtom(name, app.element.hydrogen, residue))
        if with_sites:
            topology.addAtom("M", None, residue)
    places = water_on_a_lattice(EDGE, spacing).reshape(-1, 3, 3)
    places = places + 0.01 * np.random.default_rng(0).normal(size=places.shape)
    if with_sites:
        places = np.concatenate([places, places.mean(axis=1, keepdims=True)], axis=1)
    return bare(topology, places.reshape(-1, 3), np.diag([EDGE * spacing] * 3))


def molecule() -> SimulationSystem:
    """Twelve atoms of C, H and O, some of them neighbours."""
    topology = app.Topology()
    residue = topology.addResidue("MOL", topology.addChain())
    for index in range(12):
        topology.addAtom(
            f"A{index}", (app.element.carbon, app.element.hydrogen, app.element.oxygen)[index % 3], residue
        )
    places = 0.15 * np.stack(np.meshgrid([0, 1, 2], [0, 1], [0, 1], indexing="ij"), axis=-1).reshape(-1, 3)
    return bare(topology, places + 0.02 * np.random.default_rng(1).normal(size=places.shape))


def _start_of(name: str) -> SimulationSystem:
    if name.startswith("gamd-argon"):
        argon = load_system("argon")
        moved = argon.positions + 0.02 * np.random.default_rng(0).normal(size=argon.positions.shape)
        return bare(argon.topology, moved, argon.box_vectors)
    return water(with_sites=name == "gamd-tip4pew")


SHIPPED = [*shipped_names(FORCE_MODELS), *(f"cv-{name}" for name in shipped_names(LEARNED_CVS))]
EXAMPLES = [*SHIPPED, *(f"energy-{architecture.value}" for architecture in Architecture)]


@cache
def example(name: str) -> Example:
    """The example of this name, one of `EXAMPLES`."""
    kind, _, which = name.partition("-")
    if kind == "cv":
        known = load_system(which)
        return Example(load_learned_cv(which), bare(known.topology, known.positions))
    if kind == "energy":
        return Example(small_encoder_force(Architecture(which), conservative=True), molecule())
    return Example(load_model(name), _start_of(name))
