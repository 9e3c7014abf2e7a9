"""conformers and pretrain as a user types them; and the encoder that the package brings, made by them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import openmm.app
import pytest
import torch
from command_lines import invoke

from openmm_gnn.base.errors import DataError
from openmm_gnn.md.systems.peptides import Peptide, build_peptide
from openmm_gnn.networks.weights import load_encoder

MAKE = "conformers --molecules 4 --longest 2 --frames 2 --frame-time 0.1 --temperatures 300 --processes 1 --quiet"
SMALL = "--layers 1 --width 8 --radial 8 --cutoff 0.3 --steps 4 --validate-every 2 --hold-out 4 --quiet"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "peptides"
    result = invoke([*MAKE.split(), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "8 frames of 4 peptides" in result.output
    return out


def test_a_bundle_comes_out_that_load_encoder_reads(data: Path, tmp_path: Path) -> None:
    topology, positions = build_peptide(Peptide("GKA"), np.random.default_rng(0))
    with open(tmp_path / "gka.pdb", "w") as file:
        openmm.app.PDBFile.writeFile(topology, positions * openmm.unit.nanometer, file)
    first = ["pretrain", str(data), "--out", str(tmp_path / "run"), "--test", str(tmp_path / "gka.pdb")]
    result = invoke([*first, *SMALL.split()])
    assert result.exit_code == 0, result.output
    encoder = load_encoder(tmp_path / "run" / "model.safetensors")
    metadata = encoder.spec.metadata
    assert "on gka.pdb" in result.output and "on molecules held out" in result.output
    assert encoder.spec.elements[:3] == (6, 7, 8) and encoder.spec.noise_scale == 0.2
    assert metadata["data"]["training_molecules"] == 3 and metadata["data"]["validation_frames"] == 2
    assert metadata["validation"]["validation_error"] > 0
    assert 0.5 < metadata["denoising_error"]["gka.pdb"] < 1.2
    numbers = torch.tensor([6, 8, 7])
    assert encoder.predicted_noise(numbers, torch.randn(3, 3)).shape == (3, 3)
    again = [
        "pretrain",
        str(data),
        "--out",
        str(tmp_path / "next"),
        "--encoder",
        str(tmp_path / "run/model.safetensors"),
    ]
    result = invoke([*again, *SMALL.split()])
    assert result.exit_code == 0, result.output
    following = load_encoder(tmp_path / "next" / "model.safetensors")
    assert following.spec == encoder.spec
    assert following.spec.metadata["start"]["data"] == metadata["data"]
    # It went on from these weights: an encoder begun anew would be farther away than 4 small steps.
    moved = max(float((a - b).abs().max()) for a, b in zip(following.parameters(), encoder.parameters(), strict=True))
    assert 0 < moved < 1e-3


def test_structures_that_cannot_be_tested_are_named_before_the_training(data: Path, tmp_path: Path) -> None:
    villin = str(Path(openmm.app.__file__).parent / "data" / "test.pdb")  # methionine; these peptides have no sulphur
    result = invoke(["pretrain", str(data), "--out", str(tmp_path), "--test", villin, *SMALL.split()])
    assert "test.pdb: the encoder does not know the atomic numbers [16], it knows [6, 7, 8]" in str(result.exception)
    assert not (tmp_path / "model.safetensors").exists()


def test_an_encoder_that_does_not_know_the_elements_is_no_start(data: Path, tmp_path: Path) -> None:
    invoke(["pretrain", str(data), "--out", str(tmp_path), *SMALL.split()])
    start = ["--encoder", str(tmp_path / "model.safetensors"), "--out", str(tmp_path / "next")]
    result = invoke(["pretrain", str(data), *start, "--hydrogens", *SMALL.split()])
    assert "does not know the atomic numbers [1]" in str(result.exception)


def test_damaged_molecules_are_named_and_left_out_only_when_asked(data: Path, tmp_path: Path) -> None:
    damaged, other = tmp_path / "damaged", tmp_path / "other"
    shutil.copytree(data, damaged)
    made = invoke([*MAKE.split(), "--seed", "7", "--out", str(other)])
    assert made.exit_code == 0, made.output
    positions = damaged / "shards" / "000000000" / "positions.npy"
    content = bytearray(positions.read_bytes())
    content[-2] ^= 1  # in the last frame of the last molecule
    positions.write_bytes(content)
    command = ["pretrain", str(damaged), str(other), "--out", str(tmp_path / "run"), *SMALL.split()]
    result = invoke(command)
    assert isinstance(result.exception, DataError) and str(positions) in str(result.exception)
    result = invoke([*command, "--skip-bad"])
    assert result.exit_code == 0, result.output
    assert "left out 1 molecules" in result.output
    metadata = load_encoder(tmp_path / "run" / "model.safetensors").spec.metadata["data"]
    assert metadata["directory"] == ["damaged", "other"] and len(metadata["skipped"]) == 1
    assert metadata["training_molecules"] + metadata["validation_molecules"] == 7
