"""Temperatures per element: rigid bodies by hand, OpenMM's own constrained velocities, logs of runs old and new."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
from small_water import MOLECULE

from openmm_gnn.base.errors import DataError
from openmm_gnn.md.element_temperatures import ElementTemperatures
from openmm_gnn.md.run_settings import ComputeSettings, RunCourse
from openmm_gnn.md.simulation_system import SimulationSystem, Thermostat
from openmm_gnn.md.systems.fluids import water_topology
from openmm_gnn.runs.directory import LOG_COLUMNS, elements_in
from openmm_gnn.runs.simulate import simulate

OXYGEN, HYDROGEN = 15.999, 1.008


def waters(num_molecules: int, hydrogen_bond: bool = True, center_at_rest: bool = False) -> SimulationSystem:
    """Molecules of three sites on a line, far from each other, without forces; rigid, or with a free angle."""
    system, topology = openmm.System(), water_topology(num_molecules, 100.0)
    for molecule in range(num_molecules):
        oxygen = 3 * molecule
        for mass in (OXYGEN, HYDROGEN, HYDROGEN):
            system.addParticle(mass)
        for first, second in ((0, 1), (0, 2), (1, 2))[: 3 if hydrogen_bond else 2]:
            length = float(np.linalg.norm(MOLECULE[second] - MOLECULE[first]))
            system.addConstraint(oxygen + first, oxygen + second, length)
    if center_at_rest:
        system.addForce(openmm.CMMotionRemover())
    rotations = np.linalg.qr(np.random.default_rng(1).normal(size=(num_molecules, 3, 3)))[0]
    sites = np.arange(num_molecules)[:, None, None] * np.array([1.0, 0.0, 0.0])
    positions = (MOLECULE @ rotations + sites).reshape(-1, 3)
    return SimulationSystem("waters", system, topology, positions, temperature=300.0)


def rigid_body_freedom(positions: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Effective degrees of freedom of the atoms of a rigid body, from its translations and rotations.

    Atom i moves with v + w x r; in equilibrium <m_i v_i^2> / kT = 3 m_i / M + m_i tr(R_i I^-1 R_i^T), R_i w = w x r_i.
    """
    relative = positions - masses @ positions / masses.sum()
    inertia = sum(m * (r @ r * np.eye(3) - np.outer(r, r)) for m, r in zip(masses, relative, strict=True))
    inverse = np.linalg.inv(inertia)
    freedom = []
    for mass, (x, y, z) in zip(masses, relative, strict=True):
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        freedom.append(3 * mass / masses.sum() + mass * np.trace(cross @ inverse @ cross.T))
    return np.array(freedom)


def test_rigid_water_has_six_and_each_atom_the_share_of_a_rigid_body() -> None:
    water = waters(5)
    elements = ElementTemperatures(water.system, water.topology)
    assert elements.elements == ("O", "H")
    of_atoms = elements.atom_degrees_of_freedom(water.positions).reshape(5, 3)
    expected = rigid_body_freedom(MOLECULE, np.array([OXYGEN, HYDROGEN, HYDROGEN]))
    assert of_atoms == pytest.approx(np.tile(expected, (5, 1)), rel=1e-9)
    assert of_atoms.sum(axis=1) == pytest.approx(np.full(5, 6.0))
    assert of_atoms[0, 0] == pytest.approx(2.815, abs=1e-3)


@pytest.mark.parametrize("center_at_rest", [False, True])
@pytest.mark.parametrize("rigid", [False, True])
def test_velocities_drawn_by_openmm_have_the_temperature_they_were_drawn_at(rigid: bool, center_at_rest: bool) -> None:
    """With free angles an atom's share depends on the angle; here each molecule has its own."""
    water = waters(400, rigid, center_at_rest)
    if not rigid:
        bend = np.random.default_rng(2).uniform(0.5, 2.9, 400)
        arms = np.stack([np.cos(bend), np.sin(bend), 0 * bend], axis=1) * np.linalg.norm(MOLECULE[2])
        water.positions.reshape(-1, 3, 3)[:, 1] = water.positions[::3] + MOLECULE[1]
        water.positions.reshape(-1, 3, 3)[:, 2] = water.positions[::3] + arms
    elements = ElementTemperatures(water.system, water.topology)
    count = 400 * (6 if rigid else 7) - 3 * center_at_rest
    freedom = elements.degrees_of_freedom(water.positions)
    assert freedom.sum() == pytest.approx(count)
    context = openmm.Context(
        water.system, openmm.LangevinMiddleIntegrator(300, 1, 1e-3), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(water.positions)
    drawn = []
    for seed in range(1, 26):
        context.setVelocitiesToTemperature(300.0, seed)
        velocities = context.getState(velocities=True).getVelocities(asNumpy=True)._value
        if center_at_rest:
            masses = np.tile([OXYGEN, HYDROGEN, HYDROGEN], 400)
            velocities = velocities - masses @ velocities / masses.sum()
        drawn.append(elements(water.positions, velocities))
    errors = 300 * np.sqrt(2 / (25 * freedom))
    assert np.abs(np.mean(drawn, axis=0) - 300).max() < 3.5 * errors.max()
    # Counting three for each oxygen and the rest for hydrogens would be seen here.
    naive = 300 * freedom / np.array([1200.0, count - 1200.0])
    assert np.abs(naive - 300).min() > 3 * errors.max()


def test_constraint_that_follows_from_the_others_counts_once_and_frozen_atoms_have_none() -> None:
    water = waters(1)
    for first, second in ((0, 1), (1, 2)):
        length = float(np.linalg.norm(MOLECULE[second] - MOLECULE[first]))
        water.system.addConstraint(first, second, length)
    elements = ElementTemperatures(water.system, water.topology)
    assert elements.degrees_of_freedom(water.positions).sum() == pytest.approx(6.0)
    frozen = waters(1, hydrogen_bond=False)
    frozen.system.setParticleMass(0, 0.0)
    elements = ElementTemperatures(frozen.system, frozen.topology)
    assert elements.elements == ("H",)  # the two hydrogens move on spheres around it
    assert elements.atom_degrees_of_freedom(frozen.positions) == pytest.approx([0.0, 2.0, 2.0])


SETTINGS = RunCourse(
    steps=400,
    equilibration_steps=100,
    report_interval=2,
    temperature=300.0,
    thermostat=Thermostat.LANGEVIN,
    friction_per_ps=50.0,
    checkpoint_interval=100,
    time_step_ps=0.002,
    seed=1,
)


def test_log_of_a_run_has_a_temperature_per_element(tmp_path: Path) -> None:
    water = waters(40)
    settings = replace(SETTINGS, steps=4000, report_interval=4)
    log = simulate(water, tmp_path, settings, compute=ComputeSettings("Reference")).directory.read_log()
    assert log.dtype.names == (*LOG_COLUMNS, "temperature_O_K", "temperature_H_K")
    # Langevin leaves noise along the constraints: OpenMM's own temperature counts it, ours does not.
    assert log["temperature_K"].mean() > 306
    for element in elements_in(log.dtype.names):
        assert log[f"temperature_{element}_K"].mean() == pytest.approx(300, rel=0.02)
    calm = replace(SETTINGS, friction_per_ps=1e-3, equilibration_steps=0)
    log = simulate(water, tmp_path / "calm", calm, compute=ComputeSettings("Reference")).directory.read_log()
    freedom = ElementTemperatures(water.system, water.topology).degrees_of_freedom(water.positions)
    total = (freedom[0] * log["temperature_O_K"] + freedom[1] * log["temperature_H_K"]) / freedom.sum()
    assert total == pytest.approx(log["temperature_K"], rel=1e-3)


def test_log_without_the_columns_is_read_and_goes_on_without_them(tmp_path: Path) -> None:
    """Runs of the version before were logged without temperatures of elements."""
    water = waters(3)
    run = simulate(water, tmp_path, replace(SETTINGS, steps=200), compute=ComputeSettings("Reference")).directory
    old = [",".join(line.split(",")[: len(LOG_COLUMNS)]) for line in run.log.read_text().splitlines()]
    run.log.write_text("\n".join(old) + "\n")
    simulate(water, tmp_path, SETTINGS, compute=ComputeSettings("Reference"))
    log = run.read_log()
    assert log.dtype.names == LOG_COLUMNS
    assert len(log) == 200 and np.isfinite(log["temperature_K"]).all()
    assert elements_in(log.dtype.names) == []
    run.log.write_text("step,time\n" + run.log.read_text())
    with pytest.raises(DataError, match="begins with 'step,time': expected the columns step,time_ps"):
        run.read_log()
