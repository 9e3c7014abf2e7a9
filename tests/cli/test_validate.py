"""`openmm-gnn validate` as a user types it, on argon and a network of no training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_lines import invoke
from untrained_networks import untrained

from openmm_gnn.data.labels.trajectories import LabelledTrajectories
from openmm_gnn.learning.training.training_distribution import TRAINING_DISTRIBUTION, fit_distribution
from openmm_gnn.networks.weights import save_network

SHORT = "--quick --stability 0.2 --constant-energy 0.04 --frames 2 --quiet --sizes"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("labels") / "argon"
    options = "--seeds 1-2 --frames 3 --stride 20 --equilibration 0.2 --quiet"
    result = invoke(["label", "argon", *options.split(), "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out


def bundle(path: Path, metadata: dict[str, Any] | None = None, elements: tuple[int, ...] = (18,)) -> Path:
    """A network whose forces are too small to tear argon apart."""
    return save_network(untrained(elements, force_scale=1.0), path / "untrained.safetensors", metadata)


def run(*arguments: str) -> tuple[int, str]:
    result = invoke(["validate", *arguments], env={"COLUMNS": "200"})
    return result.exit_code, result.output + str(result.exception or "")


@pytest.mark.slow
def test_everything_is_measured_printed_drawn_and_written(data: Path, tmp_path: Path) -> None:
    labelled = LabelledTrajectories.open(data)
    frames = [
        (np.full(len(positions), 18), positions, labelled.trajectories[0].box_vectors[0])
        for positions in labelled.trajectories[0].positions
    ]
    metadata = {
        TRAINING_DISTRIBUTION: fit_distribution(frames, 0.5),
        "train_seeds": "1",
        "data": [{"directory": "argon", "forces": "all"}],
    }
    model = bundle(tmp_path, metadata)
    code, output = run(str(model), "--data", str(data), "--out", str(tmp_path / "out"), *SHORT.split(), "258")
    assert code == 0, output
    document = json.loads((tmp_path / "out" / "validation.json").read_text())
    checks = {check["name"]: check for check in document["checks"]}
    for name in checks:
        assert name in output
    assert checks["net force / mean |F|"]["value"] < 1e-5  # a pair decoder's
    assert checks["net force / mean |F|"]["verdict"] == "fine"
    assert checks["net torque of a droplet"]["value"] < 1e-5
    assert checks["change under rotation"]["value"] < 1e-4
    assert 0 < checks["Jacobian asymmetry"]["value"] < 2
    assert checks["force error, relative"]["verdict"] == "look here"
    assert checks["temperature of Ar"]["value"] == pytest.approx(100, abs=25)
    assert checks["stability"]["value"] == 1.0
    assert checks["atoms outside training, teacher's frames"]["value"] is not None
    assert checks["copies of a frame"]["value"] < 1e-5
    assert document["system"] == "argon" and document["temperature_K"] == 100
    assert document["sizes"][0]["num_molecules"] == 258
    assert checks["energy drift at constant energy"]["unit"] == "K/ns"
    assert (tmp_path / "out" / "validation.png").stat().st_size > 50_000


def test_named_system_needs_no_data_and_a_bundle_without_distribution_says_so(tmp_path: Path) -> None:
    code, output = run(
        str(bundle(tmp_path)), "--system", "argon", "--out", str(tmp_path / "out"), *SHORT.split(), "none"
    )
    assert code == 0, output
    checks = {c["name"]: c for c in json.loads((tmp_path / "out" / "validation.json").read_text())["checks"]}
    assert checks["extrapolation"]["verdict"] == "not measured"
    assert checks["extrapolation"]["value"] is None
    assert "no training distribution" in output
    assert checks["box-size transfer"]["words"] == "left out"


def test_a_network_that_tears_the_system_apart_is_reported_and_not_raised(tmp_path: Path, data: Path) -> None:
    model = save_network(untrained(force_scale=1e6), tmp_path / "wild.safetensors")
    code, output = run(str(model), "--data", str(data), "--out", str(tmp_path / "out"), *SHORT.split(), "none")
    assert code == 0, output
    checks = {c["name"]: c for c in json.loads((tmp_path / "out" / "validation.json").read_text())["checks"]}
    assert checks["stability"]["verdict"] == "look here"
    assert checks["stability"]["value"] < 1
    assert "blew up after" in checks["stability"]["words"]


def test_mistakes_are_said_before_any_work(tmp_path: Path, data: Path) -> None:
    model = str(bundle(tmp_path))
    out = ["--out", str(tmp_path / "out")]
    learned_nonbonded = {"data": [{"directory": "x", "forces": "nonbonded"}]}
    (tmp_path / "other").mkdir()
    other = str(bundle(tmp_path / "other", learned_nonbonded))
    for arguments, message in (
        ([model], "give --system (such as tip3p), or --data"),
        ([model, "--system", "tip3p"], "the model knows the atomic numbers [18]"),
        ([model, "--system", "granite"], "no system called 'granite'"),
        ([model, "--system", "argon", "--sizes", "many"], "--sizes: 'many' is no list"),
        ([model, "--system", "argon", "--stability", "-3"], "--stability -3.0: give a finite number above 0"),
        ([model, "--data", str(tmp_path)], "holds no meta.json"),
        ([other, "--data", str(data)], "has learned nonbonded forces"),
        ([model, "--data", str(data), "--seeds", "7"], "no trajectory of seed 7"),
        (["gamd-granite"], "no model 'gamd-granite'"),
    ):
        code, output = run(*arguments, *out, "--quiet")
        assert code != 0
        assert message in " ".join(output.split()), (arguments, output)
    assert not (tmp_path / "out").exists()
