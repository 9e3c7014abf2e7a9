"""What accelerate refuses, in words and before the first step."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import openmm
import pytest
from accelerated_water import EDGE, TOPOLOGY, network, water
from openmm import app

from openmm_gnn import accelerate, gamd_force
from openmm_gnn.base.errors import SpecError, TopologyError
from openmm_gnn.md.systems.fluids import water_topology


def with_force(force: openmm.Force) -> openmm.System:
    system = water()
    system.addForce(force)
    return system


def bonded_alone() -> openmm.System:
    system = water()
    for index in reversed(range(system.getNumForces())):
        if isinstance(system.getForce(index), openmm.NonbondedForce):
            system.removeForce(index)
    return system


def in_all_groups() -> openmm.System:
    system = water()
    for group in range(32):
        force = openmm.CustomExternalForce("x")
        force.addParticle(0, [])
        force.setForceGroup(group)
        system.addForce(force)
    return system


def with_metadynamics() -> openmm.System:
    """OpenMM's Metadynamics changes the System that it was given, and no copy."""
    system = water()
    distance = openmm.CustomBondForce("r")
    distance.addBond(0, 3)
    variable = app.BiasVariable(distance, 0.1, 1.0, 0.05)
    app.Metadynamics(system, [variable], 300.0, 10.0, 1.0, 100)
    return system


def partly_bonded() -> openmm.System:
    """Two water molecules without bonded forces, as where a potential has taken the place of these."""
    system = water()
    for force in system.getForces():
        if isinstance(force, openmm.HarmonicBondForce):
            for bond in range(force.getNumBonds()):
                first, second, length, strength = force.getBondParameters(bond)
                if first < 6:
                    force.setBondParameters(bond, first + 6, second + 6, length, strength)
        if isinstance(force, openmm.HarmonicAngleForce):
            for angle in range(force.getNumAngles()):
                *atoms, size, strength = force.getAngleParameters(angle)
                if atoms[0] < 6:
                    force.setAngleParameters(angle, *(atom + 6 for atom in atoms), size, strength)
    return system


SOLUTE = range(6)
LABELS_OF_ALL = {"data": [{"forces": "nonbonded"}, {"forces": "all"}]}


@pytest.mark.parametrize(
    ("system", "changes", "error", "message"),
    [
        (lambda: with_force(openmm.AndersenThermostat(300.0, 1.0)), {}, SpecError, "AndersenThermostat"),
        (lambda: with_force(openmm.DrudeForce()), {}, SpecError, "DrudeForce"),
        (bonded_alone, {}, SpecError, "nothing in it is expensive .* run it as it is"),
        (in_all_groups, {}, SpecError, "32 of OpenMM's 32 force groups"),
        (water, {"model": network(elements=(8,))}, TopologyError, "is element H"),
        (water, {"model": network(use_bonds=True, metadata={})}, None, ""),
        (water, {"model": network(metadata=LABELS_OF_ALL)}, SpecError, "would count twice"),
        (lambda: water(rigid=True), {"model": network(metadata=LABELS_OF_ALL)}, None, ""),
        (water, {"topology": water_topology(26, EDGE)}, TopologyError, "78 atoms, the System 81"),
        (water, {"inner_steps": 0}, SpecError, "inner_steps is 0"),
        (water, {"bonded_substeps": 1.5}, SpecError, "bonded_substeps is 1.5"),
        (water, {"time_step": 0.0}, SpecError, "time_step is 0.0"),
        (water, {"temperature": None, "friction": 1.0}, SpecError, "give both"),
        (lambda: water(rigid=True), {"thermostat": "isokinetic"}, SpecError, "81 constraints, .* make it without"),
        (water, {"thermostat": "isokinetic", "temperature": None}, SpecError, "needs one above 0"),
        (water, {"thermostat": "isokinetic", "hydrogen_friction": 20.0}, SpecError, "hydrogen_friction is of Langevin"),
        (water, {"thermostat": "monte-carlo", "temperature": None}, SpecError, "Monte Carlo needs one above 0"),
        (water, {"thermostat": "monte-carlo", "hydrogen_friction": 9.0}, SpecError, "leave it out in hybrid Monte"),
        (water, {"thermostat": "nose-hoover"}, SpecError, "thermostat is nose-hoover: give langevin, isokinetic"),
        (water, {"hydrogen_friction": -1.0}, SpecError, "hydrogen_friction is -1.0"),
        (water, {"hydrogen_friction": 9.0, "temperature": None}, SpecError, "without a temperature"),
        (water, {"friction": -1.0}, SpecError, "friction is -1.0"),
        (water, {"hydrogen_mass": 8.0}, SpecError, "would leave 2.0"),
        (water, {"hydrogen_mass": 0.0}, SpecError, "hydrogen_mass is 0.0"),
        (water, {"expensive": ["PythonForce"]}, SpecError, "expensive has 'PythonForce', .* it has HarmonicBondForce"),
        (water, {"expensive": [7]}, SpecError, "expensive has 7, which is no force"),
        (water, {"expensive": [np.int64(0)], "atoms": SOLUTE}, None, ""),
        (water, {"expensive": ["CMMotionRemover"]}, SpecError, "none of which has a force"),
        (water, {"atoms": [0, 0]}, TopologyError, "give each index once"),
        (with_metadynamics, {}, SpecError, "make the Metadynamics afterwards"),
        (water, {"atoms": SOLUTE, "model": network(metadata=LABELS_OF_ALL)}, SpecError, "would count twice"),
        (partly_bonded, {"atoms": SOLUTE, "model": network(metadata=LABELS_OF_ALL)}, None, ""),
    ],
)
def test_what_cannot_work_is_refused_in_words(
    system: Callable[[], openmm.System], changes: dict, error: type[Exception] | None, message: str
) -> None:
    arguments: dict = {"topology": TOPOLOGY, "model": network(), **changes}
    if error is None:
        accelerate(system(), **arguments)
        return
    with pytest.raises(error, match=message):
        accelerate(system(), **arguments)


def test_a_box_is_too_narrow_only_for_a_model_that_knows_bonds() -> None:
    narrow = water()
    narrow.setDefaultPeriodicBoxVectors(*(np.eye(3) * 0.65))
    with pytest.raises(TopologyError, match="0.650 nm wide, less than twice the model's cutoff of 0.35 nm"):
        accelerate(narrow, TOPOLOGY, network(use_bonds=True))
    accelerate(narrow, TOPOLOGY, network())


def test_a_potential_beside_a_force_field_is_questioned() -> None:
    system = water()
    hidden = openmm.XmlSerializer.clone(next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce)))
    hidden.setName("field")
    system.addForce(hidden)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        accelerate(system, TOPOLOGY, network())  # a force field in two parts is none of it
        accelerate(with_potential(), TOPOLOGY, network(), expensive=["potential"], atoms=SOLUTE)
    with pytest.warns(UserWarning, match=r"stands for NonbondedForce and potential .* give expensive=\['potential'\]"):
        accelerate(with_potential(), TOPOLOGY, network())


def with_potential() -> openmm.System:
    """A network of its own stands for a machine-learned potential."""
    system = water()
    force = gamd_force(network(), TOPOLOGY, atoms=SOLUTE, periodic=True)
    force.setName("potential")
    system.addForce(force)
    return system
