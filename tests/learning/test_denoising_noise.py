"""Noise of several scales, steps of so many atoms, and shares of processes that add up to the whole step."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec
from openmm_gnn.data.conformers.conformations import Split, join_conformations
from openmm_gnn.data.conformers.conformers import make_conformations
from openmm_gnn.data.conformers.settings import PeptideSettings
from openmm_gnn.learning.pretraining.denoising import pretrain_on_molecules
from openmm_gnn.learning.pretraining.denoising_meter import denoising_error
from openmm_gnn.learning.pretraining.denoising_module import DenoisingData
from openmm_gnn.learning.pretraining.noisy_frames import (
    MoleculeFrames,
    NoisyBatch,
    NoisyFrames,
    StepShares,
    collate_noisy,
    drawn_scale,
    fair_shares,
)
from openmm_gnn.learning.settings import DenoisingSettings, Hardware, Precision
from openmm_gnn.learning.step_order import AtomOrder, StepOrder
from openmm_gnn.networks.encoders.encoder import Encoder
from openmm_gnn.networks.weights import load_encoder

SPEC = EncoderSpec(
    Architecture.TORCHMD_ET,
    num_layers=2,
    cutoff=4.0,
    width=16,
    num_radial=16,
    num_heads=4,
    max_atomic_number=16,
    elements=(6, 7, 8, 16),
    noise_scale=0.2,
)
SCALES = (0.05, 0.2, 0.4)
SHORT = DenoisingSettings(
    num_steps=120, batch_size=6, learning_rate=2e-2, warmup_steps=10, average_decay=0.95, validate_every=60
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = PeptideSettings(longest=4, temperatures=(300.0,), frames=4, interval_ps=0.1)
    return make_conformations(tmp_path_factory.mktemp("data") / "pep, tides", 8, settings, 1, progress=False).path


@pytest.fixture(scope="module")
def split(folder: Path) -> Split:
    return join_conformations([folder]).split(4)


@pytest.fixture(scope="module")
def frames(split: Split) -> MoleculeFrames:
    return MoleculeFrames(split.training, False, "angstrom")


def last_row(directory: Path) -> dict[str, float]:
    with open(directory / "log.csv") as file:
        return {name: float(value) for name, value in list(csv.DictReader(file))[-1].items()}


def test_each_scale_is_drawn_as_often_and_repeats_for_its_place() -> None:
    drawn = [drawn_scale(SCALES, seed=1, step=step, place=place) for step in range(300) for place in range(4)]
    for scale in SCALES:
        assert drawn.count(scale) / 1200 == pytest.approx(1 / 3, abs=0.05)
    assert drawn[7 * 4 + 2] == drawn_scale(SCALES, seed=1, step=7, place=2)
    assert drawn != [drawn_scale(SCALES, seed=2, step=step, place=place) for step in range(300) for place in range(4)]


def test_every_scale_is_learned_and_told(split: Split, tmp_path: Path) -> None:
    settings = dataclasses.replace(SHORT, noise_scales=SCALES)
    encoder = load_encoder(pretrain_on_molecules(SPEC, *split, settings, tmp_path, progress=False))
    row = last_row(tmp_path)
    assert row["validation_error"] == row["validation_error_at_0.2"] < 0.9
    assert row["validation_error_at_0.4"] < 1.0
    assert row["validation_error_at_0.05"] < 1.0  # what has only met 0.2 is at 1.3
    held_out = MoleculeFrames(split.validation, False, "angstrom")
    molecules = [held_out[k] for k in range(len(held_out))]
    for scale in SCALES:  # the same molecules, other noise, and displacements in angstrom whatever the scale
        assert denoising_error(encoder, molecules, scale) == pytest.approx(row[f"validation_error_at_{scale}"], abs=0.2)


def test_nothing_learned_is_one_at_every_scale(split: Split, frames: MoleculeFrames) -> None:
    draws = StepShares(StepOrder(len(frames), 12, 1, 0), frames, lambda: 0).share_of(0)
    batch = collate_noisy([NoisyFrames(frames, SCALES, 0)[draw] for draw in draws])
    assert set(batch.scales.flatten().tolist()) == set(torch.tensor(SCALES).tolist())
    for k in range(12):  # alike within a molecule
        assert batch.scales[batch.batch == k].unique().numel() == 1
    assert float(batch.noise.square().sum()) * batch.weight == pytest.approx(1.0, abs=0.1)


def test_steps_of_so_many_atoms_hold_every_frame_once_and_no_more_atoms(frames: MoleculeFrames) -> None:
    sizes = frames.sizes
    assert sizes.tolist() == [len(frames[k][0]) for k in range(len(frames))]
    most = int(sizes.max()) + 20
    order = AtomOrder(sizes, most, 5, seed=3)
    met: list[int] = []
    steps = 0
    while len(met) < 3 * len(sizes):
        step = order.frames_of(steps)
        assert 0 < sizes[step].sum() <= most
        met += step
        steps += 1
    for k in range(3):
        assert sorted(met[k * len(sizes) : (k + 1) * len(sizes)]) == list(range(len(sizes)))
    again = AtomOrder(sizes, most, 7, seed=3)
    assert again.frames_of(steps - 1) == order.frames_of(steps - 1)
    assert again.frames_of(2) == order.frames_of(2)  # backwards too
    with pytest.raises(SpecError, match=rf"has {sizes.max()} atoms, a step at most 3: allow at least {sizes.max()}"):
        AtomOrder(sizes, 3, 5, seed=3)


def test_a_training_by_atoms_learns_and_repeats(split: Split, tmp_path: Path) -> None:
    settings = dataclasses.replace(SHORT, batch_atoms=80, num_steps=20, validate_every=10)
    for name in ("one", "two"):
        pretrain_on_molecules(
            SPEC, *split, settings, tmp_path / name, progress=False, hardware=Hardware(workers=2 * (name == "two"))
        )
    one, two = (load_encoder(tmp_path / name / "model.safetensors").state_dict() for name in ("one", "two"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())  # whoever loads the frames


@pytest.mark.parametrize("num_processes", [2, 3, 40])
def test_shares_of_processes_add_up_to_the_step(frames: MoleculeFrames, num_processes: int) -> None:
    order, encoder = StepOrder(len(frames), 7, 5, seed=0), Encoder(SPEC)
    source = NoisyFrames(frames, SCALES, seed=0)

    def weighted_sum(batch: NoisyBatch) -> torch.Tensor:
        moved = batch.positions + batch.scales * batch.noise
        predicted = encoder.predicted_noise(batch.atomic_numbers, moved, batch.batch)
        return (predicted / batch.scales - batch.noise).square().sum() * batch.weight

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(encoder.parameters()))])

    whole = collate_noisy([source[draw] for draw in StepShares(order, frames, lambda: 0).share_of(3)])
    everyone = [StepShares(order, frames, lambda: 0, rank, num_processes) for rank in range(num_processes)]
    parts = [collate_noisy([source[draw] for draw in one.share_of(3)]) for one in everyone]
    assert sum(len(part.frames) for part in parts if part.weight) == len(whole.frames) == parts[0].step_frames
    assert parts[0].step_atoms == len(whole.noise)
    losses = [weighted_sum(part) for part in parts]
    assert float(sum(losses)) == pytest.approx(float(weighted_sum(whole)), rel=1e-5)
    together = gradient(torch.stack(losses).sum())
    alone = gradient(weighted_sum(whole))
    assert torch.allclose(together, alone, atol=1e-5 * float(alone.norm()))


def test_shares_have_about_as_many_atoms() -> None:
    sizes = np.array([300, 40, 41, 42, 80, 90])
    shares = fair_shares(sizes, 2)
    assert sorted(shares[0] + shares[1]) == list(range(6))
    assert [int(sizes[share].sum()) for share in shares] == [300, 293]


@pytest.mark.parametrize("architecture", list(Architecture))
@pytest.mark.parametrize("layers", [1, 2])
def test_every_weight_is_reached_by_the_loss(architecture: Architecture, layers: int) -> None:
    encoder = Encoder(dataclasses.replace(SPEC, architecture=architecture, num_layers=layers))
    encoder.predicted_noise(torch.full((9,), 6), 2 * torch.randn(9, 3)).square().sum().backward()
    assert [name for name, weight in encoder.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize("architecture", list(Architecture))
def test_bfloat16_rounds_what_is_predicted_but_no_edges(architecture: Architecture, frames: MoleculeFrames) -> None:
    encoder = Encoder(dataclasses.replace(SPEC, architecture=architecture))
    numbers, positions = frames[0]
    with torch.no_grad():
        exact, edges = encoder.predicted_noise(numbers, positions), encoder.edges(positions)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded, rounded_edges = encoder.predicted_noise(numbers, positions), encoder.edges(positions)
    assert all(torch.equal(one, other) for one, other in zip(edges, rounded_edges, strict=True))
    assert rounded.dtype is torch.bfloat16
    assert 0 < (rounded.float() - exact).norm() / exact.norm() < 0.05


def test_bfloat16_training_keeps_float32_weights_and_learns_as_much(split: Split, tmp_path: Path) -> None:
    errors = {}
    for precision in Precision:
        directory = tmp_path / precision.value
        settings = dataclasses.replace(SHORT, num_steps=60, batch_size=4, precision=precision)
        bundle = pretrain_on_molecules(SPEC, *split, settings, directory, progress=False)
        errors[precision] = last_row(directory)["validation_error"]
    encoder = load_encoder(bundle)
    assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}
    assert any(not torch.equal(weight, weight.bfloat16().float()) for weight in encoder.parameters())
    assert encoder.spec.metadata["recipe"]["precision"] == "bf16-mixed"
    assert errors[Precision.BFLOAT16_MIXED] != errors[Precision.FLOAT32]
    assert errors[Precision.BFLOAT16_MIXED] == pytest.approx(errors[Precision.FLOAT32], abs=0.05)


def test_sets_are_told_apart(folder: Path, tmp_path: Path) -> None:
    settings = PeptideSettings(longest=2, temperatures=(300.0,), frames=2, interval_ps=0.1, seed=5)
    other = make_conformations(tmp_path / "more", 8, settings, 1, progress=False).path
    split = join_conformations([folder, other]).split(4)
    recipe = dataclasses.replace(SHORT, num_steps=2, validate_every=2)
    pretrain_on_molecules(SPEC, *split, recipe, tmp_path / "run", progress=False)
    row = last_row(tmp_path / "run")
    low, high = sorted((row["validation_error_of_more"], row["validation_error_of_pep_tides"]))
    assert low < row["validation_error"] < high


def test_nonsense_is_refused(split: Split) -> None:
    for wrong, words in (
        ({"noise_scales": (0.2, -1.0)}, "give finite lengths above 0"),
        ({"noise_scales": (0.2, 0.2)}, "give each once"),
        ({"precision": "16"}, "precision is '16': give one of 32, bf16-mixed"),
        ({"batch_size": 0}, "batch_size is 0: give a whole number, 1 or more"),
    ):
        with pytest.raises(SpecError, match=words):
            DenoisingSettings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="devices is 0"):
        Hardware(devices=0)
    with pytest.raises(SpecError, match="7 processes share 6 molecules per step"):
        DenoisingData(SPEC, *split, SHORT, Hardware(devices=7))
