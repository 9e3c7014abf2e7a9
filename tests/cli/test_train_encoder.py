"""Forces from a pretrained encoder as a user makes them: label, train, evaluate, export, simulate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_lines import invoke
from small_encoders import small_encoder

from openmm_gnn.networks.encoder_force import EncoderForce
from openmm_gnn.networks.weights import load_model, save_network

SMALL = "--network encoder --steps 4 --batch-size 2 --validate-every 2 --quiet --validation-seeds 2"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("labels") / "peptide"
    options = "--seeds 1-2 --frames 3 --stride 5 --equilibration 0.02 --processes 1 --quiet"
    result = invoke(["label", "alanine-dipeptide", *options.split(), "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def bundle(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("network")
    encoder = save_network(small_encoder(), out / "encoder.safetensors", {"pretrained": "on nothing"})
    command = ["train", str(data), "--out", str(out), "--train-seeds", "1", "--encoder", str(encoder), "--freeze"]
    result = invoke([*command, "--remove-net-force", *SMALL.split()])
    assert result.exit_code == 0, result.output
    return out / "model.safetensors"


def test_the_bundle_says_which_encoder_it_began_with(bundle: Path) -> None:
    model = load_model(bundle)
    assert isinstance(model, EncoderForce)
    assert model.spec.elements == (1, 6, 7, 8) and model.spec.remove_net_force
    assert model.spec.metadata["encoder"]["metadata"] == {"pretrained": "on nothing"}
    assert model.spec.metadata["encoder"]["frozen"] is True
    assert model.spec.metadata["training_distribution"]["num_frames"] == 3


@pytest.mark.slow
def test_it_is_evaluated_exported_and_simulated_as_any_other(bundle: Path, data: Path, tmp_path: Path) -> None:
    exported = tmp_path / "peptide.pt"
    result = invoke(["export", str(bundle), "alanine-dipeptide", "--out", str(exported)])
    assert result.exit_code == 0, result.output
    errors = []
    for path in (bundle, exported):
        result = invoke(["evaluate", str(path), str(data), "--seeds", "2", "--json"])
        assert result.exit_code == 0, result.output
        errors.append(json.loads(result.stdout))
    assert errors[0] == errors[1]
    assert errors[0]["relative_net_force"] < 1e-5
    options = "--steps 10 --stride 5 --time-step 0.5 --equilibration 0 --threads 1 --quiet"
    result = invoke(
        [
            *("simulate", "alanine-dipeptide", "--model", str(bundle), "--out", str(tmp_path / "run")),
            *options.split(),
        ],
    )
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--network", "encoder"], "--network encoder and --encoder NAME go together"),
        (["--encoder", "peptide-et"], "--network encoder and --encoder NAME go together"),
        (["--network", "encoder", "--encoder", "nobody"], "give one of the shipped names"),
        (["--network", "encoder", "--encoder", "peptide-et", "--freeze", "--random-weights"], "are to be frozen"),
    ],
)
def test_wrong_options_are_refused_before_training(
    data: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    seeds = ["--train-seeds", "1", "--validation-seeds", "2"]
    result = invoke(["train", str(data), "--out", str(tmp_path / "run"), *seeds, *options])
    assert result.exit_code != 0
    assert message in (str(result.exception) + " ".join(result.output.replace("│", "").split()))
    assert not (tmp_path / "run").exists()
