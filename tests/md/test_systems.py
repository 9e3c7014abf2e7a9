"""Named and loaded systems; the truth for argon is the Lennard-Jones sum written out in numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_gnn.base.errors import DataError, TopologyError
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.md.simulation_system import stable_xml
from openmm_gnn.md.systems.systems import SimulationSystem, load_system, save_system

SIGMA, EPSILON, CUTOFF, EDGE = 0.34, 0.238 * 4.184, 1.02, 2.727


def lennard_jones(positions: np.ndarray) -> tuple[float, np.ndarray]:
    """Energy, shifted to zero at the cutoff, and forces by the minimum image, every pair written out."""
    vectors = positions[None] - positions[:, None]
    vectors -= EDGE * np.round(vectors / EDGE)
    distances = np.linalg.norm(vectors, axis=-1)
    near = (distances < CUTOFF) & ~np.eye(len(positions), dtype=bool)
    sixth = np.where(near, SIGMA / np.where(near, distances, 1.0), 0.0) ** 6
    shift = 4 * EPSILON * ((SIGMA / CUTOFF) ** 12 - (SIGMA / CUTOFF) ** 6)
    energy = 0.5 * (4 * EPSILON * (sixth**2 - sixth) - shift * near).sum()
    push = np.where(near, 24 * EPSILON * (2 * sixth**2 - sixth) / np.where(near, distances, 1.0) ** 2, 0.0)
    return float(energy), -(push[..., None] * vectors).sum(axis=1)


def context_of(system: SimulationSystem, platform: str, step_ps: float = 0.001) -> openmm.Context:
    properties = {"Threads": "1"} if platform == "CPU" else {}
    integrator = openmm.VerletIntegrator(step_ps)
    context = openmm.Context(system.system, integrator, openmm.Platform.getPlatformByName(platform), properties)
    context.setPositions(system.positions)
    return context


def energy_and_forces(context: openmm.Context) -> tuple[float, np.ndarray]:
    state = context.getState(getEnergy=True, getForces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    return energy, state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)


def warm_positions() -> np.ndarray:
    """Argon after half a picosecond at 100 K: pairs at every distance, none overlapping."""
    context = context_of(load_system("argon"), "CPU", 0.002)
    context.setVelocitiesToTemperature(100.0, 3)
    context.getIntegrator().step(250)
    return np.array(context.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer))


@pytest.mark.parametrize(("platform", "tolerance"), [("Reference", 1e-9), ("CPU", 1e-4)])
def test_argon_has_the_forces_and_energy_of_the_sum_over_all_pairs(platform: str, tolerance: float) -> None:
    context = context_of(load_system("argon"), platform)
    positions = warm_positions()
    context.setPositions(positions)
    energy, forces = energy_and_forces(context)
    expected_energy, expected_forces = lennard_jones(positions)
    assert np.linalg.norm(expected_forces, axis=1).mean() > 10
    np.testing.assert_allclose(forces, expected_forces, atol=tolerance * np.abs(expected_forces).max(), rtol=0)
    assert energy == pytest.approx(expected_energy, rel=tolerance)


def test_argon_energy_is_continuous_where_a_pair_crosses_the_cutoff() -> None:
    context = context_of(load_system("argon"), "Reference")
    positions = warm_positions()
    vectors = positions - positions[0]
    vectors -= EDGE * np.round(vectors / EDGE)
    distances = np.linalg.norm(vectors, axis=1)
    other = int(np.argmin(np.abs(distances - CUTOFF)))
    direction = vectors[other] / distances[other]
    positions[0] += (distances[other] - CUTOFF) * direction  # the pair sits on the cutoff now
    delta, energies = 1e-7, []
    for side in (-1, 1):
        moved = positions.copy()
        moved[0] += side * delta * direction
        context.setPositions(moved)
        energies.append(energy_and_forces(context)[0])
    unshifted_jump = 4 * EPSILON * (SIGMA / CUTOFF) ** 6
    assert abs(energies[1] - energies[0]) < unshifted_jump / 100


def test_argon_conserves_energy() -> None:
    context = context_of(load_system("argon"), "CPU", 0.002)
    context.setVelocitiesToTemperature(100.0, 1)
    context.getIntegrator().step(200)
    totals = []
    for _ in range(100):
        context.getIntegrator().step(10)
        state = context.getState(getEnergy=True)
        totals.append((state.getPotentialEnergy() + state.getKineticEnergy()).value_in_unit(unit.kilojoule_per_mole))
    # In units of k_B T for every atom, over 2 ps: 4e-6 measured, 2e-3 if the energy is not shifted.
    assert np.std(totals) < 5e-5 * 258 * BOLTZMANN_KJ_MOL_K * 100


def test_argon_is_the_system_of_the_paper() -> None:
    argon = load_system("argon")
    assert argon.periodic
    np.testing.assert_allclose(argon.box_vectors, np.eye(3) * 2.727)
    np.testing.assert_allclose(argon.masses, np.full(258, 39.9))
    assert [atom.element.symbol for atom in argon.topology.atoms()] == ["Ar"] * 258
    assert (argon.temperature, argon.time_step_ps, argon.thermostat.value) == (100.0, 0.002, "nose-hoover")
    vectors = argon.positions[None] - argon.positions[:, None]
    distances = np.linalg.norm(vectors - EDGE * np.round(vectors / EDGE), axis=-1) + EDGE * np.eye(258)
    assert distances.min() > SIGMA  # no overlaps
    np.testing.assert_array_equal(argon.positions, load_system("argon").positions)


def molecules() -> SimulationSystem:
    """Water and a made-up ligand in a triclinic box: bonds that no residue library knows."""
    topology = app.Topology()
    chain = topology.addChain("A")
    for residue_name, names in (("HOH", ("O", "H1", "H2")), ("LIG", ("C1", "O1", "N1")), ("HOH", ("O", "H1", "H2"))):
        residue = topology.addResidue(residue_name, chain)
        atoms = [topology.addAtom(name, app.Element.getBySymbol(name[0]), residue) for name in names]
        topology.addBond(atoms[0], atoms[1])
        topology.addBond(atoms[0], atoms[2])
    box = np.array([[2.0, 0, 0], [0.5, 1.9, 0], [-0.3, 0.4, 1.8]])
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*box)
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.8)
    for atom in topology.atoms():
        system.addParticle(atom.element.mass)
        force.addParticle(0.0, 0.3, 0.5)
    system.addForce(force)
    topology.setPeriodicBoxVectors(box * unit.nanometer)
    return SimulationSystem("molecules", system, topology, np.random.default_rng(1).uniform(0, 1.8, (9, 3)))


def bonds(topology: app.Topology) -> set[frozenset[int]]:
    return {frozenset((first.index, second.index)) for first, second in topology.bonds()}


def test_a_saved_system_comes_back_with_bonds_box_and_forces(tmp_path: Path) -> None:
    given = molecules()
    save_system(tmp_path, given)
    back = load_system(tmp_path)
    assert back.name == tmp_path.name
    assert bonds(back.topology) == bonds(given.topology) and len(bonds(back.topology)) == 6
    assert [a.element for a in back.topology.atoms()] == [a.element for a in given.topology.atoms()]
    np.testing.assert_allclose(back.box_vectors, given.box_vectors)
    np.testing.assert_allclose(back.positions, given.positions, atol=1e-4)
    contexts = [context_of(system, "Reference") for system in (given, back)]
    contexts[1].setPositions(given.positions)
    np.testing.assert_array_equal(*[energy_and_forces(context)[1] for context in contexts])


def test_a_serialised_system_is_loaded_with_a_pdb_file(tmp_path: Path) -> None:
    given = load_system("argon")
    (tmp_path / "box.xml").write_text(openmm.XmlSerializer.serialize(given.system))
    with (tmp_path / "box.pdb").open("w") as file:
        app.PDBFile.writeFile(given.topology, given.positions * unit.nanometer, file)
    back = load_system(tmp_path / "box.xml", tmp_path / "box.pdb")
    assert back.name == "box" and back.topology.getNumAtoms() == 258
    np.testing.assert_allclose(back.positions, given.positions, atol=1e-4)


def test_bad_input_is_refused_in_words(tmp_path: Path) -> None:
    argon = load_system("argon")
    save_system(tmp_path / "argon", argon)
    save_system(tmp_path / "molecules", molecules())
    xml, cif = tmp_path / "argon" / "system.xml", tmp_path / "argon" / "topology.cif"
    (tmp_path / "integrator.xml").write_text(openmm.XmlSerializer.serialize(openmm.VerletIntegrator(0.001)))
    (tmp_path / "text.xml").write_text("once upon a time")
    (tmp_path / "empty.pdb").write_text("")
    (tmp_path / "topology.xyz").write_text("")
    for arguments, message in (
        (("krypton",), "no system called 'krypton': give one of .*'argon'"),
        (("argon", cif), "brings its topology"),
        ((tmp_path / "absent.xml", cif), "no file .*absent.xml"),
        ((xml,), "without names and bonds: .*--topology"),
        ((xml, tmp_path / "absent.pdb"), "no file .*absent.pdb"),
        ((xml, tmp_path / "topology.xyz"), "ends in '.xyz'"),
        ((tmp_path / "text.xml", cif), "cannot be read as OpenMM XML"),
        ((tmp_path / "integrator.xml", cif), "serialised VerletIntegrator: expected a System"),
        ((tmp_path,), "no file .*system.xml"),
    ):
        with pytest.raises(DataError, match=message):
            load_system(*arguments)
    with pytest.raises(TopologyError, match="topology of system has 9 atoms, the System 258 particles"):
        load_system(xml, tmp_path / "molecules" / "topology.cif")
    argon.topology.setPeriodicBoxVectors(np.eye(3) * 2.8 * unit.nanometer)
    with (tmp_path / "wider.pdb").open("w") as file:
        app.PDBFile.writeFile(argon.topology, argon.positions * unit.nanometer, file)
    with pytest.raises(TopologyError, match=r"wider.pdb has the box \[\[2.8, .*setDefaultPeriodicBoxVectors"):
        load_system(xml, tmp_path / "wider.pdb")
    with pytest.raises((DataError, TopologyError), match=r"empty.pdb|0 atoms"):
        load_system(xml, tmp_path / "empty.pdb")
    with pytest.raises(TopologyError, match=r"shape \(3, 3\): expected \(258, 3\)"):
        SimulationSystem("short", argon.system, argon.topology, np.zeros((3, 3)))


def test_a_topology_that_its_file_cannot_hold_is_refused(tmp_path: Path) -> None:
    """Two atoms of one name in one residue: in a file their bond would be that of one atom with itself."""
    system, topology = openmm.System(), app.Topology()
    residue = topology.addResidue("ETH", topology.addChain())
    carbons = [topology.addAtom("C", app.element.carbon, residue) for _ in range(2)]
    topology.addBond(*carbons)
    for _ in carbons:
        system.addParticle(12.0)
    with pytest.raises(TopologyError, match=r"the bonds of ethane do not survive .* PDBx/mmCIF file can hold"):
        save_system(tmp_path, SimulationSystem("ethane", system, topology, np.zeros((2, 3))))


class Restless:
    """A force whose pickle is another one each time, as those of machine-learned potentials are in each process."""

    pickles = 0

    def __call__(self, state: openmm.State) -> tuple[float, np.ndarray]:
        return 0.0, np.zeros((3, 3))

    def __reduce__(self) -> tuple[Any, ...]:
        Restless.pickles += 1
        return Restless, (), {"count": Restless.pickles}


@pytest.mark.skipif(not hasattr(openmm, "PythonForce"), reason="this OpenMM has no PythonForce")
def test_a_run_knows_a_pickled_potential_again() -> None:
    """Its XML differs once it was read; what stands for it in the hash of a run does not."""
    system = openmm.System()
    for _ in range(3):
        system.addParticle(1.0)
    force = openmm.PythonForce(Restless())
    system.addForce(force)
    first = openmm.XmlSerializer.serialize(system)
    read = openmm.XmlSerializer.deserialize(first)
    assert openmm.XmlSerializer.serialize(read) != first
    before = stable_xml(system)
    assert before == stable_xml(read) and "PythonForce" in before
    system.setParticleMass(0, 2.0)
    assert stable_xml(system) != before
