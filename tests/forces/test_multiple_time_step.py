"""What accelerate does to a System: its energy and forces, force groups, barostat, masses and polarisable parts."""

from __future__ import annotations

import warnings

import numpy as np
import openmm
import pytest
from accelerated_water import CUTOFF, EDGE, MOLECULES, TOPOLOGY, make_context, network, values, water
from openmm import app, unit

from openmm_gnn import accelerate
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.forces.gamd_force import has_bonded_terms
from openmm_gnn.forces.multiple_time_step import measured_costs, question_costs
from openmm_gnn.md.simulation_system import ForcePart, part_of
from openmm_gnn.md.systems.fluids import water_topology


def test_energy_and_forces_are_the_originals_and_the_original_is_untouched(
    start: tuple[np.ndarray, np.ndarray], platform_name: str
) -> None:
    original = water()
    before = openmm.XmlSerializer.serialize(original)
    accelerated = accelerate(original, TOPOLOGY, network(), hydrogen_mass=3.0)
    assert openmm.XmlSerializer.serialize(original) == before
    contexts = [
        make_context(accelerated.system, accelerated.integrator, platform_name),
        make_context(original, openmm.VerletIntegrator(0.001), platform_name),
    ]
    for context in contexts:
        context.setPositions(start[0])
    tolerance = 1e-9 if platform_name == "Reference" else 2e-4
    expected = contexts[1].getState(energy=True, forces=True)
    largest = np.abs(values(expected.getForces(asNumpy=True))).max()
    for groups in (-1, set(accelerated.own_groups), set(accelerated.groups[0])):
        state = contexts[0].getState(energy=True, forces=True, groups=groups)
        difference = values(state.getForces(asNumpy=True)) - values(expected.getForces(asNumpy=True))
        assert np.abs(difference).max() < tolerance * largest
        assert state.getPotentialEnergy()._value == pytest.approx(expected.getPotentialEnergy()._value, rel=tolerance)
    alone = contexts[0].getState(forces=True, groups={31}).getForces(asNumpy=True)
    assert np.abs(values(alone)).max() > 100.0, "the network takes no part in this test"


def test_forces_added_later_and_several_groups_are_integrated(start: tuple[np.ndarray, np.ndarray]) -> None:
    """A force in a group that was free belongs to the outer level, as one does that was there before."""
    original = water()
    for number, force in enumerate(original.getForces()):
        force.setForceGroup(number + 4)
        if isinstance(force, openmm.NonbondedForce):
            force.setReciprocalSpaceForceGroup(12)
    bias = openmm.CustomCentroidBondForce(1, "1000*x1")
    bias.addGroup([0])
    bias.addBond([0], [])
    pull = openmm.CustomNonbondedForce("0.1*r")
    for _ in range(3 * MOLECULES):
        pull.addParticle([])
    pull.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    pull.setCutoffDistance(CUTOFF)
    trajectories = []
    for late in (False, True):
        system = openmm.XmlSerializer.clone(original)
        added = openmm.XmlSerializer.clone(pull)
        added.setForceGroup(20)
        if not late:
            system.addForce(added)
        accelerated = accelerate(system, TOPOLOGY, network(), 2, 0.001, 2, temperature=None, friction=None)
        if late:
            accelerated.system.addForce(added)
        for name, group in (("HarmonicBondForce", 4), ("HarmonicAngleForce", 7)):
            assert accelerated.groups[group] == {group}, name
        assert accelerated.groups[12] == {12}
        context = make_context(accelerated.system, accelerated.integrator)
        context.setPositions(start[0])
        context.setVelocities(start[1])
        accelerated.integrator.step(5)
        trajectories.append(values(context.getState(positions=True).getPositions(asNumpy=True)))
    assert trajectories[0] == pytest.approx(trajectories[1], abs=1e-10)


def test_groups_of_the_user_are_kept_or_told(start: tuple[np.ndarray, np.ndarray]) -> None:
    original = water()
    for force in original.getForces():
        force.setForceGroup(7 if isinstance(force, openmm.HarmonicAngleForce) else 3)
    accelerated = accelerate(original, TOPOLOGY, network())
    assert accelerated.groups == {3: {0, 3}, 7: {7}}
    ours = make_context(accelerated.system, accelerated.integrator)
    theirs = make_context(original, openmm.VerletIntegrator(0.001))
    for context in (ours, theirs):
        context.setPositions(start[0])
    for group, now in accelerated.groups.items():
        energy = ours.getState(energy=True, groups=set(now)).getPotentialEnergy()._value
        expected = theirs.getState(energy=True, groups={group}).getPotentialEnergy()._value
        assert energy == pytest.approx(expected, rel=1e-12) and energy != 0


def test_minimiser_and_barostat_see_the_original_energy(start: tuple[np.ndarray, np.ndarray]) -> None:
    original = water()
    original.addForce(openmm.MonteCarloBarostat(1.0, 300.0, 1))
    accelerated = accelerate(original, TOPOLOGY, network(), 2, 0.001, 2)
    ours = make_context(accelerated.system, accelerated.integrator)
    theirs = make_context(original, openmm.VerletIntegrator(0.001))
    minimised = []
    for context in (ours, theirs):
        context.setPositions(start[0])
        openmm.LocalEnergyMinimizer.minimize(context, 50.0, 100)
        minimised.append(context.getState(energy=True).getPotentialEnergy()._value)
    assert minimised[0] == pytest.approx(minimised[1], rel=1e-6)
    # A barostat takes the energy of the integrator's groups, and a step after its trial starts from the right forces.
    groups = accelerated.integrator.getIntegrationForceGroups()
    assert ours.getState(energy=True, groups=groups).getPotentialEnergy()._value == minimised[0]
    volumes = set()
    for _ in range(12):
        accelerated.integrator.step(1)
        volumes.add(ours.getState().getPeriodicBoxVolume()._value)
        whole = np.array(accelerated.integrator.getPerDofVariableByName("mts_whole"))
        forces = ours.getState(forces=True, groups=groups).getForces(asNumpy=True)
        assert whole == pytest.approx(values(forces), abs=1e-6)
    assert len(volumes) > 3


def test_polarisable_water_is_split_into_its_parts(start: tuple[np.ndarray, np.ndarray]) -> None:
    topology = water_topology(8, EDGE)
    topology.setPeriodicBoxVectors(None)
    system = app.ForceField("amoeba2018.xml").createSystem(topology, nonbondedMethod=app.NoCutoff, rigidWater=False)
    accelerated = accelerate(system, topology, network(), 2, 0.001, 2)
    members: dict[int, set[str]] = {0: set(), 1: set()}
    for force in accelerated.system.getForces():
        if force.getForceGroup() in members and part_of(force) is not ForcePart.NO_FORCE:
            members[force.getForceGroup()].add(type(force).__name__)
    assert members[0] == {"AmoebaMultipoleForce", "AmoebaVdwForce"}
    assert members[1] == {"CustomBondForce", "CustomAngleForce", "HarmonicBondForce"}
    nonempty = openmm.XmlSerializer.clone(system)  # the full one takes OpenMM 7 s to read
    for index in reversed(range(nonempty.getNumForces())):
        force = nonempty.getForce(index)
        if part_of(force) is ForcePart.BONDED and not has_bonded_terms(force):
            nonempty.removeForce(index)
    contexts = [make_context(accelerated.system, accelerated.integrator)]
    contexts.append(make_context(nonempty, openmm.VerletIntegrator(0.001)))
    contexts[0].setPositions(start[0][:24])
    accelerated.integrator.step(3)
    contexts[1].setPositions(contexts[0].getState(positions=True).getPositions())
    states = [context.getState(energy=True, forces=True) for context in contexts]
    assert states[0].getPotentialEnergy()._value == pytest.approx(states[1].getPotentialEnergy()._value, rel=1e-8)
    ours, theirs = (values(state.getForces(asNumpy=True)) for state in states)
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_quantities_are_taken_and_masses_move_within_molecules() -> None:
    system, integrator = accelerate(
        water(),
        TOPOLOGY,
        network(),
        time_step=4 * unit.femtosecond,
        temperature=30 * unit.kelvin,
        friction=0.002 / unit.femtosecond,
        hydrogen_mass=3 * unit.amu,
        hydrogen_friction=0.02 / unit.femtosecond,
    )
    assert integrator.getStepSize() == 4 * unit.femtosecond
    assert integrator.getGlobalVariableByName("mts_kT") == pytest.approx(30 * BOLTZMANN_KJ_MOL_K)
    assert integrator.getGlobalVariableByName("mts_friction") == pytest.approx(2.0)
    own = np.array(integrator.getPerDofVariableByName("mts_own_friction")).reshape(MOLECULES, 3, 3)
    assert (own[:, 1:] == pytest.approx(20.0)) and (own[:, 0] < 0).all()  # below 0: that of all
    masses = np.array([system.getParticleMass(index)._value for index in range(3 * MOLECULES)]).reshape(-1, 3)
    before = np.array([water().getParticleMass(index)._value for index in range(3)])
    assert masses[:, 1:] == pytest.approx(np.full((MOLECULES, 2), 3.0))
    assert masses.sum(axis=1) == pytest.approx(np.full(MOLECULES, before.sum()))


def test_a_network_that_makes_nothing_faster_is_said_to_do_so() -> None:
    """By the sums: an outer step of 3 inner ones against 3 steps of all forces of the System."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        question_costs({"network": 1.0, "inner": 0.5, "bonded": 0.1, "expensive": 2.0}, 3)  # 6.5 against 7.8
    with pytest.warns(UserWarning, match=r"an evaluation takes 2 ms, .* stands for 1 ms, and of all others 0\.6 ms"):
        question_costs({"network": 2.0, "inner": 0.5, "bonded": 0.1, "expensive": 1.0}, 3)


def test_costs_are_those_of_each_level(start: tuple[np.ndarray, np.ndarray]) -> None:
    """The groups of each level hold its forces and no others, so that each is timed alone."""
    original = water()
    pull = openmm.CustomExternalForce("x")
    pull.addParticle(0, [])
    hidden = openmm.CustomCVForce("100*pull")
    hidden.addCollectiveVariable("pull", pull)
    hidden.setName("potential")
    original.addForce(hidden)
    accelerated = accelerate(original, TOPOLOGY, network(), 2, 0.001, 2, expensive=["potential"], atoms=range(3))
    context = make_context(accelerated.system, accelerated.integrator)
    context.setPositions(start[0])
    for name, expected in (
        ("expensive", {"potential"}),
        ("inner", {"NonbondedForce"}),
        ("bonded", {"HarmonicBondForce", "HarmonicAngleForce"}),
        ("network", {"GAMDForce"}),
    ):
        groups = accelerated.levels[name]
        forces = [force for force in accelerated.system.getForces() if part_of(force) is not ForcePart.NO_FORCE]
        assert {force.getName() for force in forces if force.getForceGroup() in groups} == expected
    state = context.getState(forces=True, groups=set(accelerated.levels["expensive"]))
    np.testing.assert_array_equal(values(state.getForces(asNumpy=True))[:2], [[-100, 0, 0], [0, 0, 0]])
    costs = measured_costs(context, accelerated.levels)
    assert set(costs) == {"network", "inner", "bonded", "expensive"} and min(costs.values()) > 0
    assert measured_costs(context, {"inner": frozenset()}) == {"inner": 0.0}
