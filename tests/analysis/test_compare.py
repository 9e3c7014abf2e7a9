"""Comparisons of real runs of argon: with themselves, with a hotter one, pooled, and refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_lines import invoke
from matplotlib import image
from matplotlib.colors import to_rgb

from openmm_gnn.analysis.compare import compare, observe, runs_in, save_comparison
from openmm_gnn.analysis.diffusion import self_diffusion
from openmm_gnn.base.errors import DataError
from openmm_gnn.base.figures import REFERENCE_COLOR, RUN_COLOR
from openmm_gnn.md.dcd_frames import truncate_dcd
from openmm_gnn.md.run_settings import RunCourse
from openmm_gnn.md.simulation_system import Thermostat
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.networks.weights import load_model
from openmm_gnn.runs.directory import RunDirectory
from openmm_gnn.runs.simulate import simulate

SETTINGS = RunCourse(
    steps=600,
    equilibration_steps=50,
    report_interval=10,
    checkpoint_interval=100,
    time_step_ps=0.002,
    temperature=100.0,
    thermostat=Thermostat.NOSE_HOOVER,
    friction_per_ps=25.0,
    seed=1,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds at 100 K in one directory, and a run at 130 K."""
    root, argon = tmp_path_factory.mktemp("runs"), load_system("argon")
    for seed in (1, 2):
        simulate(argon, root / "cold" / str(seed), replace(SETTINGS, seed=seed), forces_name="Lennard-Jones")
    simulate(argon, root / "hot", replace(SETTINGS, temperature=130.0))
    return root


def test_a_run_beside_itself_differs_in_nothing(runs: Path) -> None:
    comparison = compare(runs / "hot", runs / "hot")
    assert comparison.largest_difference.value == 0
    assert comparison.run.rdf.first_peak() == comparison.reference.rdf.first_peak()
    assert comparison.temperature_ratio.value == comparison.diffusion_ratio.value == 1


def test_a_hotter_run_is_seen_to_be_hotter_and_faster(runs: Path) -> None:
    comparison = compare(runs / "hot", runs / "cold" / "1")
    assert comparison.temperature_ratio.value == pytest.approx(1.3, abs=0.06)
    assert comparison.diffusion_ratio.value > 1.1
    assert comparison.run.rdf.first_peak()[1] / comparison.reference.rdf.first_peak()[1] < 0.97
    assert comparison.largest_difference.value == np.abs(comparison.structures[0].values).max() > 0.05
    assert (comparison.run.label, comparison.reference.label) == ("reference", "Lennard-Jones")


def test_runs_of_one_directory_are_pooled(runs: Path) -> None:
    pooled, parts = observe(runs / "cold"), [observe(runs / "cold" / seed) for seed in "12"]
    assert pooled.rdf.values == pytest.approx(np.mean([part.rdf.values for part in parts], axis=0))
    assert pooled.temperature.value == pytest.approx(np.mean([part.temperature.value for part in parts]))
    assert pooled.simulated_ps == pytest.approx(2 * 600 * 0.002)
    assert len(pooled.traces) == 2
    positions = [run.read_positions()[0] for run in runs_in(runs / "cold")]
    expected = self_diffusion(positions, 0.02).coefficient
    assert pooled.diffusion.coefficient.value == pytest.approx(expected.value)
    assert pooled.diffusion.coefficient.error == pytest.approx(expected.error)


def test_runs_that_cannot_be_compared_are_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="different kinds"):
        observe_mixture(runs, tmp_path)
    with pytest.raises(DataError, match="no run and holds none"):
        compare(tmp_path / "nothing", runs / "hot")
    with pytest.raises(DataError, match="matches 0 atoms"):
        observe(runs / "hot", "element O")
    with pytest.raises(DataError, match="not mdtraj's language"):
        observe(runs / "hot", "the blue ones")


def observe_mixture(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "a").symlink_to(runs / "hot")
    (tmp_path / "mixed" / "b").symlink_to(runs / "cold" / "1")
    observe(tmp_path / "mixed")


def test_command_prints_the_table_and_draws_both_colours(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "figures" / "compare.png"
    result = invoke(["compare", str(runs / "hot"), str(runs / "cold"), "--out", str(out)])
    assert result.exit_code == 0, result.output
    for words in ("largest |Δg(r)|", "peak at", "peak height", "temperature (K)", "diffusion"):
        assert words in result.output
    pixels = image.imread(out)[..., :3]
    assert min(pixels.shape[:2]) > 900
    for color in (RUN_COLOR, REFERENCE_COLOR):
        assert (np.abs(pixels - to_rgb(color)).max(axis=-1) < 0.15).sum() > 500


def test_figure_is_drawn_in_any_format(runs: Path, tmp_path: Path) -> None:
    comparison = compare(runs / "hot", runs / "cold" / "1")
    assert save_comparison(comparison, tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


def test_log_that_ends_in_half_a_row_is_read(runs: Path) -> None:
    run = RunDirectory(runs / "hot")
    rows = len(run.read_log())
    with open(run.log, "a") as log:
        log.write("99999,1")
    assert len(run.read_log()) == rows == 60
    assert json.loads(run.description.read_text())["system"]["num_atoms"] == 258


@pytest.mark.parametrize("frames", [1, 3])
def test_a_short_run_is_compared_by_what_it_holds(frames: int, runs: Path, tmp_path: Path) -> None:
    short = replace(SETTINGS, steps=10 * frames, checkpoint_interval=10 * frames)
    simulate(load_system("argon"), tmp_path / "short", short)
    with pytest.warns(UserWarning, match="too short for a diffusion coefficient, run longer"):
        comparison = compare(tmp_path / "short", runs / "hot")
    said = dict((row[0], row[1]) for row in comparison.rows())
    assert said["temperature (K)"].startswith(f"{comparison.run.temperature.value:.2f}")
    assert ("±" in said["temperature (K)"]) is (frames > 1)
    assert not any("diffusion" in name for name in said)
    assert save_comparison(comparison, tmp_path / "short.png").stat().st_size > 10_000


@pytest.mark.slow
def test_isokinetic_runs_are_compared_by_their_structure_alone(runs: Path, tmp_path: Path) -> None:
    steps = {"steps": 120, "equilibration_steps": 30, "report_interval": 4, "checkpoint_interval": 40}
    course = replace(SETTINGS, **steps, time_step_ps=0.01, inner_steps=2, thermostat=Thermostat.ISOKINETIC)
    simulate(load_system("argon"), tmp_path / "isokinetic", course, load_model("gamd-argon"))
    for reference in (runs / "cold" / "1", tmp_path / "isokinetic"):
        comparison = compare(tmp_path / "isokinetic", reference)
        said = [row[0] for row in comparison.rows()]
        assert not any(word in name for word in ("temperature", "diffusion") for name in said)
    assert save_comparison(comparison, tmp_path / "figure.png").stat().st_size > 10_000


def test_a_run_without_a_frame_says_so(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "hot", tmp_path / "begun")
    begun = RunDirectory(tmp_path / "begun")
    begun.log.write_text(begun.log.read_text().splitlines(keepends=True)[0])
    truncate_dcd(begun.trajectory, 0)
    with pytest.raises(DataError, match="holds no frame yet: wait, or go on with it"):
        compare(tmp_path / "begun", runs / "hot")
