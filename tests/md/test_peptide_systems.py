"""Peptides by name: right sequences, real forces, starts that run."""

from __future__ import annotations

import mdtraj
import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_gnn.md.implicit_solvent import HYDROGEN_MASS
from openmm_gnn.md.integrators import make_integrator
from openmm_gnn.md.run_settings import RunSettings
from openmm_gnn.md.systems.systems import NAMED_PEPTIDES, load_system

ATOMS = {"alanine-dipeptide": 22, "chignolin": 166, "pentapeptide": 94}


def energy(system: openmm.System, positions: np.ndarray) -> float:
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    return context.getState(energy=True).getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)


@pytest.mark.parametrize("name", NAMED_PEPTIDES)
def test_the_sequence_is_the_molecules(name: str) -> None:
    peptide, system = NAMED_PEPTIDES[name], load_system(name)
    table = mdtraj.Topology.from_openmm(system.topology)
    codes = [residue.code for residue in table.residues if residue.code is not None]
    assert "".join(codes) == peptide.sequence
    assert table.n_atoms == ATOMS[name]
    assert not system.periodic


def test_the_system_is_that_of_the_force_field() -> None:
    """Against OpenMM's own form of the solvent, written as a formula."""
    system = load_system("alanine-dipeptide")
    written = app.ForceField("amber14-all.xml", "implicit/obc2.xml").createSystem(
        system.topology, constraints=app.HBonds, hydrogenMass=HYDROGEN_MASS * unit.dalton
    )
    expected = energy(written, system.positions)  # its constants are rounded in the last digit
    assert energy(system.system, system.positions) == pytest.approx(expected, rel=1e-4)
    assert sum(system.masses) == pytest.approx(144.17, abs=0.01)


@pytest.mark.parametrize("name", NAMED_PEPTIDES)
def test_it_starts_the_same_and_runs(name: str) -> None:
    system = load_system(name)
    np.testing.assert_array_equal(system.start(1), load_system(name).start(2))
    settings = RunSettings(steps=100, stride=100).course(system)
    context = openmm.Context(
        system.system, make_integrator(settings), openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"}
    )
    context.setPositions(system.start(1))
    context.setVelocitiesToTemperature(300.0, 1)
    context.getIntegrator().step(100)
    positions = context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    assert np.isfinite(positions).all() and np.ptp(positions, axis=0).max() < 10
