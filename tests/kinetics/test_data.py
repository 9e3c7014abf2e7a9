"""Runs found where they lie, and frames that stand for states, compared with the trajectories they are from."""

from __future__ import annotations

from pathlib import Path

import mdtraj
import numpy as np
import pytest
from hopping_runs import INTERVAL_PS, STRIDE, TEMPERATURE, HoppingRuns

from openmm_gnn.base.errors import DataError
from openmm_gnn.kinetics.data import find_runs
from openmm_gnn.kinetics.report.representative_frames import closest_frames, write_state


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """group/one and group/two, runs of 60 and 80 frames."""
    folder = tmp_path_factory.mktemp("runs") / "group"
    hopper = HoppingRuns()
    hopper.write(folder / "one", 60, seed=1)
    hopper.write(folder / "two", 80, seed=2)
    return folder


def test_a_directory_of_runs_a_run_and_its_store_are_the_same_runs(runs: Path) -> None:
    together = find_runs([runs])
    apart = find_runs([runs / "one", runs / "two" / "features"])
    assert [run.name for run in together] == [run.name for run in apart] == ["one", "two"]
    assert [run.fingerprint() for run in together] == [run.fingerprint() for run in apart]
    assert [run.num_frames for run in together] == [60, 80]
    assert {run.temperature for run in together} == {TEMPERATURE}
    assert [run.interval_ps for run in together] == pytest.approx([INTERVAL_PS, INTERVAL_PS])
    assert len(together[0].labels) == 3 and together[0].labels[1].endswith("ALA2")


def test_frames_of_features_are_found_in_the_trajectory_by_step(runs: Path) -> None:
    run = find_runs([runs / "two"])[0]
    np.testing.assert_array_equal(run.trajectory_frames, np.arange(80))
    np.testing.assert_array_equal(run.steps, STRIDE * np.arange(1, 81))


def test_a_growing_run_is_used_as_far_as_it_was(runs: Path) -> None:
    assert [run.num_frames for run in find_runs([runs], {"two": 50})] == [60, 50]
    with pytest.raises(DataError, match="two.* has 80 frames, 90 were analysed before"):
        find_runs([runs], {"two": 90})


def test_paths_without_features_and_runs_given_twice_are_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{tmp_path} holds no features"):
        find_runs([tmp_path])
    with pytest.raises(DataError, match="is given twice"):
        find_runs([runs / "one", runs])


def test_runs_of_one_name_are_told_apart_by_their_folders(runs: Path, tmp_path: Path) -> None:
    HoppingRuns().write(tmp_path / "other" / "one", 5, seed=3)
    assert [run.name for run in find_runs([runs / "one", tmp_path / "other"])] == ["group-one", "other-one"]


def test_the_closest_frames_are_of_different_visits(runs: Path) -> None:
    found = find_runs([runs])
    variables = [np.linspace(-1, 1, run.num_frames)[:, None] for run in found]
    states = [(np.arange(run.num_frames) // 10) % 2 for run in found]
    frames = closest_frames(found, variables, states, num_states=3, count=4)
    assert [len(of_state) for of_state in frames] == [4, 4, 0]
    for state, of_state in enumerate(frames[:2]):
        visits = {(frame.run, frame.frame // 10) for frame in of_state}
        assert len(visits) == 4 and all(visit % 2 == state for _, visit in visits)
        assert [frame.distance for frame in of_state] == sorted(frame.distance for frame in of_state)
    together = np.concatenate(variables)[np.concatenate(states) == 0]
    best = found[[run.name for run in found].index(frames[0][0].run)]
    value = variables[found.index(best)][frames[0][0].frame]
    assert np.abs(value - together.mean()) == pytest.approx(np.abs(together - together.mean()).min())


def test_models_of_a_state_are_the_frames_of_the_trajectory(runs: Path, tmp_path: Path) -> None:
    found = find_runs([runs])
    states = [np.zeros(run.num_frames, int) for run in found]
    variables = [np.random.default_rng(0).normal(size=(run.num_frames, 2)) for run in found]
    [frames] = closest_frames(found, variables, states, num_states=1, count=2)
    written = mdtraj.load(str(write_state(frames, found, tmp_path / "states" / "state-1.pdb")))
    assert len(written) == 2
    for model, frame in zip(written, frames, strict=True):
        source = mdtraj.load(str(runs / frame.run / "trajectory.dcd"), top=str(runs / frame.run / "topology.pdb"))[
            frame.frame
        ]
        assert mdtraj.rmsd(model, source)[0] < 2e-3  # a PDB file has three digits


def test_no_frames_make_no_file(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no frames to write"):
        write_state([], find_runs([runs]), tmp_path / "state.pdb")
