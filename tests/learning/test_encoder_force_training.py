"""Training of forces from an encoder: what learns, what stays, and what a pretrained one brings."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from argon_frames import MemoryTrajectory
from small_encoders import small_encoder
from torch import Tensor

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.specs.force import EncoderForceSpec
from openmm_gnn.learning.settings import TrainingSettings
from openmm_gnn.learning.training.force_matching import train_on_frames
from openmm_gnn.learning.training.frames import ForceErrorMeter, FrameDataset, predicted_forces
from openmm_gnn.networks.encoder_force import EncoderForce, encoder_force_spec
from openmm_gnn.networks.weights import load_model

NUMBERS = (6, 8, 1, 7)
REST_LENGTH_NM, STIFFNESS = 0.15, 5e3


def springs(num_frames: int, seed: int) -> MemoryTrajectory:
    """Four atoms, each bound to every other by a spring, near a tetrahedron: nm, kJ/mol/nm."""
    generator = np.random.default_rng(seed)
    tetrahedron = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * REST_LENGTH_NM / np.sqrt(8)
    positions = tetrahedron + generator.normal(scale=0.02, size=(num_frames, 4, 3))
    vectors = positions[:, None] - positions[:, :, None]
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True) + np.eye(4)[None, :, :, None]
    forces = (STIFFNESS * (1 - REST_LENGTH_NM / lengths) * vectors).sum(axis=2)
    return MemoryTrajectory(positions, forces, np.stack([np.eye(3) * 10.0] * num_frames))


def dataset(spec: EncoderForceSpec, seed: int, num_frames: int = 40) -> FrameDataset:
    species = torch.tensor([spec.elements.index(number) for number in NUMBERS])
    return FrameDataset([springs(num_frames, seed)], range(4), species, None, spec.neighbors.cutoff)


def make_spec(conservative: bool = False) -> EncoderForceSpec:
    return encoder_force_spec(small_encoder().spec, (1, 6, 7, 8), force_scale=200.0, conservative=conservative)


def settings(num_steps: int = 80, freeze: bool = False) -> TrainingSettings:
    return TrainingSettings(
        num_steps=num_steps,
        batch_size=8,
        learning_rate=5e-3,
        warmup_steps=10,
        validate_every=num_steps // 2,
        freeze_encoder=freeze,
    )


def last_row(directory: Path) -> dict[str, str]:
    with open(directory / "log.csv") as file:
        return list(csv.DictReader(file))[-1]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("conservative", [False, True], ids=["direct", "conservative"])
def test_forces_of_springs_are_learned_and_the_bundle_gives_the_validated_error(
    conservative: bool, tmp_path: Path
) -> None:
    spec = make_spec(conservative)
    held_out = dataset(spec, 2)
    bundle = train_on_frames(
        spec, dataset(spec, 1), held_out, settings(), tmp_path, progress=False, encoder=small_encoder()
    )
    model, meter = load_model(bundle), ForceErrorMeter()
    assert isinstance(model, EncoderForce) and model.spec == spec
    for index in range(len(held_out)):
        frame = held_out[index]
        meter.add(predicted_forces(model, frame), frame.forces)
    errors = meter.errors()
    assert errors.relative_error < 0.25  # of no forces at all: 0.5
    assert errors.mae == pytest.approx(float(last_row(tmp_path)["validation_mae"]), rel=1e-3)
    assert not conservative or errors.relative_net_force < 1e-5


def test_a_frozen_encoder_learns_the_new_elements_and_nothing_else(tmp_path: Path) -> None:
    spec, pretrained = make_spec(), small_encoder()
    data = dataset(spec, 1, 8)
    bundle = train_on_frames(spec, data, data, settings(6, freeze=True), tmp_path, progress=False, encoder=pretrained)
    model = load_model(bundle)
    assert isinstance(model, EncoderForce)
    before: dict[str, Tensor] = {
        name: weight for name, weight in pretrained.state_dict().items() if not name.startswith("noise_head")
    }
    after = model.encoder.state_dict()
    for name, weight in before.items():
        if name == "network.embedding.weight":
            assert torch.equal(after[name][6:9], weight[6:9])
            assert not torch.equal(after[name][1], weight[1])
        else:
            assert torch.equal(after[name], weight), name
    assert pretrained.noise_head is not None
    assert not torch.equal(model.head.blocks[0].kept.weight, pretrained.noise_head.first.kept.weight)  # type: ignore[union-attr]


def test_random_weights_are_not_frozen(tmp_path: Path) -> None:
    data = dataset(make_spec(), 1, 4)
    with pytest.raises(SpecError, match="random weights are to be frozen"):
        train_on_frames(make_spec(), data, data, settings(2, freeze=True), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_run_that_was_stopped_goes_on_after_its_last_step(tmp_path: Path) -> None:
    spec, encoder = make_spec(conservative=True), small_encoder()
    data = dataset(spec, 1, 8)
    short = TrainingSettings(num_steps=4, batch_size=8, warmup_steps=2, validate_every=2)
    longer = TrainingSettings(num_steps=6, batch_size=8, warmup_steps=2, validate_every=2)
    train_on_frames(spec, data, data, short, tmp_path, progress=False, encoder=encoder)
    train_on_frames(spec, data, data, longer, tmp_path, progress=False, encoder=encoder)
    with open(tmp_path / "log.csv") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [2, 4, 6]
