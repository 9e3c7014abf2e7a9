"""Boxes filled with copies, and errors of a network in them, on argon and water."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app
from untrained_networks import untrained

from openmm_gnn.analysis import verdicts
from openmm_gnn.analysis.force_checks import NetworkForces, ReferenceFrame, Teacher, learned_forces, network_system
from openmm_gnn.analysis.size_transfer import (
    grown,
    prepared,
    repeated_topology,
    replication_error,
    size_transfer,
    sizes_for,
)
from openmm_gnn.analysis.validation import Validation, save_validation
from openmm_gnn.analysis.validation_frames import frames_of_teacher
from openmm_gnn.base.errors import DataError, NonFiniteError
from openmm_gnn.base.specs.force import Decoder
from openmm_gnn.md.simulation_system import ForcePart, LabelledForces, SimulationSystem, part_of
from openmm_gnn.md.systems.fluids import lattice_sites, water_topology
from openmm_gnn.md.systems.systems import named_system


@pytest.fixture(scope="module")
def water() -> ReferenceFrame:
    """An unequilibrated frame of TIP3P, its molecules wherever they have gone."""
    system = named_system("tip3p")
    far = np.random.default_rng(0).integers(-2, 3, size=(258, 1, 3)) * 2.0
    positions = (system.positions.reshape(258, 3, 3) + far).reshape(-1, 3)
    return ReferenceFrame(positions, np.eye(3) * 2.0, np.zeros_like(positions))


def nearest_oxygens(positions: np.ndarray, edge: float) -> float:
    fractional = positions[::3] / edge
    delta = fractional[:, None] - fractional[None]
    distances = np.linalg.norm((delta - np.rint(delta)) * edge, axis=-1)
    return float(distances[np.triu_indices(len(distances), 1)].min())


def test_eight_copies_fill_a_box_of_twice_the_edge_exactly(water: ReferenceFrame) -> None:
    large = named_system("tip3p", 8 * 258)
    positions = grown(water, large)
    assert positions.shape == (8 * 258 * 3, 3)
    oxygens, original = positions[::3], water.positions[::3] % 2.0
    assert np.unique(np.round(oxygens // 2.0), axis=0).tolist() == [
        [i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)
    ]
    assert sorted(map(tuple, (oxygens % 2.0).round(6))) == sorted(map(tuple, np.tile(original, (8, 1)).round(6)))
    bonds = np.linalg.norm(positions[1::3] - positions[::3], axis=1)
    assert bonds == pytest.approx(np.full(8 * 258, 0.09572), abs=1e-4)


def test_other_numbers_of_molecules_fill_their_box_without_a_gap(water: ReferenceFrame) -> None:
    system = named_system("tip3p", 700)
    edge = float(system.box_vectors[0, 0])
    positions = grown(water, system)
    assert positions.shape == (2100, 3)
    oxygens = positions[::3]
    assert oxygens.min() >= 0 and edge - 0.3 < oxygens.max() < edge + 1e-6
    counts, _ = np.histogramdd(oxygens, bins=3, range=[(0, edge + 1e-6)] * 3)
    assert np.abs(counts - 700 / 27).max() < 14  # no empty corner, none twice as dense
    assert np.linalg.norm(positions[2::3] - oxygens, axis=1) == pytest.approx(np.full(700, 0.09572), abs=1e-4)


def test_frames_that_fill_no_other_box_are_refused(water: ReferenceFrame) -> None:
    system = named_system("tip3p", 300)
    with pytest.raises(DataError, match="box is None nm, that of tip3p .* give frames of a run in a rectangular box"):
        grown(replace(water, box=None), system)
    with pytest.raises(DataError, match=r"0\.5, 2\.0, 0\.0\].* rectangular"):
        grown(replace(water, box=np.array([[2.0, 0, 0], [0.5, 2, 0], [0, 0, 2]])), system)
    with pytest.raises(DataError, match="770 particles are no molecules of 3"):
        grown(replace(water, positions=water.positions[:770]), system)
    with pytest.raises(DataError, match="cannot be repeated: give one of a periodic run"):
        replication_error(untrained((1, 8)), system, replace(water, box=None))


@pytest.mark.parametrize("decoder", list(Decoder))
def test_forces_of_copies_are_copies_of_the_forces(decoder: Decoder, water: ReferenceFrame) -> None:
    assert replication_error(untrained((1, 8), decoder=decoder), named_system("tip3p"), water) < 1e-5


def test_repeated_topology_has_every_bond_again() -> None:
    topology = named_system("tip4pew").topology
    repeated = repeated_topology(topology, 3)
    assert repeated.getNumAtoms() == 3 * topology.getNumAtoms()
    bonds = [(first.index, second.index) for first, second in repeated.bonds()]
    first = [(one.index, other.index) for one, other in topology.bonds()]
    count = topology.getNumAtoms()
    assert bonds == [(i + copy * count, j + copy * count) for copy in range(3) for i, j in first]


def test_error_of_a_short_ranged_network_is_the_same_in_every_box() -> None:
    """An untrained network on a crystal-like start: relative errors near one, alike in both boxes."""
    argon = named_system("argon")
    frame = ReferenceFrame(argon.positions, argon.box_vectors, np.zeros_like(argon.positions))
    seen: list[tuple[str, float]] = []
    results = size_transfer(
        "argon", untrained(), LabelledForces.ALL, [258, 8 * 258], frame, 0.02, "CPU", lambda *what: seen.append(what)
    )
    assert [result.num_molecules for result in results] == [258, 8 * 258]
    assert [result.errors.num_frames for result in results] == [7, 1]
    assert results[1].edge_nm == pytest.approx(2 * 2.727, rel=1e-6)
    assert [check.verdict for check in verdicts.sizes(results)] == [verdicts.FINE] * 2  # within 10 %
    assert seen[0] == ("258 molecules", 0.0) and seen[-1] == ("2064 molecules", 1.0)


@pytest.mark.parametrize("platform", ["CPU", "Reference"])
def test_a_size_whose_run_blows_up_is_described_and_the_others_are_measured(platform: str, tmp_path: Path) -> None:
    """Two atoms at one place in the far corner, where 256 atoms of 258 leave them out.

    The CPU platform raises an error of its own, Reference goes on with NaN.
    """
    argon = named_system("argon")
    positions = np.array(argon.positions)
    positions[:2] = 0.999 * np.diag(argon.box_vectors)
    frame = ReferenceFrame(positions, argon.box_vectors, np.zeros_like(positions))
    failed, measured = size_transfer("argon", untrained(), LabelledForces.ALL, [258, 256], frame, 0.02, platform)
    assert failed.errors is None and measured.errors is not None and not measured.failure
    for words in ("argon, 258 molecules in a box of 2.73 nm", "relax the start", "smaller time step"):
        assert words in failed.failure
    checks = verdicts.sizes([failed, measured])
    assert [check.verdict for check in checks] == [verdicts.LOOK, verdicts.FINE]
    assert checks[0].text == "failed" and checks[0].words == failed.failure
    validation = Validation("untrained", "argon", 258, 100.0, checks, sizes=[failed, measured])
    sizes = json.loads(json.dumps(validation.to_dict()))["sizes"]
    assert sizes[0] == {"num_molecules": 258, "edge_nm": failed.edge_nm, "failure": failed.failure}
    assert sizes[1]["num_frames"] == 7
    for validation.sizes in ([failed, measured], [failed]):
        assert save_validation(validation, tmp_path / "figure.png").stat().st_size > 10_000


def test_a_run_that_heats_beyond_measure_is_an_error_though_every_number_is_finite() -> None:
    """A bond whose period is 3 steps of the run: each step doubles its amplitude."""
    stiff = named_system("argon")
    bond = openmm.HarmonicBondForce()
    bond.addBond(0, 1, float(np.linalg.norm(stiff.positions[1] - stiff.positions[0])), 9e7)
    stiff.system.addForce(bond)
    with pytest.raises(NonFiniteError, match=r"blew up after 20 steps of 0.001 ps \(heated to .* K\)"):
        prepared(stiff, 0.02, "CPU")


def test_a_teachers_run_of_steps_that_are_too_long_is_an_error_in_words() -> None:
    wild = replace(named_system("argon"), time_step_ps=1.0)
    with pytest.raises(NonFiniteError, match=r"blew up after \d+ steps of 1 ps .* smaller time step"):
        frames_of_teacher(wild, LabelledForces.ALL, 1, 40.0, platform="CPU")


def test_sizes_are_at_least_the_systems_own_and_cubes_where_the_teacher_is_expensive() -> None:
    assert sizes_for("argon", [10, 887, 20]) == [258, 887]
    assert sizes_for("amoeba-water", [258, 2094, 3000]) == [258, 2064]
    with pytest.raises(DataError, match="no named system"):
        sizes_for("protein.xml", [258])


def test_learned_part_is_what_the_metadata_says() -> None:
    model = untrained()
    assert learned_forces(model) is LabelledForces.ALL
    model.spec = replace(model.spec, metadata={"data": [{"directory": "x", "forces": "nonbonded"}]})
    assert learned_forces(model) is LabelledForces.NONBONDED


def flexible_water() -> SimulationSystem:
    """Molecules with springs for bonds, at the sites of a lattice."""
    topology = water_topology(27, 1.9)
    system = app.ForceField("tip3p.xml").createSystem(
        topology, nonbondedMethod=app.CutoffPeriodic, nonbondedCutoff=0.8, rigidWater=False
    )
    molecule = np.array([[0, 0, 0], [0.09, 0, 0], [-0.024, 0.093, 0]])
    positions = (lattice_sites(27, 1.9)[:, None] + molecule).reshape(-1, 3)
    return SimulationSystem("flexible", system, topology, positions)


def test_network_of_nonbonded_forces_keeps_the_bonded_ones_and_is_compared_with_the_rest() -> None:
    system, model = flexible_water(), untrained((1, 8))
    replaced = network_system(system, model, LabelledForces.NONBONDED)
    kept = [force for force in replaced.getForces() if part_of(force) is ForcePart.BONDED]
    own = [force for force in system.system.getForces() if part_of(force) is ForcePart.BONDED]
    assert [type(force) for force in kept] == [type(force) for force in own] and own
    assert replaced.getNumForces() == len(own) + 2  # the network, and the centre of mass at rest
    alone = network_system(system, model, LabelledForces.ALL)
    assert alone.getNumForces() == 2
    whole = Teacher(system, LabelledForces.ALL).forces(system.positions)
    rest = Teacher(system, LabelledForces.NONBONDED).forces(system.positions)
    bonded = (whole - rest).reshape(-1, 3, 3)
    assert np.abs(bonded.sum(axis=1)).max() < 1e-2  # within a molecule they cancel
    assert np.abs(bonded).max() > 10
    box = system.box_vectors
    assert NetworkForces(model, system.topology, box)(system.positions).shape == whole.shape
