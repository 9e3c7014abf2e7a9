"""The integrator of accelerate beside OpenMM's own, exact counts of evaluations, and physics whose answer is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openmm
import pytest
import torch
from accelerated_water import CUTOFF, EDGE, MOLECULES, TOPOLOGY, make_context, network, values, water
from openmm import app, unit

from openmm_gnn import accelerate
from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.forces import python_force

FAST, WHOLE = 1, 5
"""Force groups: where `accelerate` puts the bonded forces, and a free one."""


def put_in_one_group(system: openmm.System, names: set[str], group: int) -> openmm.System:
    """A copy in which these forces share a group, as OpenMM's own integrators want the outer level."""
    copied = openmm.XmlSerializer.clone(system)
    for force in copied.getForces():
        if type(force).__name__ in names:
            force.setForceGroup(group)
    return copied


def total_energy(context: openmm.Context, groups: object = -1) -> float:
    state = context.getState(energy=True, groups=groups)
    return (state.getPotentialEnergy() + state.getKineticEnergy())._value


@pytest.mark.parametrize(
    ("inner_steps", "bonded_substeps", "rigid"), [(1, 3, False), (2, 1, False), (3, 2, False), (2, 2, True)]
)
def test_steps_are_those_of_openmms_integrator_with_the_network_subtracted_by_hand(
    start: tuple[np.ndarray, np.ndarray], inner_steps: int, bonded_substeps: int, rigid: bool
) -> None:
    original = water(rigid)
    system, integrator = accelerate(
        original, TOPOLOGY, network(), inner_steps, 0.002, bonded_substeps, temperature=None, friction=None
    )
    outer = put_in_one_group(system, {"NonbondedForce", "CustomCVForce"}, WHOLE)
    substeps = inner_steps * (1 if rigid else bonded_substeps)
    theirs = openmm.MTSIntegrator(0.002, [(WHOLE, 1), (31, inner_steps), (FAST, substeps)])
    contexts = [make_context(system, integrator), make_context(outer, theirs)]
    for context in contexts:
        context.getIntegrator().setConstraintTolerance(1e-10)
        context.setPositions(start[0])
        context.setVelocities(start[1])
        context.applyConstraints(1e-10)
        context.applyVelocityConstraints(1e-10)
    for _ in range(12):
        for context in contexts:
            context.getIntegrator().step(1)
        states = [context.getState(positions=True, velocities=True) for context in contexts]
        x, x_theirs = (values(state.getPositions(asNumpy=True)) for state in states)
        v, v_theirs = (values(state.getVelocities(asNumpy=True)) for state in states)
        assert x == pytest.approx(x_theirs, abs=1e-9)
        assert v == pytest.approx(v_theirs, abs=1e-7)
    assert np.abs(x - start[0]).max() > 0.005


def pulled_to_a_plane(atoms: list[int]) -> openmm.CustomCompoundBondForce:
    """A stand-in for a potential of some of the atoms: no force field, and none that is a bonded one to OpenMM."""
    force = openmm.CustomCentroidBondForce(1, "300*x1^2+20*sin(10*y1)")
    for atom in atoms:
        force.addBond([force.addGroup([atom])], [])
    hidden = openmm.CustomCVForce("potential")
    hidden.addCollectiveVariable("potential", force)
    hidden.setName("potential")
    return hidden


@pytest.mark.parametrize(("inner_steps", "bonded_substeps"), [(1, 2), (3, 2)])
def test_what_is_not_said_to_be_expensive_acts_as_often_as_the_network(
    start: tuple[np.ndarray, np.ndarray], inner_steps: int, bonded_substeps: int
) -> None:
    """As a machine-learned potential of two molecules in water of a force field, with a network for these alone."""
    solute = list(range(6))
    original = water()
    original.addForce(pulled_to_a_plane(solute))
    named = {"expensive": ["potential"], "atoms": solute}
    steps = (inner_steps, 0.002, bonded_substeps)
    accelerated = accelerate(original, TOPOLOGY, network(), *steps, temperature=None, friction=None, **named)
    assert accelerated.groups == {0: {0, 1, 2}}
    system = openmm.XmlSerializer.clone(accelerated.system)
    for force in system.getForces():
        if force.getName() in ("potential", "NegatedGAMDForce"):
            force.setForceGroup(WHOLE)
        elif type(force).__name__ == "NonbondedForce":
            force.setForceGroup(31)  # with the network
    theirs = openmm.MTSIntegrator(0.002, [(WHOLE, 1), (31, inner_steps), (FAST, inner_steps * bonded_substeps)])
    contexts = [make_context(accelerated.system, accelerated.integrator), make_context(system, theirs)]
    for context in contexts:
        context.setPositions(start[0])
        context.setVelocities(start[1])
        context.getIntegrator().step(10)
    x, x_theirs = (values(context.getState(positions=True).getPositions(asNumpy=True)) for context in contexts)
    assert x == pytest.approx(x_theirs, abs=1e-9)
    forces = contexts[0].getState(forces=True, groups={31}).getForces(asNumpy=True)
    assert np.abs(values(forces)[:6]).max() > 100.0 and not values(forces)[6:].any()


def test_the_thermostat_of_the_integrator_can_be_set() -> None:
    _, integrator = accelerate(water(), TOPOLOGY, network())
    integrator.setTemperature(350.0)
    integrator.setFriction(2.0 / unit.picosecond)
    assert integrator.getGlobalVariableByName("mts_kT") == pytest.approx(350 * BOLTZMANN_KJ_MOL_K)
    assert integrator.getGlobalVariableByName("mts_friction") == 2.0
    _, integrator = accelerate(water(), TOPOLOGY, network(), temperature=None, friction=None)
    with pytest.raises(SpecError, match="keeps the energy"):
        integrator.setTemperature(350.0)


def test_a_network_that_is_zero_leaves_the_plain_two_level_scheme(start: tuple[np.ndarray, np.ndarray]) -> None:
    zero = network()
    with torch.no_grad():
        for parameter in zero.parameters():
            parameter.zero_()
    original = water()
    system, integrator = accelerate(original, TOPOLOGY, zero, 2, 0.002, 2, temperature=None, friction=None)
    plain = put_in_one_group(original, {"HarmonicBondForce", "HarmonicAngleForce"}, 3)
    contexts = [make_context(system, integrator)]
    contexts.append(make_context(plain, openmm.MTSIntegrator(0.002, [(0, 1), (3, 4)])))
    for context in contexts:
        context.setPositions(start[0])
        context.setVelocities(start[1])
        context.getIntegrator().step(10)
    x, x_plain = (values(context.getState(positions=True).getPositions(asNumpy=True)) for context in contexts)
    assert x == pytest.approx(x_plain, abs=1e-10)


class CountingForce:
    """A weak expensive force that counts how often it is asked; a class, because OpenMM pickles it."""

    calls = 0

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        CountingForce.calls += 1
        return 0.0, -0.01 * np.array(state.getPositions(asNumpy=True)._value)


@pytest.mark.skipif(
    python_force.why_unavailable() is not None,
    reason=f"only a PythonForce can count its calls: {python_force.why_unavailable()}",
)
def test_no_force_is_evaluated_more_often_than_the_scheme_needs(
    start: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"network": 0}
    compute: Callable = python_force.ModuleComputation.__call__

    def counted(self: python_force.ModuleComputation, state: openmm.State) -> tuple[float, np.ndarray]:
        calls["network"] += 1
        return compute(self, state)

    monkeypatch.setattr(python_force.ModuleComputation, "__call__", counted)
    original = water()
    original.addForce(openmm.PythonForce(CountingForce()))
    accelerated = accelerate(original, TOPOLOGY, network(), 3, 0.0015, 2, backend="pythonforce")
    context = make_context(accelerated.system, accelerated.integrator)
    context.setPositions(start[0])
    context.setVelocities(start[1])
    CountingForce.calls = 0

    def counts() -> tuple[int, int]:
        """Evaluations of expensive force and network since the last look."""
        seen = CountingForce.calls, calls["network"]
        CountingForce.calls = calls["network"] = 0
        return seen

    accelerated.integrator.step(1)
    assert counts() == (2, 4)  # the start, whose forces nobody knows yet, and one step
    accelerated.integrator.step(10)
    assert counts() == (10, 30)
    context.getState(energy=True, forces=True, groups=set(accelerated.own_groups))
    accelerated.integrator.step(1)
    assert counts() == (3, 3)  # the State, the start again, and one step: an energy makes OpenMM forget the forces
    context.setPositions(start[0])
    accelerated.integrator.step(1)
    assert counts() == (2, 4)
    context.setVelocities(start[1])
    context.loadCheckpoint(context.createCheckpoint())
    accelerated.integrator.step(1)
    assert counts() == (2, 3)


@pytest.mark.parametrize("change", ["positions", "box", "parameter"])
def test_what_changes_from_outside_is_noticed(start: tuple[np.ndarray, np.ndarray], change: str) -> None:
    """A Context that was changed between two steps goes on like a fresh one in the changed state."""
    original = water()
    pull = openmm.CustomNonbondedForce("strength*r")
    pull.addGlobalParameter("strength", 0.0)
    for _ in range(3 * MOLECULES):
        pull.addParticle([])
    pull.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    pull.setCutoffDistance(CUTOFF)
    original.addForce(pull)

    def fresh() -> openmm.Context:
        system, integrator = accelerate(original, TOPOLOGY, network(), 2, 0.001, 2, temperature=None, friction=None)
        return make_context(system, integrator)

    def alter(context: openmm.Context) -> None:
        if change == "positions":
            moved = values(context.getState(positions=True).getPositions(asNumpy=True))
            moved[:3] += 0.01
            context.setPositions(moved)
        elif change == "box":
            unmoved = context.getState(positions=True).getPositions()
            context.setPeriodicBoxVectors(*(np.eye(3) * (EDGE + 0.01)))
            context.setPositions(unmoved)  # of a new box alone OpenMM tells no integrator
        else:
            context.setParameter("strength", 1.0)

    used = fresh()
    used.setPositions(start[0])
    used.setVelocities(start[1])
    used.getIntegrator().step(3)
    state = used.getState(positions=True, velocities=True)
    new = fresh()
    new.setPositions(state.getPositions())
    new.setVelocities(state.getVelocities())
    for context in (used, new):
        alter(context)
        context.getIntegrator().step(1)
    x, x_new = (values(context.getState(velocities=True).getVelocities(asNumpy=True)) for context in (used, new))
    assert x == pytest.approx(x_new, abs=1e-9)


def test_fluctuation_of_the_teachers_energy_falls_with_the_square_of_the_step(
    start: tuple[np.ndarray, np.ndarray],
) -> None:
    """Under a network that knows nothing and pulls harder than the teacher: it costs step size, and nothing else."""
    fluctuations = []
    for time_step in (0.001, 0.0005):
        smooth = water(method=app.NoCutoff)
        accelerated = accelerate(smooth, TOPOLOGY, network(20_000.0), 2, time_step, 2, None, None)
        context = make_context(accelerated.system, accelerated.integrator)
        context.setPositions(start[0])
        context.setVelocities(start[1])
        first, errors = total_energy(context), []
        for _ in range(30):
            accelerated.integrator.step(round(0.002 / time_step))
            errors.append(total_energy(context, set(accelerated.own_groups)) - first)
        fluctuations.append(np.std(errors))
    assert 3.2 < fluctuations[0] / fluctuations[1] < 4.8
    assert fluctuations[1] < 0.5  # kJ/mol, of a kinetic energy of 300


def test_temperature_and_energy_of_springs_are_the_canonical_ones() -> None:
    """Pairs of atoms on springs (bonded) in a spring between any two atoms (expensive): every mean is known.

    All energies are quadratic, so each of 3 (N - 1) coordinates has kT/2, whatever the network says meanwhile.
    """
    count, temperature = 32, 200.0
    topology, system = app.Topology(), openmm.System()
    chain = topology.addChain()
    bonds, expensive = openmm.HarmonicBondForce(), openmm.CustomNonbondedForce("2500*r^2/32")
    for index in range(count):
        topology.addAtom("Ar", app.element.argon, topology.addResidue("AR", chain))
        system.addParticle(20.0)
        expensive.addParticle([])
        if index % 2:
            bonds.addBond(index - 1, index, 0.0, 50_000.0)
    system.addForce(bonds)
    system.addForce(expensive)
    model = network(450.0, elements=(18,))
    system, integrator = accelerated = accelerate(system, topology, model, 2, 0.004, 2, temperature, 16.0)
    integrator.setRandomNumberSeed(5)
    context = make_context(system, integrator)
    spread = np.sqrt(BOLTZMANN_KJ_MOL_K * temperature / 5000)
    context.setPositions(np.random.default_rng(1).normal(size=(count, 3)) * spread)
    context.setVelocitiesToTemperature(temperature, 1)
    integrator.step(200)
    energies, wrong_forces = [], []
    for _ in range(200):
        integrator.step(10)
        state = context.getState(energy=True, groups=set(accelerated.own_groups))
        energies.append([state.getPotentialEnergy()._value, state.getKineticEnergy()._value])
        wrong_forces.append(values(context.getState(forces=True, groups={31}).getForces(asNumpy=True)).std())
    expected = 3 * (count - 1) / 2 * BOLTZMANN_KJ_MOL_K * temperature
    assert np.mean(energies, axis=0) / expected == pytest.approx([1.0, 1.0], abs=0.04)  # three times its error
    assert np.mean(wrong_forces) > 60.0, "the network pulls less than the expensive force"  # 58 kJ/mol/nm


def test_half_step_velocities_have_the_temperature_of_the_thermostat_in_steps_of_any_length() -> None:
    """Stiff springs, w h = 1, under a student that is perfect as there is nothing to learn; at a step 25 % are missing.

    300 atoms, 50 samples 10 times the memory of a spring apart: a standard error of 0.7 %.
    """
    count, temperature, substep_ps = 300, 300.0, 0.001
    topology, system = app.Topology(), openmm.System()
    chain = topology.addChain()
    springs = openmm.CustomExternalForce(f"{0.5 * 20.0 / substep_ps**2}*((x-x0)^2+(y-y0)^2+(z-z0)^2)")
    for name in ("x0", "y0", "z0"):
        springs.addPerParticleParameter(name)
    places = np.random.default_rng(0).uniform(0, 20, (count, 3))
    expensive = openmm.CustomCentroidBondForce(1, "1e-6*x1")
    for index, place in enumerate(places):
        topology.addAtom("Ar", app.element.argon, topology.addResidue("AR", chain))
        system.addParticle(20.0)
        springs.addParticle(index, place)
    expensive.addBond([expensive.addGroup([0])], [])
    hidden = openmm.CustomCVForce("1e-6*teacher")
    hidden.addCollectiveVariable("teacher", expensive)
    for force in (springs, hidden):
        system.addForce(force)
    steps = (2, 4 * substep_ps, 2)
    system, integrator = accelerate(system, topology, network(1e-3, elements=(18,)), *steps, temperature, 50.0)
    integrator.setRandomNumberSeed(7)
    context = make_context(system, integrator)
    context.setPositions(places)
    context.setVelocitiesToTemperature(temperature, 1)
    integrator.step(50)
    masses, found = np.full(count, 20.0), []
    for _ in range(50):
        integrator.step(25)
        velocities = values(context.getState(velocities=True).getVelocities(asNumpy=True))
        half = integrator.half_step_velocities(velocities, masses)
        found.append([np.square(of).mean() * 20.0 / BOLTZMANN_KJ_MOL_K for of in (velocities, half)])
    at_steps, at_half_steps = np.mean(found, axis=0)
    assert at_half_steps == pytest.approx(temperature, rel=0.03)
    assert at_steps == pytest.approx(0.75 * temperature, rel=0.03)
