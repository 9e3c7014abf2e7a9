"""g(r) against the ideal gas, lattice shells, mdtraj, and Lennard-Jones theory's simplest fact."""

from __future__ import annotations

import mdtraj
import numpy as np
import pytest

from openmm_gnn.analysis.structure import RadialDistribution, largest_radius, radial_distribution
from openmm_gnn.base.errors import DataError

TRICLINIC = np.array([[2.0, 0.0, 0.0], [0.6, 1.9, 0.0], [-0.5, 0.4, 1.8]])


@pytest.mark.parametrize("box", [np.diag([2.0, 2.2, 1.8]), TRICLINIC], ids=["cuboid", "triclinic"])
@pytest.mark.parametrize("num_atoms", [2, 40])
def test_ideal_gas_gives_one_within_counting_noise(box: np.ndarray, num_atoms: int) -> None:
    rng = np.random.default_rng(3)
    frames = 40_000 // num_atoms
    wide = rng.uniform(-2, 3, size=(frames, num_atoms, 3))  # many boxes wide: must not matter
    gas = radial_distribution((np.floor(wide) + rng.uniform(size=wide.shape)) @ box, box, bin_width_nm=0.05)
    shells = 4 / 3 * np.pi * np.diff(gas.edges_nm**3)
    expected_counts = frames * num_atoms * (num_atoms - 1) / 2 * shells / np.linalg.det(box)
    counted = expected_counts > 50
    deviation = (gas.values - 1) * np.sqrt(expected_counts)
    assert counted.sum() > 5
    assert np.abs(deviation[counted]).max() < 4.5  # Poisson sigmas
    assert np.mean(deviation[counted] ** 2) < 2.5


def test_perfect_lattice_has_its_shells_and_nothing_between() -> None:
    """Face-centred cubic: 12, 6, 24, 12 neighbours at sqrt(1/2), 1, sqrt(3/2), sqrt(2) lattice constants."""
    cells, constant = 4, 0.5
    grid = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    motif = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    lattice = (grid + motif).reshape(1, -1, 3) * constant
    box = np.eye(3) * cells * constant
    result = radial_distribution(lattice, box, bin_width_nm=0.007, num_blocks=1)
    num_atoms = lattice.shape[1]
    shells = 4 / 3 * np.pi * np.diff(result.edges_nm**3)
    neighbours = result.values * shells * (num_atoms - 1) / np.linalg.det(box)
    for count, distance in ((12, 0.5**0.5), (6, 1.0), (24, 1.5**0.5), (12, 2**0.5)):
        near = np.abs(result.distances_nm - distance * constant) < 0.02
        assert neighbours[near].sum() == pytest.approx(count, rel=1e-9)
    assert neighbours[result.distances_nm < 0.34].sum() == 0
    assert result.first_peak()[0] == pytest.approx(constant * 0.5**0.5, abs=0.005)


@pytest.mark.parametrize("box", [np.diag([2.0, 2.2, 1.8]), TRICLINIC], ids=["cuboid", "triclinic"])
def test_equals_mdtraj(box: np.ndarray) -> None:
    rng = np.random.default_rng(11)
    positions = rng.normal(scale=0.5, size=(20, 50, 3))  # a cloud: far from uniform
    ours = radial_distribution(positions, box, bin_width_nm=0.02, num_blocks=5)
    topology = mdtraj.Topology()
    residue = topology.add_residue("AR", topology.add_chain())
    for _ in range(50):
        topology.add_atom("AR", mdtraj.element.argon, residue)
    trajectory = mdtraj.Trajectory(positions, topology)
    trajectory.unitcell_vectors = np.repeat(box[None], 20, axis=0)
    pairs = topology.select_pairs("all", "all")
    radius, bins = largest_radius(box[None]), len(ours.values)
    _, theirs = mdtraj.compute_rdf(trajectory, pairs, r_range=(0, radius), n_bins=bins, opt=False)
    # mdtraj normalises by N (N - 1) / 2 pairs too; it counts in float32, so a pair may change its bin.
    shells = 4 / 3 * np.pi * np.diff(ours.edges_nm**3)
    one_pair = np.linalg.det(box) / (20 * len(pairs) * shells)
    assert np.abs(ours.values - theirs)[shells > 0].max() < 2.5 * one_pair.max()
    assert np.abs((ours.values - theirs) / one_pair).sum() < 10
    assert ours.values.max() > 2


def test_blocks_average_to_the_whole_and_measure_the_noise() -> None:
    rng = np.random.default_rng(5)
    gas = radial_distribution(rng.uniform(size=(1000, 30, 3)) * 2, np.eye(3) * 2, bin_width_nm=0.1)
    assert gas.blocks.mean(axis=0) == pytest.approx(gas.values)
    outer = gas.distances_nm > 0.3
    assert 0.6 < np.abs(gas.values - 1)[outer].mean() / (0.8 * gas.errors[outer]).mean() < 1.6


def test_first_peak_of_a_smooth_curve_is_found_between_bins() -> None:
    edges = np.linspace(0, 1.0, 201)
    middles = 0.5 * (edges[1:] + edges[:-1])
    curve = 3 * np.exp(-0.5 * ((middles - 0.3817) / 0.03) ** 2)
    position, height = RadialDistribution(edges, curve, curve[None]).first_peak()
    assert position == pytest.approx(0.3817, abs=2e-4)
    assert height == pytest.approx(3.0, abs=0.02)


def test_half_the_box_is_measured_between_faces() -> None:
    assert largest_radius(np.diag([2.0, 3.0, 4.0])[None]) == pytest.approx(1.0)
    reduced = TRICLINIC[None]
    heights = 1 / np.linalg.norm(np.linalg.inv(TRICLINIC), axis=0)  # columns of the inverse are reciprocal vectors
    assert largest_radius(reduced) == pytest.approx(heights.min() / 2)


def test_single_atom_and_short_runs_are_refused() -> None:
    with pytest.raises(DataError, match="1 and 1 atoms is of two molecules"):
        radial_distribution(np.zeros((20, 1, 3)), np.eye(3))
    with pytest.raises(DataError, match="run longer"):
        radial_distribution(np.zeros((3, 2, 3)), np.eye(3))
