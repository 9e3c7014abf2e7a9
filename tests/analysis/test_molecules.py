"""Runs of molecules: g(r) by pair of elements against the ideal gas and mdtraj, centres, temperatures, one figure."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
from command_lines import invoke
from openmm import app, unit
from small_water import water_on_a_lattice

from openmm_gnn.analysis.compare import compare
from openmm_gnn.analysis.observables import molecules_of, observe
from openmm_gnn.analysis.structure import radial_distribution
from openmm_gnn.base.errors import DataError
from openmm_gnn.md.run_settings import ComputeSettings, RunCourse
from openmm_gnn.md.simulation_system import SimulationSystem, Thermostat
from openmm_gnn.md.systems.fluids import water_topology
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.runs.directory import RunDirectory
from openmm_gnn.runs.simulate import simulate

BOX = np.diag([2.0, 2.2, 1.8])
NUM_WATERS = 20


def mdtraj_topology(num_molecules: int) -> mdtraj.Topology:
    return mdtraj.Topology.from_openmm(water_topology(num_molecules, 2.0))


def test_ideal_gas_of_molecules_gives_one_for_every_pair_of_elements() -> None:
    """Molecules as small as a point: their atoms fall where the molecules fall, pairs inside are left out."""
    rng = np.random.default_rng(3)
    centers = rng.uniform(size=(3000, NUM_WATERS, 3)) @ BOX
    positions = np.repeat(centers, 3, axis=1)
    molecules = molecules_of(mdtraj_topology(NUM_WATERS), "all")
    assert molecules.element_pairs() == [("O", "O"), ("O", "H"), ("H", "H")]
    for first, second in molecules.element_pairs():
        gas = radial_distribution(
            positions, BOX, molecules.of_element(first), molecules.of_element(second), molecules.of_atom, 0.1
        )
        shells = 4 / 3 * np.pi * np.diff(gas.edges_nm**3)
        independent = 3000 * NUM_WATERS * (NUM_WATERS - 1) / 2 * shells / np.linalg.det(BOX)
        deviation = (gas.values - 1) * np.sqrt(independent)
        assert np.abs(deviation[independent > 50]).max() < 4.5


@pytest.mark.parametrize("pair", [("O", "O"), ("O", "H"), ("H", "H")])
def test_partial_distribution_equals_mdtraj_without_pairs_inside_a_molecule(pair: tuple[str, str]) -> None:
    rng = np.random.default_rng(11)
    positions = rng.normal(scale=0.5, size=(20, 3 * NUM_WATERS, 3))
    topology = mdtraj_topology(NUM_WATERS)
    molecules = molecules_of(topology, "all")
    first, second = (molecules.of_element(element) for element in pair)
    ours = radial_distribution(positions, BOX, first, second, molecules.of_atom, 0.02, num_blocks=5)
    trajectory = mdtraj.Trajectory(positions, topology)
    trajectory.unitcell_vectors = np.repeat(BOX[None], 20, axis=0)
    pairs = [(i, j) for i, j in topology.select_pairs(f"element {pair[0]}", f"element {pair[1]}") if i // 3 != j // 3]
    _, theirs = mdtraj.compute_rdf(trajectory, pairs, r_range=(0, 0.9), n_bins=len(ours.values), opt=False)
    shells = 4 / 3 * np.pi * np.diff(ours.edges_nm**3)
    one_pair = np.linalg.det(BOX) / (20 * len(pairs) * shells)
    assert np.abs((ours.values - theirs) / one_pair).sum() < 12  # mdtraj counts in float32: a pair may change its bin
    assert ours.values.max() > 2


def test_pairs_that_do_not_exist_and_radii_beyond_the_box_are_refused() -> None:
    positions = np.random.default_rng(0).uniform(size=(20, 6, 3))
    one_molecule, two = np.zeros(6, dtype=int), np.repeat([0, 1], 3)
    with pytest.raises(DataError, match="atoms is of two molecules"):
        radial_distribution(positions, np.eye(3), np.arange(6), np.arange(6), one_molecule)
    with pytest.raises(DataError, match="share some of their atoms"):
        radial_distribution(positions, np.eye(3), np.arange(3), np.arange(6), two)
    with pytest.raises(DataError, match=r"up to 0\.9000 nm, half the smallest box is 0\.5000 nm: give a radius"):
        radial_distribution(positions, np.eye(3), np.arange(6), np.arange(6), two, radius_nm=0.9)


def test_virtual_sites_are_in_no_pair_and_molecules_are_what_bonds_and_residues_join(tmp_path: Path) -> None:
    water = load_system("tip4pew")
    with open(tmp_path / "water.pdb", "w") as file:
        app.PDBFile.writeFile(water.topology, water.positions, file, keepIds=True)
    molecules = molecules_of(mdtraj.load_topology(str(tmp_path / "water.pdb")), "all")
    assert molecules.count == 251 and not molecules.are_atoms
    assert len(molecules.atoms) == 753
    assert len(molecules.of_element("O")) == 251
    assert molecules.element_pairs() == [("O", "O"), ("O", "H"), ("H", "H")]
    centers, masses = molecules.centers(water.positions[None])
    assert masses == pytest.approx(np.full(251, 18.015), abs=1e-2)
    sites = water.positions.reshape(251, 4, 3)[:, :3]
    weights = np.array([15.99943, 1.007947, 1.007947])
    assert centers[0] == pytest.approx(np.einsum("a,mak->mk", weights / weights.sum(), sites), abs=1e-9)
    joined = mdtraj.Topology()
    chain = joined.add_chain()
    carbons = [joined.add_atom("C", mdtraj.element.carbon, joined.add_residue("X", chain)) for _ in range(3)]
    joined.add_bond(carbons[0], carbons[2])
    assert molecules_of(joined, "all").of_atom.tolist() == [0, 1, 0]


EDGE, PER_EDGE = 1.9, 3
SETTINGS = RunCourse(
    steps=1200,
    equilibration_steps=200,
    report_interval=10,
    temperature=300.0,
    thermostat=Thermostat.LANGEVIN,
    friction_per_ps=5.0,
    checkpoint_interval=100,
    time_step_ps=0.002,
    seed=1,
)


def thin_water(barostat: bool = False) -> SimulationSystem:
    """27 rigid molecules that repel each other by their oxygens."""
    topology, system = water_topology(PER_EDGE**3, EDGE), openmm.System()
    system.setDefaultPeriodicBoxVectors(*(np.eye(3) * EDGE))
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.6)
    for atom in topology.atoms():
        is_oxygen = atom.element.symbol == "O"
        index = system.addParticle(15.999 if is_oxygen else 1.008)
        force.addParticle(0.0, 0.31 if is_oxygen else 0.1, 0.6 if is_oxygen else 0.0)
        if is_oxygen:
            for first, second, length in ((0, 1, 0.09572), (0, 2, 0.09572), (1, 2, 0.15139)):
                system.addConstraint(index + first, index + second, length)
    system.addForce(force)
    if barostat:
        system.addForce(openmm.MonteCarloBarostat(300 * unit.bar, 300 * unit.kelvin, 5))
    spacing = EDGE / PER_EDGE
    positions = water_on_a_lattice(PER_EDGE, spacing) + 0.3 * spacing
    return SimulationSystem("thin-water", system, topology, positions, temperature=300.0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("waters")
    for name, temperature in (("cold", 300.0), ("hot", 400.0)):
        settings = replace(SETTINGS, temperature=temperature)
        simulate(thin_water(), root / name, settings, forces_name=name, compute=ComputeSettings("Reference"))
    simulate(
        thin_water(barostat=True),
        root / "pressed",
        SETTINGS,
        forces_name="pressed",
        compute=ComputeSettings("Reference"),
    )
    return root


def test_molecules_are_compared_by_element_and_by_their_centres(runs: Path) -> None:
    comparison = compare(runs / "hot", runs / "cold")
    assert [structure.pair for structure in comparison.structures] == ["O-O", "O-H", "H-H"]
    for element in "OH":
        ratio = comparison.run.element_temperatures[element].value / 300
        assert ratio == pytest.approx(4 / 3, rel=0.12)
    cold = observe(runs / "cold")
    assert (
        cold.rdfs["O-H"].values[cold.rdfs["O-H"].distances_nm < 0.15].max() == 0
    )  # the bond of 0.0957 nm is not there
    assert cold.diffusion_of == "molecules"
    rows = {name: rest for name, *rest in comparison.rows()}
    assert {"temperature O (K)", "temperature H (K)", "potential (kJ/mol/molecule)"} <= rows.keys()
    assert "density (g/cm³)" not in rows  # constant
    energies = [run.potential_kj_mol for run in (comparison.run, comparison.reference)]
    assert all(energy is not None and energy.error > 0 for energy in energies)
    same = compare(runs / "cold", runs / "cold")
    assert all(structure.within_two_sigma and structure.bins_beyond_two_sigma == 0 for structure in same.structures)


def test_selected_atoms_are_compared_alone(runs: Path) -> None:
    oxygen = observe(runs / "cold", "element O")
    assert list(oxygen.rdfs) == ["O-O"]
    assert oxygen.diffusion_of == "'element O'"
    everything = observe(runs / "cold")
    assert oxygen.rdfs["O-O"].values == pytest.approx(everything.rdfs["O-O"].values)


def test_runs_at_constant_pressure_are_compared_by_density_up_to_half_the_smallest_box(runs: Path) -> None:
    comparison = compare(runs / "pressed", runs / "pressed")
    assert comparison.run.density_g_cm3 is not None
    mass_g = 27 * 18.015 / 6.02214076e23
    log = np.genfromtxt(runs / "pressed" / "log.csv", delimiter=",", names=True)
    expected = (mass_g / (log["volume_nm3"] * 1e-21)).mean()
    assert comparison.run.density_g_cm3.value == pytest.approx(expected, rel=1e-4)
    assert comparison.run.rdf.edges_nm[-1] == pytest.approx(0.5 * log["volume_nm3"].min() ** (1 / 3), rel=1e-5)
    assert "density (g/cm³)" in [name for name, *_ in comparison.rows()]
    mixed = compare(runs / "pressed", runs / "cold")
    assert mixed.reference.density_g_cm3 is None


def test_logs_without_temperatures_of_elements_are_compared_without_them(runs: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for file in (runs / "cold").iterdir():
        (old / file.name).write_bytes(file.read_bytes())
    lines = (old / "log.csv").read_text().splitlines()
    (old / "log.csv").write_text("".join(",".join(line.split(",")[:6]) + "\n" for line in lines))
    names = [name for name, *_ in compare(runs / "hot", old).rows()]
    assert "temperature (K)" in names and "temperature O (K)" not in names


def test_runs_of_other_systems_and_of_open_space_are_refused(runs: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs / "cold", other)
    topology = RunDirectory(other).topology
    topology.write_text(re.sub(r"O(\s*)$", r"S\1", topology.read_text(), flags=re.MULTILINE))
    with pytest.raises(DataError, match=r"81 atoms and g\(r\) of O-O, O-H, H-H, .* S-S.*: compare runs of one system"):
        compare(runs / "cold", other)
    alone = thin_water()
    alone.system.getForce(0).setNonbondedMethod(openmm.NonbondedForce.NoCutoff)
    alone.topology.setPeriodicBoxVectors(None)
    short = replace(SETTINGS, steps=20, equilibration_steps=0)
    simulate(alone, tmp_path / "alone", short, compute=ComputeSettings("Reference"))
    for measure in (observe, lambda path: compare(path, runs / "cold")):
        with pytest.raises(DataError, match="has no periodic box, .*: give a periodic run"):
            measure(tmp_path / "alone")


def test_command_prints_every_pair_and_draws_them_all(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "water.png"
    arguments = ["compare", str(runs / "hot"), str(runs / "cold"), "--out", str(out)]
    result = invoke(arguments, env={"COLUMNS": "150"})
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    for words in ("O-O largest", "O-H largest", "H-H g(r) peak", "temperature H (K)", "diffusion of molecules"):
        assert words in text
    assert out.stat().st_size > 100_000
