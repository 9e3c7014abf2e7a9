"""Whether a force uses the periodic box: the System says so; what is guessed from a topology is warned of."""

from __future__ import annotations

import warnings

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_gnn.forces.backends import is_periodic
from openmm_gnn.forces.gamd_force import gamd_force


def pair(edge: float | None) -> tuple[app.Topology, openmm.System]:
    """Two argon atoms 0.4 nm apart in a cube of this edge, nm, and a System of them that has no force yet."""
    topology, system = app.Topology(), openmm.System()
    chain = topology.addChain()
    for _ in range(2):
        topology.addAtom("Ar", app.element.argon, topology.addResidue("Ar", chain))
        system.addParticle(39.9)
    if edge is not None:
        topology.setPeriodicBoxVectors(np.eye(3) * edge * unit.nanometer)
        system.setDefaultPeriodicBoxVectors(*(np.eye(3) * edge))
    return topology, system


def with_nonbonded(system: openmm.System, periodic: bool) -> openmm.System:
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic if periodic else openmm.NonbondedForce.NoCutoff)
    for _ in range(2):
        force.addParticle(0.0, 0.3, 0.0)
    system.addForce(force)
    return system


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("edge", [None, 0.1, 3.0])
def test_the_system_decides_whatever_the_topology_says(edge: float | None, periodic: bool) -> None:
    topology, _ = pair(edge)
    system = with_nonbonded(pair(3.0)[1], periodic)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        force = gamd_force("gamd-argon", topology, periodic=system)
    assert force.usesPeriodicBoundaryConditions() == periodic


def test_a_force_that_does_not_say_leaves_it_to_the_others() -> None:
    topology, system = pair(3.0)
    system.addForce(openmm.HarmonicBondForce())
    assert not is_periodic(topology, system, 0.7)
    assert is_periodic(topology, with_nonbonded(system, True), 0.7)


@pytest.mark.parametrize(
    ("edge", "uses_box", "words"),
    [(0.1, False, "which cannot be one"), (1.2, True, "less than twice the cutoff"), (3.0, True, "periodic=system")],
)
def test_what_is_guessed_from_a_topology_is_said(edge: float, uses_box: bool, words: str) -> None:
    """With a placeholder of a box, two atoms push each other apart as they do in open space."""
    topology, _ = pair(edge)
    with pytest.warns(UserWarning, match=words):
        force = gamd_force("gamd-argon", topology)
    assert force.usesPeriodicBoundaryConditions() == uses_box
    if uses_box:
        return
    forces = []
    for alone in (force, gamd_force("gamd-argon", pair(None)[0])):
        of_pair = pair(None)[1]
        of_pair.addForce(alone)
        reference = openmm.Platform.getPlatformByName("Reference")
        context = openmm.Context(of_pair, openmm.VerletIntegrator(0.001), reference)
        context.setPositions([[0, 0, 0], [0.4, 0, 0]])
        forces.append(context.getState(forces=True).getForces(asNumpy=True)._value)
    np.testing.assert_allclose(forces[0], forces[1], rtol=1e-6, atol=1e-6)
    assert forces[1][0, 0] != 0
