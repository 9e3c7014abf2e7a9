"""The guard must name the step and the atom that an independent count says, and keep a frame that is good."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app

from openmm_gnn.base.errors import NonFiniteError
from openmm_gnn.md.run_guard import LAST_GOOD_PDB, LAST_GOOD_STATE, RunGuard

NUM_ATOMS, DOOMED = 5, 3


def topology_of(num_atoms: int) -> app.Topology:
    topology = app.Topology()
    topology.setPeriodicBoxVectors(np.eye(3) * 10 * openmm.unit.nanometer)
    chain = topology.addChain()
    for number in range(num_atoms):
        topology.addAtom(f"A{number}", app.element.argon, topology.addResidue("ARG", chain))
    return topology


def context_with(energy: str, velocity: float = 0.0) -> openmm.Context:
    """Free atoms, but for one under an external energy; all fly along x with `velocity` nm/ps."""
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors((10, 0, 0), (0, 10, 0), (0, 0, 10))
    for _ in range(NUM_ATOMS):
        system.addParticle(40.0)
    force = openmm.CustomExternalForce(energy)
    force.addParticle(DOOMED, [])
    system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(0.01), openmm.Platform.getPlatformByName("Reference"))
    positions = np.arange(3.0 * NUM_ATOMS).reshape(NUM_ATOMS, 3) * 0.1
    positions[:, 0] = 0.0
    context.setPositions(positions)
    context.setVelocities(np.tile([velocity, 0.0, 0.0], (NUM_ATOMS, 1)))
    return context


def test_a_molecule_with_bonds_is_saved_too(tmp_path: Path) -> None:
    topology = app.Topology()
    ligand = topology.addResidue("LIG", topology.addChain())
    atoms = [topology.addAtom(f"A{number}", app.element.argon, ligand) for number in range(NUM_ATOMS)]
    topology.addBond(atoms[0], atoms[1])
    guard = RunGuard(context_with("1e-9*sqrt(1.001 - x)", velocity=2.0), topology, tmp_path)
    with pytest.raises(NonFiniteError, match=f"A{DOOMED} of residue LIG 1"):
        guard.step(60)
    bonds = list(app.PDBFile(str(tmp_path / LAST_GOOD_PDB)).topology.bonds())
    assert [(bond[0].name, bond[1].name) for bond in bonds] == [("A0", "A1")]


def test_first_bad_step_and_atom_are_named_and_the_frame_before_is_saved(tmp_path: Path) -> None:
    """sqrt(1 - x) has no force beyond x = 1; at 2 nm/ps and 10 fs an atom passes 1.001 in step 51."""
    context = context_with("1e-9*sqrt(1.001 - x)", velocity=2.0)
    guard = RunGuard(context, topology_of(NUM_ATOMS), tmp_path)
    for _ in range(4):
        guard.step(10)
    with pytest.raises(NonFiniteError) as caught:
        for _ in range(4):
            guard.step(10)
    message = str(caught.value)
    assert "forces became NaN or infinite at step 51" in message
    assert f"first atom {DOOMED} (A{DOOMED} of residue ARG {DOOMED + 1}), 1 atom(s)" in message
    assert "step 50" in message and str(tmp_path / LAST_GOOD_PDB) in message
    frame = app.PDBFile(str(tmp_path / LAST_GOOD_PDB)).getPositions(asNumpy=True)._value
    assert frame[:, 0] == pytest.approx(np.full(NUM_ATOMS, 1.0), abs=1e-3)
    state = openmm.XmlSerializer.deserialize((tmp_path / LAST_GOOD_STATE).read_text())
    assert state.getStepCount() == 50
    assert np.isfinite(state.getPositions(asNumpy=True)._value).all()


def test_infinite_forces_count_too(tmp_path: Path) -> None:
    """exp(1e5 (x - 0.55)) is zero at 0.54 nm, after step 27, and beyond all numbers at 0.56 nm."""
    context = context_with("exp(1e5*(x - 0.55))", velocity=2.0)
    with pytest.raises(NonFiniteError, match=f"forces became NaN or infinite at step 28: first atom {DOOMED} "):
        RunGuard(context, topology_of(NUM_ATOMS), tmp_path).step(100)


def test_an_atom_a_millimetre_away_counts_as_lost(tmp_path: Path) -> None:
    """At 3e7 nm/ps and 10 fs per step an atom passes a million nm in step 4, with nothing NaN about it."""
    guard = RunGuard(context_with("0*x", velocity=3e7), topology_of(NUM_ATOMS), tmp_path)
    with pytest.raises(NonFiniteError, match=f"at step 4: first atom 0 .* {NUM_ATOMS} atom"):
        guard.step(10)


def test_a_start_that_is_not_finite_is_said_to_be_the_start(tmp_path: Path) -> None:
    context = context_with("sqrt(-1 - x^2)")
    with pytest.raises(NonFiniteError, match="before the first step"):
        RunGuard(context, topology_of(NUM_ATOMS), tmp_path).step(10)
    assert not (tmp_path / LAST_GOOD_PDB).exists()


def test_good_runs_are_the_same_as_without_a_guard(tmp_path: Path) -> None:
    guarded, plain = context_with("100*x^2", velocity=1.0), context_with("100*x^2", velocity=1.0)
    guard = RunGuard(guarded, topology_of(NUM_ATOMS), tmp_path)
    for _ in range(5):
        guard.step(7)
    plain.getIntegrator().step(35)
    expected = plain.getState(positions=True).getPositions(asNumpy=True)._value
    assert (guard.state.getPositions(asNumpy=True)._value == expected).all()
    assert list(tmp_path.iterdir()) == []


def test_errors_of_openmm_that_are_no_nan_pass_unchanged(tmp_path: Path) -> None:
    """A box that has become smaller than twice the cutoff."""
    context = openmm_context_with_cutoff()
    guard = RunGuard(context, topology_of(2), tmp_path)
    guard.step(5)
    context.setPeriodicBoxVectors((1.5, 0, 0), (0, 1.5, 0), (0, 0, 1.5))
    with pytest.raises(openmm.OpenMMException, match="cutoff"):
        guard.step(5)


def openmm_context_with_cutoff() -> openmm.Context:
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors((10, 0, 0), (0, 10, 0), (0, 0, 10))
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(1.0)
    for _ in range(2):
        system.addParticle(40.0)
        force.addParticle(0, 0.3, 1.0)
    system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions([(0, 0, 0), (0.5, 0, 0)])
    return context
