"""What accelerate refuses, in words and before the first step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openmm
import pytest
from accelerated_water import EDGE, TOPOLOGY, network, water

from openmm_gnn import accelerate
from openmm_gnn.base.errors import SpecError, TopologyError
from openmm_gnn.md.systems.fluids import water_topology


def with_force(force: openmm.Force) -> openmm.System:
    system = water()
    system.addForce(force)
    return system


def with_virtual_site() -> openmm.System:
    system = water()
    system.setParticleMass(2, 0.0)
    system.setVirtualSite(2, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))
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


LABELS_OF_ALL = {"data": [{"forces": "nonbonded"}, {"forces": "all"}]}


@pytest.mark.parametrize(
    ("system", "changes", "error", "message"),
    [
        (lambda: with_force(openmm.AndersenThermostat(300.0, 1.0)), {}, SpecError, "AndersenThermostat"),
        (lambda: with_force(openmm.DrudeForce()), {}, SpecError, "DrudeForce"),
        (with_virtual_site, {}, SpecError, "particle 2 is a virtual site"),
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
        (water, {"temperature": None}, SpecError, "give both"),
        (water, {"friction": -1.0}, SpecError, "friction is -1.0"),
        (water, {"hydrogen_mass": 8.0}, SpecError, "would leave 2.0"),
        (water, {"hydrogen_mass": 0.0}, SpecError, "hydrogen_mass is 0.0"),
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
