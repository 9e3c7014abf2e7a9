"""Water with virtual sites through `accelerate`: its steps beside OpenMM's own, and beside a leapfrog in NumPy."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import openmm
import pytest
from accelerated_water import CUTOFF, MOLECULES, TOPOLOGY, make_context, network, values
from openmm import app, unit
from test_mts_integrator import pulled_to_a_plane

from openmm_gnn import accelerate
from openmm_gnn.forces.multiple_time_step import Accelerated
from openmm_gnn.md.leapfrog_steps import LeapfrogLangevinIntegrator
from openmm_gnn.md.multiple_time_steps import Bath

WATERS = ("opc.xml", "tip4pew.xml", "tip5p.xml")
"""Three sites that are averages of the atoms, or two out of their plane."""


def water_of(
    force_field: str, atoms: np.ndarray, rigid: bool = True, method: object = app.CutoffPeriodic
) -> tuple[app.Topology, openmm.System, np.ndarray]:
    """Topology, System and positions of 27 molecules with their sites."""
    parameters = app.ForceField(force_field)
    modeller = app.Modeller(TOPOLOGY, atoms * unit.nanometer)
    modeller.addExtraParticles(parameters)
    system = parameters.createSystem(
        modeller.topology, nonbondedMethod=method, nonbondedCutoff=CUTOFF * unit.nanometer, rigidWater=rigid
    )
    return modeller.topology, system, np.array(modeller.positions.value_in_unit(unit.nanometer))


def started(context: openmm.Context, positions: np.ndarray, seed: int = 3) -> openmm.Context:
    """At these positions with thermal velocities, which obey the constraints."""
    context.getIntegrator().setConstraintTolerance(1e-10)
    context.setPositions(positions)
    context.applyConstraints(1e-10)
    context.computeVirtualSites()
    masses = np.array([context.getSystem().getParticleMass(i)._value for i in range(len(positions))])
    spread = np.sqrt(2.494 / np.where(masses > 0, masses, np.inf))
    context.setVelocities(np.random.default_rng(seed).normal(size=positions.shape) * spread[:, None])
    context.applyVelocityConstraints(1e-10)
    return context


def sites_are_in_place(context: openmm.Context, tolerance: float = 1e-9) -> bool:
    """Whether OpenMM would leave the sites where they are."""
    before = values(context.getState(positions=True).getPositions(asNumpy=True))
    context.computeVirtualSites()
    after = values(context.getState(positions=True).getPositions(asNumpy=True))
    return bool(np.abs(after - before).max() < tolerance)


@pytest.mark.parametrize("force_field", WATERS)
def test_rigid_water_keeps_its_constraints_and_sites(force_field: str, start: tuple[np.ndarray, np.ndarray]) -> None:
    """Forces are the original's, steps of one level those of OpenMM, and two levels keep what they must.

    The network knows nothing of the water: with one step of it in an outer step it cancels, with two it acts.
    """
    topology, original, positions = water_of(force_field, start[0])
    accelerated = accelerate(original, topology, network(200.0), 2, 0.002, temperature=None)
    assert accelerated.integrator.steps_per_outer_step == 2
    of_one = replace(accelerated.integrator.levels, inner_steps=1, time_step_ps=0.001)
    of_one_level = LeapfrogLangevinIntegrator(of_one, Bath(None, None), True, len(positions))
    groups = set(accelerated.own_groups)
    ours = started(make_context(accelerated.system, of_one_level), positions)
    theirs = started(make_context(original, openmm.VerletIntegrator(0.001)), positions)
    forces = [values(one.getState(forces=True, groups=groups).getForces(asNumpy=True)) for one in (ours, theirs)]
    atoms = [atom.index for atom in topology.atoms() if atom.element is not None]
    np.testing.assert_allclose(*(force[atoms] for force in forces), atol=1e-9 * np.abs(forces[1]).max())
    for context in (ours, theirs):
        context.getIntegrator().step(20)
    x, x_theirs = (values(context.getState(positions=True).getPositions(asNumpy=True)) for context in (ours, theirs))
    np.testing.assert_allclose(x, x_theirs, atol=1e-8)
    assert np.abs(x - positions).max() > 0.005

    verlet = openmm.VerletIntegrator(0.001)
    changes = [
        changes_of_energy(started(make_context(system, integrator), positions), groups)
        for system, integrator in ((original, verlet), tuple(accelerated))
    ]
    (scatter, drift), (our_scatter, our_drift) = changes
    assert our_scatter < 2 * scatter and our_drift < drift + 0.01 * 3 * MOLECULES * 2.494, changes
    at_constant_pressure(accelerated, original, positions)


def changes_of_energy(context: openmm.Context, groups: set[int]) -> tuple[float, float]:
    """Scatter about a line, and its rise, of the total energy in kJ/mol over 80 steps of 1 fs.

    Velocities are those of half steps: the kinetic energy at a step is the mean of its neighbours, with an error of its
    own that is the same for all leapfrogs.
    """
    system = context.getSystem()
    masses = np.array([system.getParticleMass(index)._value for index in range(system.getNumParticles())])
    potential, kinetic = [], []
    for _ in range(40):
        context.getIntegrator().step(2)
        state = context.getState(energy=True, velocities=True, groups=groups)
        potential.append(state.getPotentialEnergy()._value)
        kinetic.append(0.5 * masses @ np.square(values(state.getVelocities(asNumpy=True))).sum(axis=1))
    total = np.array(potential[:-1]) + 0.5 * (np.array(kinetic[1:]) + np.array(kinetic[:-1]))
    line = np.polyfit(np.arange(len(total)), total, 1)
    return float(np.std(total - np.polyval(line, np.arange(len(total))))), float(abs(line[0]) * len(total))


def at_constant_pressure(accelerated: Accelerated, original: openmm.System, positions: np.ndarray) -> None:
    """100 steps of OpenMM with friction, high on hydrogens, in which a barostat tries 20 volumes."""
    barostat = openmm.MonteCarloBarostat(1.0, 300.0, 5)
    barostat.setRandomNumberSeed(1)
    accelerated.system.addForce(barostat)
    hydrogens = {index: 20.0 for index in range(len(positions)) if original.getParticleMass(index)._value == 1.00794}
    bath = Bath(300.0, 10.0, hydrogens)
    integrator = LeapfrogLangevinIntegrator(accelerated.integrator.levels, bath, True, len(positions))
    integrator.setRandomNumberSeed(1)
    context = started(make_context(accelerated.system, integrator), positions)
    volumes, kinetic = set(), []
    for _ in range(10):
        integrator.step(10)
        state = context.getState(energy=True, positions=True, groups=set(accelerated.own_groups))
        volumes.add(state.getPeriodicBoxVolume()._value)
        kinetic.append(state.getKineticEnergy()._value)
        assert sites_are_in_place(context)
    assert len(volumes) > 3
    x = values(context.getState(positions=True).getPositions(asNumpy=True))
    for index in range(original.getNumConstraints()):
        one, other, length = original.getConstraintParameters(index)
        assert np.linalg.norm(x[one] - x[other]) == pytest.approx(length._value, abs=1e-8)
    freedom = 6 * MOLECULES - 3
    assert np.mean(kinetic[3:]) / (freedom * 0.5 * 2.494) == pytest.approx(1.0, abs=0.35)  # three deviations of one


def leapfrog(accelerated: Accelerated, positions: np.ndarray, velocities: np.ndarray, outer_steps: int) -> np.ndarray:
    """Positions after steps in which NumPy adds up what is due, and OpenMM only says what forces are and sites."""
    levels, groups = accelerated.integrator.levels, accelerated.levels
    context = make_context(accelerated.system, openmm.VerletIntegrator(0.001))
    masses = np.array([accelerated.system.getParticleMass(index)._value for index in range(len(positions))])[:, None]
    movable, h = masses[:, 0] > 0, levels.time_step_ps / levels.substeps
    x, v = positions.copy(), velocities.copy()

    def forces(of: frozenset[int]) -> np.ndarray:
        return values(context.getState(forces=True, groups=set(of)).getForces(asNumpy=True))

    for substep in range(outer_steps * levels.substeps):
        context.setPositions(x)
        context.computeVirtualSites()
        impulse = h * forces(groups["bonded"])
        if substep % levels.bonded_substeps == 0:
            impulse += h * levels.bonded_substeps * (forces(groups["inner"]) + forces(groups["network"]))
        if substep % levels.substeps == 0:
            impulse += levels.time_step_ps * (forces(groups["expensive"]) - forces(groups["network"]))
        v[movable] += impulse[movable] / masses[movable]
        x[movable] += h * v[movable]
    return x


def test_three_levels_of_flexible_water_with_sites_and_a_solute(start: tuple[np.ndarray, np.ndarray]) -> None:
    """As in ML/MM: a potential of two molecules with a network for it, all else of a force field with sites."""
    topology, original, positions = water_of("tip4pew.xml", start[0], rigid=False)
    solute = [0, 1, 2, 4, 5, 6]
    original.addForce(pulled_to_a_plane(solute))
    accelerated = accelerate(
        original, topology, network(), 3, 0.003, 2, temperature=None, expensive=["potential"], atoms=solute
    )
    for force in reversed(range(accelerated.system.getNumForces())):
        if isinstance(accelerated.system.getForce(force), openmm.CMMotionRemover):
            accelerated.system.removeForce(force)
    assert accelerated.integrator.steps_per_outer_step == 6
    atoms = [atom.index for atom in topology.atoms() if atom.element is not None]
    for platform in range(openmm.Platform.getNumPlatforms()):
        name, integrator = openmm.Platform.getPlatform(platform).getName(), copy.deepcopy(accelerated.integrator)
        context = started(make_context(accelerated.system, integrator, name), positions)
        state = context.getState(positions=True, velocities=True)
        x, v = values(state.getPositions(asNumpy=True)), values(state.getVelocities(asNumpy=True))
        integrator.step(4 * 6)
        found = values(context.getState(positions=True).getPositions(asNumpy=True))
        expected = leapfrog(accelerated, x, v, 4)
        np.testing.assert_allclose(found[atoms], expected[atoms], atol=1e-9 if name == "Reference" else 2e-5)
        assert sites_are_in_place(context, 1e-9 if name == "Reference" else 1e-6)
        assert np.abs(expected - x).max() > 0.01
