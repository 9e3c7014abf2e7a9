"""Frames of a trajectory are labelled with exactly the teacher's forces, once each, whatever is killed."""

from __future__ import annotations

from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
from command_lines import invoke
from openmm import app

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.data.labels import given_frames
from openmm_gnn.data.labels.given_frames import label_geometries
from openmm_gnn.data.labels.imported_labels import ImportedLabels
from openmm_gnn.data.labels.settings import GeometrySettings
from openmm_gnn.md.simulation_system import BONDED_GROUP, LabelledForces, SimulationSystem, split_groups
from openmm_gnn.md.systems.systems import load_system, save_system


@pytest.fixture(scope="module")
def peptide() -> SimulationSystem:
    return load_system("alanine-dipeptide")


def trajectory_of(system: SimulationSystem, path: Path, count: int = 12, seed: int = 0) -> np.ndarray:
    """A file of frames shaken by 5 pm; its positions as float32, nm."""
    shaken = system.positions + np.random.default_rng(seed).normal(0, 0.005, (count, *system.positions.shape))
    topology = mdtraj.Topology.from_openmm(system.topology)
    mdtraj.Trajectory(shaken, topology, time=np.arange(count)).save(str(path))
    return mdtraj.load(str(path), top=topology).xyz


def forces_at(system: SimulationSystem, positions: np.ndarray, groups: object = -1) -> tuple[np.ndarray, float]:
    """By a Context of their own, in double precision."""
    split_groups(system.system)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system.system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(positions.astype(np.float64))
    state = context.getState(forces=True, energy=True, groups=groups)
    return np.array(state.getForces(asNumpy=True)._value), state.getPotentialEnergy()._value


@pytest.mark.parametrize("forces", list(LabelledForces))
def test_labels_are_the_forces_of_the_system_at_these_frames(
    peptide: SimulationSystem, tmp_path: Path, forces: LabelledForces
) -> None:
    frames = trajectory_of(peptide, tmp_path / "run.dcd")
    settings = GeometrySettings(stride=3, blocks=2)
    data = label_geometries(
        peptide, [tmp_path / "run.dcd"], tmp_path / "data", settings, forces, "Reference", progress=False
    )
    assert data.seeds == [1, 2] and data.meta["settings"]["forces"] == forces.value
    blocks = [block for seed in data.seeds for _, block in data.select([seed])]
    positions, found = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("positions", "forces"))
    np.testing.assert_array_equal(positions, frames[::3])
    energies = np.concatenate([block.energies for block in blocks])
    for row, frame in enumerate(frames[::3]):
        expected, energy = forces_at(peptide, frame)
        if forces is LabelledForces.NONBONDED:
            bonded = forces_at(peptide, frame, {BONDED_GROUP})
            expected, energy = expected - bonded[0], energy - bonded[1]
        np.testing.assert_allclose(found[row], expected, atol=2e-7 * np.abs(expected).max())  # stored as float32
        assert energies[row] == pytest.approx(energy, rel=1e-9)
    assert ([(a.index, b.index) for a, b in data.topologies[0].bonds()]) == [
        (a.index, b.index) for a, b in peptide.topology.bonds()
    ]
    assert not (tmp_path / "data.partial").exists()


def test_what_was_labelled_before_a_kill_is_not_labelled_again(
    peptide: SimulationSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after each count of frames; the last call makes the rest, and the data are those of one never stopped."""
    paths = [tmp_path / "first.dcd", tmp_path / "second.dcd"]
    for seed, path in enumerate(paths):
        trajectory_of(peptide, path, 6, seed)
    label = given_frames._Teacher.label
    asked: list[str] = []

    def stopping(self: object, where: str, *rest: object) -> None:
        if len(asked) in (4, 9):
            asked.append("killed")
            raise KeyboardInterrupt
        asked.append(where)
        label(self, where, *rest)

    monkeypatch.setattr(given_frames._Teacher, "label", stopping)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            label_geometries(peptide, paths, tmp_path / "data", platform="Reference", progress=False)
        assert not (tmp_path / "data").exists()
    data = label_geometries(peptide, paths, tmp_path / "data", platform="Reference", progress=False)
    labelled = [where for where in asked if where != "killed"]
    assert labelled == [f"frame {index} of {path}" for path in paths for index in range(6)]
    monkeypatch.undo()
    whole = label_geometries(peptide, paths, tmp_path / "whole", platform="Reference", progress=False)
    np.testing.assert_array_equal(data.atoms, whole.atoms)
    np.testing.assert_array_equal(data.frames, whole.frames)
    assert data.seeds == [1, 2]


def test_a_partial_of_other_frames_is_not_gone_on_with(
    peptide: SimulationSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trajectory_of(peptide, tmp_path / "run.dcd", 4)
    monkeypatch.setattr(given_frames._Teacher, "label", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        label_geometries(peptide, [tmp_path / "run.dcd"], tmp_path / "data", platform="Reference", progress=False)
    other = GeometrySettings(stride=2)
    with pytest.raises(DataError, match=r"stride = 1, now it is 2"):
        label_geometries(peptide, [tmp_path / "run.dcd"], tmp_path / "data", other, platform="Reference")


def test_frames_whose_bonds_are_broken_are_left_out_and_counted(peptide: SimulationSystem, tmp_path: Path) -> None:
    frames = trajectory_of(peptide, tmp_path / "run.dcd", 8).copy()
    frames[[2, 5], 0] += 1.0
    topology = mdtraj.Topology.from_openmm(peptide.topology)
    mdtraj.Trajectory(frames, topology).save(str(tmp_path / "run.dcd"))
    with pytest.warns(UserWarning, match=r"2 of 8 frames are left out: frame 5 of .*run\.dcd: the bond of atoms"):
        data = label_geometries(
            peptide, [tmp_path / "run.dcd"], tmp_path / "data", GeometrySettings(blocks=1), progress=False
        )
    assert len(data.frames) == 6
    kept = label_geometries(
        peptide,
        [tmp_path / "run.dcd"],
        tmp_path / "all",
        GeometrySettings(blocks=1),
        allow_broken_bonds=True,
        progress=False,
    )
    assert len(kept.frames) == 8


def test_boxes_are_those_of_each_frame(tmp_path: Path) -> None:
    argon = load_system("argon")
    topology, start = mdtraj.Topology.from_openmm(argon.topology), argon.start(1)
    scales = np.array([1.0, 1.05, 1.1])
    lengths = np.tile(np.linalg.norm(argon.box_vectors, axis=1), (3, 1)) * scales[:, None]
    mdtraj.Trajectory(
        start * scales[:, None, None], topology, unitcell_lengths=lengths, unitcell_angles=np.full((3, 3), 90.0)
    ).save(str(tmp_path / "run.dcd"))
    settings = GeometrySettings(blocks=1)
    data = label_geometries(argon, [tmp_path / "run.dcd"], tmp_path / "data", settings, platform="Reference")
    ((_, block),) = data.select([1])
    np.testing.assert_allclose(np.linalg.norm(block.box_vectors, axis=2), lengths, rtol=1e-6)
    platform = openmm.Platform.getPlatformByName("Reference")
    for row in range(3):
        context = openmm.Context(argon.system, openmm.VerletIntegrator(0.001), platform)
        context.setPeriodicBoxVectors(*np.diag(lengths[row]))
        context.setPositions(block.positions[row])
        expected = context.getState(forces=True).getForces(asNumpy=True)._value
        np.testing.assert_allclose(block.forces[row], expected, atol=1e-4 * np.abs(expected).max())


def test_the_command_labels_and_says_what_to_do_next(peptide: SimulationSystem, tmp_path: Path) -> None:
    save_system(tmp_path / "peptide", peptide)
    trajectory_of(peptide, tmp_path / "run.xtc", 5)
    command = ["label", str(tmp_path / "peptide"), "--geometries", str(tmp_path / "run.xtc")]
    done = invoke([*command, "--out", str(tmp_path / "data"), "--blocks", "2"])
    assert done.exit_code == 0, done.output
    assert "5 frames of 1 composition" in done.output and "openmm-gnn train" in done.output
    assert len(ImportedLabels.open(tmp_path / "data").frames) == 5
    run = invoke([*command, "--out", str(tmp_path / "other"), "--temperatures", "400", "--quiet"])
    assert run.exit_code != 0 and "nothing is run" in f"{run.output} {run.exception}"
    again = invoke([*command, "--out", str(tmp_path / "data"), "--quiet"])
    assert isinstance(again.exception, DataError) and "not empty" in str(again.exception)


def test_other_atoms_and_virtual_sites_are_refused(peptide: SimulationSystem, tmp_path: Path) -> None:
    trajectory_of(load_system("pentapeptide"), tmp_path / "other.dcd", 3)
    with pytest.raises(DataError, match="atoms"):
        label_geometries(peptide, [tmp_path / "other.dcd"], tmp_path / "data", progress=False)
    water = load_system("tip4pew")
    assert isinstance(water.topology, app.Topology)
    with pytest.raises(SpecError, match="virtual sites"):
        label_geometries(water, [tmp_path / "other.dcd"], tmp_path / "data", progress=False)
