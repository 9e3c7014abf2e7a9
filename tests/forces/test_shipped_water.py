"""The shipped water networks: the same forces on every backend and platform, and close to those of their teachers."""

from __future__ import annotations

from functools import cache

import numpy as np
import openmm
import pytest
import torch
from openmm import unit

from openmm_gnn.forces.backends import available_backends
from openmm_gnn.forces.gamd_force import gamd_force
from openmm_gnn.graph.topology_tables import real_atoms, separation_table, species_table
from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs
from openmm_gnn.kernels.radial_pairs import pair_types
from openmm_gnn.md.simulation_system import NONBONDED_GROUP, SimulationSystem, split_groups
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.networks.force_model import PairList
from openmm_gnn.networks.pair_term import box_lengths, grid_sizes
from openmm_gnn.networks.vector_gamd import VectorGAMD
from openmm_gnn.networks.weights import load_model

TEACHERS = {"gamd-tip3p": "tip3p", "gamd-tip4pew": "tip4pew", "gamd-amoeba-water": "amoeba-water"}
WHERE = [
    (backend.value, openmm.Platform.getPlatform(index).getName())
    for backend in available_backends()
    for index in range(openmm.Platform.getNumPlatforms())
]


def context_of(system: openmm.System, platform: str, positions: np.ndarray) -> openmm.Context:
    properties = {"Threads": "1"} if platform == "CPU" else {}
    integrator = openmm.LangevinMiddleIntegrator(300.0, 10.0, 0.002)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform), properties)
    context.setPositions(positions)
    return context


@cache
def moved_water(name: str) -> tuple[SimulationSystem, np.ndarray]:
    """A named water and a configuration of 0.3 ps at 300 K; AMOEBA's is that of TIP3P."""
    rigid = load_system("tip3p" if name == "amoeba-water" else name)
    context = context_of(rigid.system, "CPU", rigid.positions)
    context.setVelocitiesToTemperature(300.0, 1)
    context.getIntegrator().step(150)
    positions = context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    return (load_system(name) if name == "amoeba-water" else rigid), np.array(positions)


def forces_at(context: openmm.Context, groups: int = -1) -> np.ndarray:
    forces = context.getState(forces=True, groups=groups).getForces(asNumpy=True)
    return np.array(forces.value_in_unit(unit.kilojoule_per_mole / unit.nanometer))


@cache
def eager_forces(model_name: str) -> np.ndarray:
    """Network and pair term put together in eager torch, zero for virtual sites."""
    model = load_model(model_name)
    assert isinstance(model, VectorGAMD) and model.pair_term is not None
    water, everything = moved_water(TEACHERS[model_name])
    atoms = real_atoms(water.topology)
    positions, box = torch.from_numpy(everything[atoms]), torch.from_numpy(np.asarray(water.box_vectors))
    species, partners = species_table(water.topology, model.spec.elements), separation_table(water.topology)
    total = torch.zeros((len(atoms), 3))
    for cutoff in (model.spec.neighbors.cutoff, model.pair_term.cutoff):
        pairs, vectors, distances = neighbor_pairs(positions, cutoff, box, full=False)
        types = pair_types(pairs, species, partners, len(model.spec.elements))
        if cutoff == model.spec.neighbors.cutoff:
            total = total + model(species, PairList(pairs, vectors.float(), distances.float(), types)).detach()
        else:
            total = total + model.pair_term(pairs, types, vectors.float(), distances.float(), len(atoms))[0]
    if model.pair_term.charge_term is not None:
        sizes = grid_sizes(box_lengths(box), model.pair_term.charge_term.width)
        total = total + model.pair_term.charge_term(positions, species, box, sizes)[0]
    forces = np.zeros_like(everything)
    forces[atoms] = total.numpy()
    return forces


@pytest.mark.parametrize(("backend", "platform"), WHERE)
@pytest.mark.parametrize("name", TEACHERS)
def test_every_backend_and_platform_gives_the_eager_forces(name: str, backend: str, platform: str) -> None:
    water, positions = moved_water(TEACHERS[name])
    system = openmm.System()
    for mass in water.masses:
        system.addParticle(mass)
    system.setDefaultPeriodicBoxVectors(*np.asarray(water.box_vectors))
    system.addForce(gamd_force(name, water.topology, backend))
    forces, expected = forces_at(context_of(system, platform, positions)), eager_forces(name)
    np.testing.assert_allclose(forces, expected, atol=3e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "largest"), [("gamd-tip3p", 0.02), ("gamd-tip4pew", 0.02), ("gamd-amoeba-water", 0.04)]
)
def test_forces_are_those_of_the_teacher(name: str, largest: float) -> None:
    water, positions = moved_water(TEACHERS[name])
    split_groups(water.system)  # AMOEBA's network knows the non-bonded forces; the others have no bonded ones
    atoms = real_atoms(water.topology)
    expected = forces_at(context_of(water.system, "CPU", positions), 1 << NONBONDED_GROUP)[atoms]
    error = np.abs(eager_forces(name)[atoms] - expected).mean() / np.linalg.norm(expected, axis=1).mean()
    assert error < largest


@pytest.mark.parametrize("name", TEACHERS)
def test_the_bundle_says_where_it_comes_from_and_how_good_it_is(name: str) -> None:
    spec = load_model(name).spec
    held_out = spec.metadata["held_out"]
    assert 0 < held_out["relative_error"] < 0.012 and held_out["mean_cosine"] > 0.9995
    assert spec.metadata["command"].startswith("openmm-gnn train ")
    assert "training_distribution" in spec.metadata
