"""Features made in the force call against the featurizer on the Context's positions, on every platform and backend."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import openmm
import openmm.app
import pytest
import torch

from openmm_gnn.base.errors import BackendError, NonFiniteError, SpecError
from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.forces.backends import available_backends
from openmm_gnn.forces.python_call import feature_force
from openmm_gnn.networks.encoders.encoder import Encoder

BOX = np.diag([3.0, 3.1, 3.2])
NUM_RESIDUES, NUM_PARTICLES = 4, 20
BACKENDS = available_backends()


@pytest.fixture(scope="module")
def featurizer() -> Featurizer:
    """Of a chain of four residues, CH, C, C, and five argon atoms that are not selected."""
    topology = openmm.app.Topology()
    chain, atoms = topology.addChain(), []
    for number in range(NUM_RESIDUES):
        residue = topology.addResidue("LIG", chain, str(number))
        carbon = [topology.addAtom(f"C{k}", openmm.app.element.carbon, residue) for k in range(3)]
        hydrogen = topology.addAtom("H", openmm.app.element.hydrogen, residue)
        topology.addBond(carbon[0], hydrogen)
        atoms += carbon
    for first, second in itertools.pairwise(atoms):
        topology.addBond(first, second)
    for _ in range(4):
        topology.addAtom("AR", openmm.app.element.argon, topology.addResidue("AR", topology.addChain()))
    torch.manual_seed(2)
    spec = EncoderSpec(Architecture.TORCHMD_ET, num_layers=1, cutoff=5.0, width=16, num_radial=8, num_heads=2)
    return Featurizer(Encoder(spec).requires_grad_(False), topology, "resname LIG and not element H")


def spring_system(featurizer: Featurizer, periodic: bool) -> openmm.System:
    """Springs along the bonds, which let atoms move as they like otherwise."""
    system = openmm.System()
    force = openmm.HarmonicBondForce()
    for atom in featurizer.topology.atoms:
        system.addParticle(atom.element.mass)
    for first, second in featurizer.topology.bonds:
        force.addBond(first.index, second.index, 0.15, 2.0e4)
    force.setUsesPeriodicBoundaryConditions(periodic)
    system.addForce(force)
    if periodic:
        system.setDefaultPeriodicBoxVectors(*[openmm.Vec3(*row) for row in BOX])
    return system


def moving_context(system: openmm.System, platform_name: str, integrator: Any) -> openmm.Context:
    platform = openmm.Platform.getPlatformByName(platform_name)
    context = openmm.Context(system, integrator, platform)
    walk = 0.12 * np.random.default_rng(0).normal(size=(NUM_PARTICLES, 3)).cumsum(0)
    context.setPositions(walk)
    context.setVelocitiesToTemperature(300, 1)
    return context


def positions_of(context: openmm.Context) -> np.ndarray:
    return np.array(context.getState(positions=True).getPositions(asNumpy=True)._value)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("periodic", [False, True])
def test_asked_features_are_those_of_the_positions_now(
    featurizer: Featurizer, backend: Any, periodic: bool, platform_name: str
) -> None:
    seeing = feature_force(featurizer, periodic, backend)
    system = spring_system(featurizer, periodic)
    system.addForce(seeing.force)
    assert system.usesPeriodicBoundaryConditions() == periodic
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.002)
    seeing.leave_out_of(integrator)
    context = moving_context(system, platform_name, integrator)
    begun = seeing.evaluations  # OpenMM evaluates all groups when it draws velocities
    for _ in range(3):
        integrator.step(20)
        seen = seeing.features(context)
        given = (positions_of(context), BOX if periodic else None)
        np.testing.assert_allclose(seen.features, featurizer.features(*given), atol=2e-4)
        away = (seen.coordinates - featurizer.coordinates(*given)) @ np.linalg.inv(BOX)
        np.testing.assert_allclose(away, np.round(away) if periodic else 0.0, atol=1e-5)
        if periodic:
            np.testing.assert_allclose(away, away[:1].repeat(NUM_RESIDUES, 0), atol=1e-5)
    assert seeing.evaluations == begun + 3  # none while the integrator stepped
    assert context.getState(energy=True, groups={seeing.group}).getPotentialEnergy()._value == 0.0
    forces = context.getState(forces=True, groups={seeing.group}).getForces(asNumpy=True)._value
    assert not forces.any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("integrator_class", ["verlet", "langevin"])
def test_features_kept_while_stepping_are_one_step_behind(
    featurizer: Featurizer, backend: Any, integrator_class: str
) -> None:
    seeing = feature_force(featurizer, False, backend, every=1)
    system = spring_system(featurizer, False)
    system.addForce(seeing.force)
    integrator = (
        openmm.VerletIntegrator(0.002) if integrator_class == "verlet" else openmm.LangevinIntegrator(300, 1, 0.002)
    )
    context = moving_context(system, "Reference", integrator)
    before, begun = positions_of(context), seeing.evaluations
    for _ in range(4):
        integrator.step(1)
        after = positions_of(context)
        assert seeing.latest is not None
        np.testing.assert_allclose(seeing.latest.features, featurizer.features(before), atol=1e-5)
        assert np.abs(seeing.latest.features - featurizer.features(after)).max() > 1e-3
        before = after
    assert seeing.evaluations - begun in (3, 4)  # the first step may use what drawing velocities evaluated


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_trajectory_is_that_without_the_force(featurizer: Featurizer, backend: Any) -> None:
    ends = []
    for with_features in (False, True):
        system = spring_system(featurizer, False)
        integrator = openmm.VerletIntegrator(0.002)
        if with_features:
            seeing = feature_force(featurizer, False, backend, every=3)
            system.addForce(seeing.force)
        context = moving_context(system, "Reference", integrator)
        integrator.step(30)
        ends.append(positions_of(context))
    np.testing.assert_array_equal(ends[0], ends[1])
    assert seeing.latest is not None and seeing.latest.evaluation % 3 == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_atom_that_blew_up_is_named_by_the_error_of_the_featurizer(featurizer: Featurizer, backend: Any) -> None:
    seeing = feature_force(featurizer, False, backend)
    system = spring_system(featurizer, False)
    system.addForce(seeing.force)
    context = moving_context(system, "Reference", openmm.VerletIntegrator(0.002))
    positions = positions_of(context)
    positions[4, 1] = np.nan
    context.setPositions(positions)
    with pytest.raises(NonFiniteError, match=r"atom 4 \(C0 of LIG1\)"):
        seeing.features(context)
    positions[4, 1] = 0.3
    context.setPositions(positions)
    assert np.isfinite(seeing.features(context).features).all()  # and the error is over


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_context_without_the_force_or_of_lost_features_is_refused(featurizer: Featurizer, backend: Any) -> None:
    seeing = feature_force(featurizer, False, backend)
    system = spring_system(featurizer, False)
    context = moving_context(system, "Reference", openmm.VerletIntegrator(0.002))
    with pytest.raises(BackendError, match="did not evaluate the FeatureForce"):
        seeing.features(context)
    system.addForce(copy.deepcopy(seeing.force))
    assert seeing.features(moving_context(system, "Reference", openmm.VerletIntegrator(0.002))).features.any()
    del seeing
    with pytest.raises(openmm.OpenMMException, match="no FeatureForce number"):
        moving_context(system, "Reference", openmm.VerletIntegrator(0.002))


@pytest.mark.parametrize(("wrong", "message"), [({"group": 32}, "group is 32"), ({"every": -1}, "every is -1")])
def test_arguments_that_mean_nothing_are_refused(featurizer: Featurizer, wrong: dict[str, int], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        feature_force(featurizer, False, **wrong)
    with pytest.raises(BackendError, match="no backend 'cuda'"):
        feature_force(featurizer, False, "cuda")
