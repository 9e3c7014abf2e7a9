"""A run that begins where another ended: its first forces are those of that run's last frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_lines import invoke

from openmm_gnn.base.errors import DataError
from openmm_gnn.md.run_settings import ComputeSettings, RunSettings
from openmm_gnn.md.simulation_system import SimulationSystem
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.runs.directory import RunDirectory, starting_from
from openmm_gnn.runs.simulate import simulate


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[SimulationSystem, Path]:
    argon, path = load_system("argon"), tmp_path_factory.mktemp("runs") / "first"
    settings = RunSettings(steps=40, stride=10, equilibration=0.0)
    simulate(argon, path, settings, compute=ComputeSettings("CPU", threads=1))
    return argon, path


def test_it_begins_with_the_last_frame_and_leaves_the_system_alone(finished: tuple[SimulationSystem, Path]) -> None:
    argon, path = finished
    before = argon.positions.copy()
    begun = starting_from(argon, path)
    positions, boxes = RunDirectory(path).read_positions()
    assert boxes is not None and begun.box_vectors is not None
    np.testing.assert_array_equal(begun.start(seed=3), positions[-1])
    np.testing.assert_allclose(begun.box_vectors, boxes[-1], rtol=1e-6)
    np.testing.assert_array_equal(argon.positions, before)
    assert np.abs(begun.positions - before).max() > 1e-4


def test_the_command_begins_there_too(finished: tuple[SimulationSystem, Path], tmp_path: Path) -> None:
    _, path = finished
    options = ["--steps", "1", "--stride", "1", "--equilibration", "0", "--platform", "CPU", "--threads", "1"]
    result = invoke(["simulate", "argon", "--start", str(path), *options, "--quiet", "--out", str(tmp_path / "next")])
    assert result.exit_code == 0, result.output
    last, first = RunDirectory(path).read_positions()[0][-1], RunDirectory(tmp_path / "next").read_positions()[0][0]
    assert np.abs(first - last).max() < 0.005  # one step of 2 fs


def test_a_run_is_not_taken_for_that_of_another_start(tmp_path: Path) -> None:
    """A complete run would be the answer to a question that nobody asked."""
    options = ["--steps", "1", "--stride", "1", "--equilibration", "0", "--platform", "CPU", "--threads", "1"]
    command = ["simulate", "alanine-dipeptide", *options, "--quiet", "--out"]
    for name in ("a", "b"):
        assert invoke([*command, str(tmp_path / name)]).exit_code == 0
    begun = [*command, str(tmp_path / "next"), "--start", str(tmp_path / "a")]
    assert invoke(begun).exit_code == 0
    assert "complete already" in invoke(begun).output
    for other in (["--start", str(tmp_path / "b")], []):
        result = invoke([*command, str(tmp_path / "next"), *other])
        assert result.exit_code != 0 and "system.start" in str(result.exception)


def test_another_system_or_no_run_is_refused(finished: tuple[SimulationSystem, Path], tmp_path: Path) -> None:
    _, path = finished
    with pytest.raises(DataError, match=r"has 258 particles, tip3p 774: start from a run of the same system"):
        starting_from(load_system("tip3p"), path)
    with pytest.raises(DataError, match="holds no trajectory yet"):
        starting_from(load_system("argon"), tmp_path)
