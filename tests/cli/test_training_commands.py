"""label, train, evaluate and export as a user types them, on a few frames of argon."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from command_lines import invoke

from openmm_gnn.base.specs.force import GAMDSpec, NeighborSpec
from openmm_gnn.learning.settings import TrainingSettings
from openmm_gnn.learning.training.force_matching import train
from openmm_gnn.networks.weights import load_model

SMALL = (
    "--max-neighbors 50 --width 8 --layers 1 --radial 8 --cutoff 0.6 "
    "--steps 4 --batch-size 1 --validate-every 2 --quiet"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("labels") / "argon"
    options = "--seeds 1-3 --frames 3 --stride 5 --equilibration 0.02"
    result = invoke(["label", "argon", *options.split(), "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def bundle(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("network")
    result = invoke(
        ["train", str(data), "--out", str(out), "--train-seeds", "1", "--validation-seeds", "2", *SMALL.split()]
    )
    assert result.exit_code == 0, result.output
    return out / "model.safetensors"


def test_the_bundle_says_where_it_comes_from(bundle: Path) -> None:
    metadata = load_model(bundle).spec.metadata
    assert load_model(bundle).spec.neighbors.max_neighbors == 50
    assert metadata["train_seeds"] == "1"
    assert metadata["data"][0]["stride"] == 5
    assert metadata["training_distribution"]["num_frames"] == 3
    assert metadata["validation"]["validation_mae"] > 0
    assert torch.__version__.startswith(metadata["versions"]["torch"].split("+")[0])


def test_training_from_python_makes_the_same_bundle_with_the_same_metadata(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    network = partial(GAMDSpec, NeighborSpec(cutoff=0.6, max_neighbors=50), width=8, num_layers=1, num_radial=8)
    settings = TrainingSettings(train_seeds=(1,), validation_seeds=(2,), num_steps=4, batch_size=1, validate_every=2)
    made = load_model(train([data], tmp_path, network, settings, progress=False))
    expected = load_model(bundle)
    assert made.spec == expected.spec
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in expected.state_dict().items())
    metadata = dict(expected.spec.metadata)
    assert {**made.spec.metadata, "command": metadata["command"]} == metadata


def test_evaluate_prints_the_errors_of_held_out_frames_and_records_them(bundle: Path, data: Path) -> None:
    result = invoke(["evaluate", str(bundle), str(data), "--seeds", "3", "--json", "--record"])
    assert result.exit_code == 0, result.output
    errors = json.loads(result.stdout)
    assert errors["num_frames"] == 3
    assert errors["mae"] == pytest.approx(errors["relative_error"] * errors["mean_force"])
    assert errors["relative_net_force"] < 1e-5  # a pair decoder's
    assert load_model(bundle).spec.metadata["held_out"]["mae"] == errors["mae"]
    twice = json.loads(invoke(["evaluate", str(bundle), str(data), str(data), "--seeds", "3", "--json"]).stdout)
    assert twice["num_frames"] == 6 and twice["mae"] == pytest.approx(errors["mae"])
    table = invoke(["evaluate", str(bundle), str(data), "--seeds", "3"])
    assert f"{errors['mae']:.4f}" in table.stdout


def test_export_writes_a_module_that_can_be_evaluated_too(bundle: Path, data: Path, tmp_path: Path) -> None:
    result = invoke(["export", str(bundle), "argon", "--out", str(tmp_path / "argon.pt")])
    assert result.exit_code == 0, result.output
    both = [
        json.loads(invoke(["evaluate", str(path), str(data), "--seeds", "3", "--json"]).stdout)
        for path in (bundle, tmp_path / "argon.pt")
    ]
    assert both[0] == both[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--train-seeds", "1-2", "--validation-seeds", "2"], "for training and for validation"),
        (["--train-seeds", "1", "--validation-seeds", "7"], "no data has seed 7"),
        (["--train-seeds", "one", "--validation-seeds", "2"], "is no list"),
        (["--train-seeds", "1", "--validation-seeds", "2", "--cutoff", "-1"], "--cutoff -1.0"),
    ],
)
def test_wrong_options_are_refused_before_training(
    data: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    result = invoke(["train", str(data), "--out", str(tmp_path / "run"), *options])
    assert result.exit_code != 0
    assert message in (str(result.exception) + " ".join(result.output.split()))
    assert not (tmp_path / "run").exists()
