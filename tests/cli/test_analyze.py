"""`openmm-gnn analyze` from runs to the report, beside the known kinetics of hops between two shapes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from command_lines import Result, invoke
from hopping_runs import HOP, INTERVAL_PS, HoppingRuns, spoiled
from killed_processes import KilledCalls

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.kinetics.data import find_runs

FRAMES = 1500
LAG_PS = 2 * INTERVAL_PS


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    folder, hopper = tmp_path_factory.mktemp("hopping") / "runs", HoppingRuns()
    return folder, [hopper.write(folder / f"run-{seed}", FRAMES, seed) for seed in range(3)]


def command(runs: Path, out: Path, *arguments: str) -> list[str]:
    small = ["--outputs", "1", "--width", "16", "--layers", "1", "--batch-size", "500", "--quiet", "--quick"]
    small += [] if "--steps" in arguments else ["--steps", "40"]
    return ["analyze", str(runs), "--lag", str(LAG_PS), "--out", str(out), *small, *arguments]


def analysed(runs: Path, out: Path, *arguments: str) -> Result:
    result = invoke(command(runs, out, *arguments))
    assert result.exit_code == 0, (result.output, result.exception)
    return result


@pytest.fixture(scope="module")
def whole(runs: tuple[Path, list[np.ndarray]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete analysis with a VAMPnet."""
    out = tmp_path_factory.mktemp("whole") / "out"
    analysed(runs[0], out)
    return out


def check_kinetics(out: Path, shapes: list[np.ndarray]) -> None:
    """States, populations, timescale, passage times and score are those of the hops."""
    found = json.loads((out / "analysis.json").read_text())
    states, variables = [], []
    for seed in range(3):
        with np.load(out / "slow_variables" / f"run-{seed}.npz") as stored:
            assert len(stored["steps"]) == FRAMES
            states.append(stored["states"])
            variables.append(stored["slow_variables"])
    together, truth = np.concatenate(states), np.concatenate(shapes)
    agreeing = (together == truth).mean()
    assert max(agreeing, 1 - agreeing) > 0.99
    correlation = np.corrcoef(np.concatenate(variables)[:, 0], truth)[0, 1]
    assert abs(correlation) > 0.95
    timescale = -INTERVAL_PS / np.log(1 - 2 * HOP)
    lags = np.array(found["timescales"]["lags_ps"])
    row = int(np.abs(lags - found["timescales"]["lag_ps"]).argmin())
    assert found["timescales"]["values_ps"][row][0] == pytest.approx(timescale, rel=0.25)
    assert found["states"]["populations"] == pytest.approx([0.5, 0.5], abs=0.1)
    assert found["states"]["passage_ps"][0][1] == pytest.approx(INTERVAL_PS / HOP, rel=0.3)
    score = found["lag_scores"][0]["scores"][int(np.abs(lags - LAG_PS).argmin())]
    assert score == pytest.approx(1 + (1 - 2 * HOP) ** 4, abs=0.1)
    hops = sum(int(np.abs(np.diff(own)).sum()) for own in shapes)
    assert sum(found["state_visits"]) == pytest.approx(hops, rel=0.1)


def test_one_command_finds_the_hops_and_writes_everything(runs: tuple[Path, list[np.ndarray]], whole: Path) -> None:
    check_kinetics(whole, runs[1])
    report = (whole / "report.html").read_text()
    assert report.count("data:image/png;base64,") == 7
    assert "http://" not in report and "https://" not in report
    found = json.loads((whole / "analysis.json").read_text())
    for run, stored in zip(find_runs([runs[0]]), found["inputs"], strict=True):
        assert stored["frames_hash"] == run.fingerprint()["frames_hash"] and stored["frames_hash"][:16] in report
    assert [run["role"] for run in found["inputs"]] == ["training", "training", "validation"]
    figures = {path.name for path in (whole / "figures").iterdir()}
    assert {"scores.png", "timescales.png", "free_energy.png", "states.png", "saliency.png", "summary.png"} <= figures


def test_models_of_a_state_have_its_shape(runs: tuple[Path, list[np.ndarray]], whole: Path) -> None:
    models = [mdtraj.load(str(whole / "states" / f"state-{state}.pdb")) for state in (1, 2)]
    within = max(mdtraj.rmsd(own, own, 0).max() for own in models)
    between = mdtraj.rmsd(models[0], models[1], 0).min()
    assert within < 0.6 * between


def test_the_learned_variables_make_a_bundle_for_a_bias(whole: Path, runs: tuple[Path, list[np.ndarray]]) -> None:
    from openmm_gnn.features.learned_cv import load_learned_cv

    assert (
        load_learned_cv(whole / "cv.safetensors").topology_hash
        == (find_runs([runs[0]])[0].store.meta["description"]["topology_hash"])
    )


@pytest.mark.parametrize("method", ["tica", pytest.param("spib", marks=pytest.mark.slow)])
def test_other_methods_find_the_same_hops(runs: tuple[Path, list[np.ndarray]], tmp_path: Path, method: str) -> None:
    analysed(runs[0], tmp_path / "out", "--method", method)
    check_kinetics(tmp_path / "out", runs[1])


def test_the_same_command_again_trains_nothing_again(runs: tuple[Path, list[np.ndarray]], whole: Path) -> None:
    bundle = whole / "training" / "seed-0" / "slow_variables.safetensors"
    trained, before = bundle.stat().st_mtime_ns, json.loads((whole / "analysis.json").read_text())
    analysed(runs[0], whole)
    assert bundle.stat().st_mtime_ns == trained
    after = json.loads((whole / "analysis.json").read_text())
    assert all(after[name] == before[name] for name in ("seeds", "inputs", "lag_scores"))
    assert all(after[name] == before[name] for name in ("timescales", "states", "prediction"))  # intervals too


@pytest.mark.slow
def test_a_killed_command_goes_on(runs: tuple[Path, list[np.ndarray]], whole: Path, tmp_path: Path) -> None:
    log = tmp_path / "out" / "training" / "seed-0" / "log.csv"
    with KilledCalls(invoke, command(runs[0], tmp_path / "out")) as calls:
        calls.kill_one(0.3, log)
    assert not (tmp_path / "out" / "report.html").exists()
    analysed(runs[0], tmp_path / "out")
    killed, uninterrupted = (json.loads((folder / "analysis.json").read_text()) for folder in (tmp_path / "out", whole))
    assert killed["seeds"][0]["validation"] == pytest.approx(uninterrupted["seeds"][0]["validation"], abs=0.01)
    steps = [int(row.split(",")[0]) for row in log.read_text().splitlines()[1:]]
    assert steps == sorted(set(steps))


def test_runs_that_never_meet_are_named_with_their_share(tmp_path: Path) -> None:
    hopper = HoppingRuns()
    for name, frames, first in (("left", 400, 0), ("right", 200, 1)):
        hopper.write(tmp_path / "runs" / name, frames, 1, hop=0.0, first=first)
    result = analysed(tmp_path / "runs", tmp_path / "out", "--method", "tica")
    found = json.loads((tmp_path / "out" / "analysis.json").read_text())
    apart = [part for part in found["unconnected"] if part["runs"] == ["right"]]
    assert sum(part["frames"] for part in apart) == 200
    assert found["states"]["connected_share"] == pytest.approx(1 - sum(part["share"] for part in found["unconnected"]))
    assert found["states"]["connected_share"] <= 2 / 3
    words = "of the frames are not connected with the states"
    assert any(words in warning for warning in found["warnings"]) and words in result.stderr
    report = (tmp_path / "out" / "report.html").read_text()
    assert words in report and "not connected</td>" in report
    with np.load(tmp_path / "out" / "slow_variables" / "right.npz") as stored:
        assert (stored["states"] == -1).all()
    times = np.array(found["timescales"]["high_ps"], float)
    assert not np.nanmax(times, initial=0) > 1000 * 600 * INTERVAL_PS


@pytest.mark.slow
def test_short_runs_give_a_report_with_warnings_and_a_test_run_cross_validates(tmp_path: Path) -> None:
    hopper = HoppingRuns("nearest")  # whose features jump
    for seed in range(4):
        hopper.write(tmp_path / f"{'test' if seed == 3 else 'runs'}" / f"run-{seed}", 40, seed)
    analysed(tmp_path / "runs", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert found["warnings"] and found["score_name"].startswith("of the validation frames")
    assert "a bias along them is refused" in (tmp_path / "out" / "report.html").read_text()
    analysed(tmp_path / "runs", tmp_path / "tested", "--test", str(tmp_path / "test" / "run-3"))
    tested = json.loads((tmp_path / "tested" / "analysis.json").read_text())
    assert tested["score_name"] == "cross-validated" and [run["role"] for run in tested["inputs"]][-1] == "test"
    assert tested["seeds"] == found["seeds"] and tested["lag_scores"] != found["lag_scores"]


def test_another_setting_needs_another_directory(runs: tuple[Path, list[np.ndarray]], whole: Path) -> None:
    error = invoke(command(runs[0], whole, "--width", "32")).exception
    assert isinstance(error, SpecError)
    assert "settings.width: 16 before, 32 now" in str(error) and "another --out" in str(error)


def test_bad_input_is_named_before_anything_is_learned(runs: tuple[Path, list[np.ndarray]], tmp_path: Path) -> None:
    def error_of(*arguments: str) -> str:
        error = invoke(command(tmp_path / "bad", tmp_path / "out", *arguments)).exception
        assert isinstance(error, DataError), error
        assert not (tmp_path / "out" / "training").exists()
        return str(error)

    shutil.copytree(runs[0], tmp_path / "bad")
    spoiled(tmp_path / "bad" / "run-1", 40)
    assert "run-1" in (words := error_of()) and "frame 40" in words and "featurize it again" in words
    shutil.rmtree(tmp_path / "bad" / "run-1")
    assert "a lag of 2000 ps" in error_of("--lags", "2000")
    (tmp_path / "bad" / "run-2" / "run.json").unlink()
    assert "temperature of" in (words := error_of()) and "run-2" in words
