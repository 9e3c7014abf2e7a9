"""CHARMM36 for peptides: the force field of OpenMM, quicker, and with caps."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from openmm import app

from openmm_gnn.base.errors import TopologyError
from openmm_gnn.md.implicit_solvent import (
    ImplicitForceField,
    charmm_protein_force_field,
    in_implicit_solvent,
    with_caps_as_patches,
    with_hydrogens,
)
from openmm_gnn.md.systems.peptides import Peptide, build_peptide


def energy_and_forces(system: openmm.System, positions: np.ndarray) -> tuple[float, np.ndarray]:
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(positions)
    state = context.getState(getEnergy=True, getForces=True)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value


def test_compiled_forces_are_those_of_the_tables() -> None:
    generator = np.random.default_rng(2)
    topology, positions = with_hydrogens(*build_peptide(Peptide("KWDPHC", False, False), generator), generator)
    force_field = charmm_protein_force_field("implicit/obc2.xml")
    written = force_field.createSystem(with_caps_as_patches(topology), constraints=app.HBonds)
    assert any(isinstance(force, openmm.CustomNonbondedForce) for force in written.getForces())
    expected = energy_and_forces(written, positions)
    system = in_implicit_solvent(topology, ImplicitForceField.CHARMM36)
    assert not any(isinstance(force, openmm.CustomNonbondedForce) for force in system.getForces())
    found = energy_and_forces(system, positions)
    assert found[0] == pytest.approx(expected[0], abs=0.1)  # kJ/mol; constants of the solvent are rounded
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=0.5)


@pytest.mark.parametrize("sequence", ["A", "G", "P", "ACDEFGHIKL", "MNPQRSTVWY"])
def test_caps_and_residues_are_known(sequence: str) -> None:
    generator = np.random.default_rng(0)
    topology, _ = with_hydrogens(*build_peptide(Peptide(sequence), generator), generator)
    system = in_implicit_solvent(topology, ImplicitForceField.CHARMM36)
    charges = next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    total = sum(charges.getParticleParameters(k)[0]._value for k in range(charges.getNumParticles()))
    expected = sum({"K": 1, "R": 1, "D": -1, "E": -1}.get(letter, 0) for letter in sequence)
    assert total == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_residues_are_those_of_the_whole_force_field() -> None:
    generator = np.random.default_rng(2)
    topology, positions = with_hydrogens(*build_peptide(Peptide("KWDPHC"), generator), generator)
    whole = app.ForceField("charmm36.xml").createSystem(with_caps_as_patches(topology))
    part = charmm_protein_force_field("implicit/obc2.xml").createSystem(with_caps_as_patches(topology))
    solvent = [k for k in range(part.getNumForces()) if isinstance(part.getForce(k), openmm.CustomGBForce)]
    part.removeForce(solvent[0])
    assert energy_and_forces(part, positions)[0] == pytest.approx(energy_and_forces(whole, positions)[0], abs=1e-3)


def test_what_the_force_field_does_not_know_is_said() -> None:
    topology = app.Topology()
    topology.addAtom("X", app.Element.getBySymbol("Zn"), topology.addResidue("ZNX", topology.addChain()))
    with pytest.raises(TopologyError, match=r"charmm36 cannot make a System: No template found for residue 0 \(ZNX\)"):
        in_implicit_solvent(topology, ImplicitForceField.CHARMM36)
