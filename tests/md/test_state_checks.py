"""A run stops at the first step at which a molecule comes apart or is far too hot, though every number is finite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit
from scipy.stats import chi2

from openmm_gnn.base.elements import COVALENT_RADII_NM
from openmm_gnn.base.errors import NonFiniteError
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.data.labels.settings import LabelSettings
from openmm_gnn.data.labels.teacher import label
from openmm_gnn.data.labels.trajectories import LabelledTrajectories
from openmm_gnn.md.run_guard import LAST_GOOD_STATE, RunGuard
from openmm_gnn.md.run_settings import RunSettings
from openmm_gnn.md.simulation_system import SimulationSystem
from openmm_gnn.md.state_checks import HOT_PS, BoundedTemperature, WholeBonds
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.md.time_steps import accelerated_steps
from openmm_gnn.runs.simulate import simulate

LENGTH_NM = 2 * COVALENT_RADII_NM[6]
"""Of a bond between carbons."""
MORSE = f"400*(1-exp(-19*(r-{LENGTH_NM})))^2"
"""kJ/mol, a bond as a machine-learned potential has one: a pair that comes apart feels nothing any more."""


def topology_of_pairs(count: int) -> app.Topology:
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(count):
        residue = topology.addResidue("C2", chain)
        topology.addBond(*(topology.addAtom(name, app.element.carbon, residue) for name in ("C1", "C2")))
    return topology


def pairs_of_carbon(energy: str = MORSE, count: int = 1, box: float = 3.0) -> SimulationSystem:
    """Pairs of carbons along x, each pair 1 nm in y from the last one, in a periodic box."""
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors((box, 0, 0), (0, box, 0), (0, 0, box))
    force = openmm.CustomBondForce(energy)
    force.setUsesPeriodicBoundaryConditions(True)
    for pair in range(count):
        system.addParticle(12.0)
        system.addParticle(12.0)
        force.addBond(2 * pair, 2 * pair + 1)
    system.addForce(force)
    positions = np.zeros((2 * count, 3))
    positions[:, 1] = np.arange(2 * count) // 2
    positions[1::2, 0] = LENGTH_NM
    return SimulationSystem("pairs", system, topology_of_pairs(count), positions, time_step_ps=0.001)


def context_of(start: SimulationSystem) -> openmm.Context:
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(start.system, openmm.VerletIntegrator(start.time_step_ps), platform)
    context.setPositions(start.positions)
    return context


def test_the_step_at_which_a_bond_breaks_is_named(tmp_path: Path) -> None:
    """The same run without a guard says at which step the pair is first 1.5 times as long as the radii are."""
    start = pairs_of_carbon()
    velocities = [(-6.5, 0, 0), (6.5, 0, 0)]  # more than the bond holds
    alone, guarded = context_of(start), context_of(start)
    alone.setVelocities(velocities)
    guarded.setVelocities(velocities)
    broken = 0
    while True:
        alone.getIntegrator().step(1)
        broken += 1
        x = alone.getState(positions=True).getPositions(asNumpy=True)._value
        if np.linalg.norm(x[1] - x[0]) > 1.5 * LENGTH_NM:
            break
    checks = [WholeBonds(start.system, start.topology, guarded.getState(positions=True))]
    guard = RunGuard(guarded, start.topology, tmp_path, checks=checks)
    words = rf"0 \(C1 of residue C2 1\) and 1 \(C2 of residue C2 1\) is 0\.\d+ nm long at step {broken}, usual are"
    with pytest.raises(NonFiniteError, match=words):
        for _ in range(20):
            guard.step(25)
    last = openmm.XmlSerializer.deserialize((tmp_path / LAST_GOOD_STATE).read_text())
    assert last.getStepCount() == broken - 1


def test_a_bond_over_the_edge_of_the_box_is_whole() -> None:
    start = pairs_of_carbon(count=2)
    context = context_of(start)
    check = WholeBonds(start.system, start.topology, context.getState(positions=True))
    across = start.positions.copy()
    across[0, 0] += 3.0
    across[3] -= (3.0, 3.0, 6.0)
    context.setPositions(across)
    assert check.fault(context.getState(positions=True)) is None
    context.setPositions(start.positions + np.outer([0, 0.1, 0, 0.2], [1, 0, 0]))
    words = check.fault(context.getState(positions=True))
    assert words is not None and "residue C2 2" in words and "1 other bond(s)" in words


def test_a_bond_that_is_long_at_the_start_is_not_looked_at() -> None:
    start = pairs_of_carbon(count=2)
    context = context_of(start)
    context.setPositions(start.positions + np.outer([0, 0.8, 0, 0], [1, 0, 0]))
    state = context.getState(positions=True)
    with pytest.warns(
        UserWarning, match=r"1 of 2 bonds are longer at the start .* atoms 0 \(C1 of residue C2 1\) and 1"
    ):
        check = WholeBonds(start.system, start.topology, state)
    assert check.fault(state) is None


def test_proteins_and_water_at_equilibrium_are_whole() -> None:
    """Bonds of a force field without constraints, hot: the longest of all is far from broken."""
    peptide = load_system("pentapeptide")
    integrator = openmm.LangevinMiddleIntegrator(450, 5.0, 0.001)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(peptide.system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    context.setPositions(peptide.start(1))
    check = WholeBonds(peptide.system, peptide.topology, context.getState(positions=True))
    for _ in range(20):
        integrator.step(50)
        state = context.getState(positions=True)
        assert check.fault(state) is None
        assert check._stretched(state).max() < 1.25


@pytest.mark.parametrize("pairs", [1, 400])
def test_twice_the_temperature_is_too_hot_unless_the_system_is_small(pairs: int) -> None:
    """Of 6 degrees of freedom a share of 1e-12 is above 12 times the mean, of 2400 none is above 2."""
    start = pairs_of_carbon(count=pairs)
    integrator = openmm.VerletIntegrator(HOT_PS)
    context = openmm.Context(start.system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(start.positions)
    check = BoundedTemperature(start.system, 300.0, 1.0, HOT_PS)

    def heated(kelvin: float) -> str | None:
        speed = np.sqrt(3 * BOLTZMANN_KJ_MOL_K * kelvin / 12.0)
        context.setVelocities(np.tile([0.0, 0.0, speed], (2 * pairs, 1)))
        return check.fault(context.getState(velocities=True, energy=True, positions=True))

    assert heated(1e5) is None  # at the start, which may be strained
    context.setStepCount(2)
    assert heated(590.0) is None
    assert (heated(610.0) is None) is (pairs == 1)
    if pairs == 1:
        exact = chi2.isf(1e-12, 6) / 6
        assert heated(0.95 * 300 * exact) is None and heated(1.1 * 300 * exact) is not None
    words = heated(1e5)
    assert words is not None and "at step 2, 300 K are asked for" in words


@pytest.mark.parametrize("allowed", [False, True])
def test_frames_of_a_molecule_that_came_apart_are_no_labels(allowed: bool, tmp_path: Path) -> None:
    """At 20,000 K a Morse pair dissociates within some hundred steps, and nothing is ever NaN."""
    start = pairs_of_carbon(count=4, box=10.0)
    settings = LabelSettings(
        temperatures=(20_000.0,),
        seeds=(1,),
        frames=100,
        stride=10,
        equilibration=0.0,
        processes=1,
        platform="Reference",
        checkpoint_seconds=0.0,
        allow_broken_bonds=allowed,
    )
    if allowed:
        label(start, tmp_path, settings, progress=False)
    else:
        with pytest.raises(NonFiniteError, match=r"nm long at step \d+, usual are 0\.152 nm"):
            label(start, tmp_path, settings, progress=False)
    (trajectory,) = LabelledTrajectories.open(tmp_path).trajectories
    x = trajectory.records["positions"]
    assert len(x) > 0 and trajectory.complete is allowed
    longest = np.linalg.norm(x[:, 1::2] - x[:, ::2], axis=2).max()
    assert (longest > 1.5 * LENGTH_NM) == allowed


def test_a_label_begins_with_a_start_that_is_relaxed(tmp_path: Path) -> None:
    """A bond of twice its length is not looked at; relaxed it is, and stays what it is at 1 K."""
    start = pairs_of_carbon()
    strained = SimulationSystem("pairs", start.system, start.topology, 1.3 * start.positions, time_step_ps=0.001)
    settings = LabelSettings(temperatures=(1.0,), seeds=(1,), frames=5, stride=2, equilibration=0.0, processes=1)
    (trajectory,) = label(strained, tmp_path, settings, progress=False).trajectories
    lengths = np.linalg.norm(np.diff(trajectory.records["positions"], axis=1), axis=2)
    assert lengths == pytest.approx(LENGTH_NM, abs=0.003)


def test_a_run_that_comes_apart_stops_and_a_reaction_goes_on(tmp_path: Path) -> None:
    start = pairs_of_carbon(count=4, box=10.0)
    settings = {"steps": 1000, "stride": 10, "equilibration": 0.0, "temperature": 20_000.0}
    with pytest.raises(NonFiniteError, match=r"--allow-broken-bonds\)\. The last good frame, step \d+, is saved in"):
        simulate(start, tmp_path / "stops", RunSettings(**settings))
    assert simulate(start, tmp_path / "goes on", RunSettings(**settings, allow_broken_bonds=True)).num_frames == 100


def test_the_steps_of_an_accelerated_run_follow_what_holds_the_hydrogens() -> None:
    """With bonded forces or constraints below the network 2 fs are safe, without them 1 fs, or 1.5 with heavy ones."""
    peptide = load_system("alanine-dipeptide")
    constrained = openmm.System()
    free, bonded = openmm.System(), openmm.System()
    bonds = openmm.HarmonicBondForce()
    for atom in peptide.topology.atoms():
        for system in (constrained, free, bonded):
            system.addParticle(atom.element.mass.value_in_unit(unit.dalton))
    for first, second in peptide.topology.bonds():
        constrained.addConstraint(first.index, second.index, 0.1)
        bonds.addBond(first.index, second.index, 0.1, 1e5)
    bonded.addForce(bonds)
    for system in (peptide.system, constrained, bonded):
        assert accelerated_steps(system, peptide.topology) == (0.006, 3)
    assert accelerated_steps(free, peptide.topology) == (0.004, 4)
    assert accelerated_steps(free, peptide.topology, 3.0) == (0.006, 4)
