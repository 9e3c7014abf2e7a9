"""Acceleration against OpenMM's own multiple-time-step integrators, exact counts, and physics whose answer is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit

from openmm_gnn import accelerate
from openmm_gnn.errors import SpecError, TopologyError
from openmm_gnn.forces import python_force
from openmm_gnn.forces.model_checks import has_bonded_terms
from openmm_gnn.models.gamd import GAMD
from openmm_gnn.simulation.force_parts import ForcePart, part_of
from openmm_gnn.simulation.water import water_topology
from openmm_gnn.spec import GAMDSpec, NeighborSpec
from openmm_gnn.units import BOLTZMANN_KJ_MOL_K

MOLECULES, EDGE, CUTOFF = 27, 0.95, 0.45
TOPOLOGY = water_topology(MOLECULES, EDGE)
NONBONDED, FAST, WHOLE = 0, 1, 5
"""Force groups: what `accelerate` makes of a System that is in group 0, and a free one."""


def network(force_scale: float = 3000.0, elements: tuple[int, ...] = (8, 1), **changes: object) -> GAMD:
    """Random weights: an arbitrarily bad approximation, in float64 so that comparisons are sharp."""
    torch.manual_seed(1)
    spec = GAMDSpec(
        NeighborSpec(0.35),
        elements,
        num_layers=1,
        width=8,
        num_radial=8,
        force_scale=force_scale,
        **changes,  # type: ignore[arg-type]
    )
    return GAMD(spec).double().eval()


def water(rigid: bool = False, method: object = app.PME) -> openmm.System:
    return app.ForceField("tip3p.xml").createSystem(
        TOPOLOGY, nonbondedMethod=method, nonbondedCutoff=CUTOFF * unit.nanometer, rigidWater=rigid
    )


def make_context(system: openmm.System, integrator: openmm.Integrator, platform: str = "Reference") -> openmm.Context:
    return openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))


@pytest.fixture(scope="module")
def start() -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities of 27 flexible water molecules at 300 K."""
    integrator = openmm.LangevinMiddleIntegrator(300.0, 20.0, 0.0005)
    integrator.setRandomNumberSeed(3)
    context = make_context(water(), integrator)
    oxygens = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3) * EDGE / 3
    molecule = np.array([[0, 0, 0], [0.09572, 0, 0], [-0.02399, 0.09266, 0]])
    context.setPositions((oxygens + molecule).reshape(-1, 3))
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, 200)
    context.setVelocitiesToTemperature(300.0, 3)
    integrator.step(1000)
    state = context.getState(positions=True, velocities=True)
    return values(state.getPositions(asNumpy=True)), values(state.getVelocities(asNumpy=True))


def values(quantity: object) -> np.ndarray:
    return np.array(quantity._value)  # type: ignore[attr-defined]


def total_energy(context: openmm.Context, groups: object = -1) -> float:
    state = context.getState(energy=True, groups=groups)
    return (state.getPotentialEnergy() + state.getKineticEnergy())._value


def put_in_one_group(system: openmm.System, names: set[str], group: int) -> openmm.System:
    """A copy in which these forces share a group, as OpenMM's own integrators want the outer level."""
    copied = openmm.XmlSerializer.clone(system)
    for force in copied.getForces():
        if type(force).__name__ in names:
            force.setForceGroup(group)
    return copied


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


def test_energy_and_forces_are_the_originals_and_the_original_is_untouched(
    start: tuple[np.ndarray, np.ndarray], platform_name: str
) -> None:
    if platform_name == "OpenCL":
        pytest.skip("compiles for 10 s and more; its kernels are those of CUDA")
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


class CountingForce:
    """A weak expensive force that counts how often it is asked; a class, because OpenMM pickles it."""

    calls = 0

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        CountingForce.calls += 1
        return 0.0, -0.01 * np.array(state.getPositions(asNumpy=True)._value)


@pytest.mark.skipif(python_force.why_unavailable() is not None, reason="only a PythonForce can count its calls")
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
        (bonded_alone, {}, SpecError, "nothing in it is expensive"),
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


def test_quantities_are_taken_and_masses_move_within_molecules() -> None:
    system, integrator = accelerate(
        water(),
        TOPOLOGY,
        network(),
        time_step=4 * unit.femtosecond,
        temperature=30 * unit.kelvin,
        friction=0.002 / unit.femtosecond,
        hydrogen_mass=3 * unit.amu,
    )
    assert integrator.getStepSize() == 4 * unit.femtosecond
    assert integrator.getGlobalVariableByName("mts_kT") == pytest.approx(30 * BOLTZMANN_KJ_MOL_K)
    assert integrator.getGlobalVariableByName("mts_friction") == pytest.approx(2.0)
    masses = np.array([system.getParticleMass(index)._value for index in range(3 * MOLECULES)]).reshape(-1, 3)
    before = np.array([water().getParticleMass(index)._value for index in range(3)])
    assert masses[:, 1:] == pytest.approx(np.full((MOLECULES, 2), 3.0))
    assert masses.sum(axis=1) == pytest.approx(np.full(MOLECULES, before.sum()))
