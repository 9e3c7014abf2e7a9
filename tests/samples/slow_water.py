"""Flexible TIP3P water as an accelerated run has it: a System, an untrained network, and settings."""

from __future__ import annotations

import numpy as np
from openmm import app, unit
from small_water import water_on_a_lattice
from untrained_networks import untrained

from openmm_gnn.md.run_settings import RunCourse
from openmm_gnn.md.simulation_system import SimulationSystem, Thermostat
from openmm_gnn.md.systems.fluids import water_topology
from openmm_gnn.networks.gamd import GAMD

SETTINGS = RunCourse(
    steps=40,
    equilibration_steps=10,
    report_interval=5,
    checkpoint_interval=10,
    time_step_ps=0.002,
    temperature=300.0,
    thermostat=Thermostat.LANGEVIN,
    friction_per_ps=5.0,
    inner_steps=2,
    bonded_substeps=2,
    hydrogen_mass=3.0,
    seed=1,
)


def flexible_water(rigid: bool = False, force_field: str = "tip3p.xml") -> SimulationSystem:
    """27 molecules on a lattice, TIP3P with springs."""
    edge = 0.95
    parameters = app.ForceField(force_field)
    modeller = app.Modeller(water_topology(27, edge), water_on_a_lattice(3, edge / 3) * unit.nanometer)
    modeller.addExtraParticles(parameters)
    system = parameters.createSystem(
        modeller.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.45 * unit.nanometer, rigidWater=rigid
    )
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    return SimulationSystem("small-water", system, modeller.topology, positions)


def network(forces: str = "nonbonded") -> GAMD:
    return untrained((8, 1), 0.35, force_scale=1000.0, metadata={"data": [{"forces": forces}]}).double()
