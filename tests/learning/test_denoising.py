"""Denoising: the noise has the right scale and sign, held-out molecules are denoised, a killed run repeats itself."""

from __future__ import annotations

import csv
import dataclasses
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import ClassVar

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from openmm_gnn.base.errors import DataError, NonFiniteError, SpecError
from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec
from openmm_gnn.data.conformers.conformations import Conformations, Split
from openmm_gnn.data.conformers.conformers import make_conformations
from openmm_gnn.data.conformers.settings import PeptideSettings
from openmm_gnn.learning.pretraining.denoising import pretrain_on_molecules
from openmm_gnn.learning.pretraining.denoising_meter import denoising_error
from openmm_gnn.learning.pretraining.denoising_module import Denoising, DenoisingData
from openmm_gnn.learning.pretraining.noisy_frames import MoleculeFrames, NoisyBatch, collate, standard_noise
from openmm_gnn.learning.settings import DenoisingSettings, Hardware
from openmm_gnn.learning.step_order import StepOrder
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
SHORT = DenoisingSettings(
    num_steps=240, batch_size=6, learning_rate=2e-2, warmup_steps=20, average_decay=0.95, validate_every=60
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    settings = PeptideSettings(longest=3, temperatures=(300.0,), frames=4, interval_ps=0.1)
    data = make_conformations(tmp_path_factory.mktemp("peptides"), 10, settings, processes=1, progress=False)
    assert isinstance(data, Conformations)
    return data.split(5)


@pytest.fixture(scope="module")
def trained(split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return pretrain_on_molecules(
        SPEC, *split, SHORT, tmp_path_factory.mktemp("run"), progress=False, metadata={"command": "x"}
    )


def rows_of(directory: Path) -> list[dict[str, str]]:
    with open(directory / "log.csv") as file:
        return list(csv.DictReader(file))


def test_held_out_molecules_are_denoised(trained: Path, split: Split) -> None:
    errors = [float(row["validation_error"]) for row in rows_of(trained.parent)]
    assert [int(row["step"]) for row in rows_of(trained.parent)] == [60, 120, 180, 240]
    assert errors[-1] < 0.7 < errors[0] < 1.05
    encoder = load_encoder(trained)
    assert encoder.spec == SPEC
    assert encoder.spec.metadata["validation"]["validation_error"] == pytest.approx(min(errors), rel=1e-4)
    assert encoder.spec.metadata["recipe"]["learning_rate"] == 2e-2
    held_out = MoleculeFrames(split.validation, False, "angstrom")
    frames = [held_out[k] for k in range(len(held_out))]
    assert denoising_error(encoder, frames, 0.2) == pytest.approx(min(errors), abs=0.15)  # other noise, same molecules
    assert denoising_error(Encoder(SPEC).eval(), frames, 0.2) > 0.8


def test_what_the_denoiser_sees_taken_away_brings_atoms_back(trained: Path, split: Split) -> None:
    encoder = load_encoder(trained)
    numbers, positions = MoleculeFrames(split.validation, False, "angstrom")[0]
    noise = 0.2 * torch.randn(positions.shape)
    with torch.no_grad():
        back = positions + noise - encoder.predicted_noise(numbers, positions + noise)
    assert (back - positions).square().mean() < 0.75 * noise.square().mean()
    with torch.no_grad():  # of the force field's own frames there is little to take away
        assert encoder.predicted_noise(numbers, positions).square().mean() < 0.5 * noise.square().mean()


def test_the_error_is_one_for_nothing_learned_and_zero_for_perfection() -> None:
    class Says(Encoder):
        def predicted_noise(self, atomic_numbers, positions, batch=None, box_vectors=None):  # type: ignore[no-untyped-def]
            return positions * self.gain

    says = Says(SPEC)
    origin = [(torch.full((500,), 6), torch.zeros(500, 3))]  # positions are then the noise itself
    for gain, expected in ((0.0, 1.0), (1.0, 0.0), (-1.0, 4.0), (0.5, 0.25)):
        says.gain = gain
        assert denoising_error(says, origin, 0.2) == pytest.approx(expected, abs=1e-6)


def test_noise_is_standard_and_repeats_for_its_step() -> None:
    noise = standard_noise(20000, seed=1, step=7)
    assert noise.std().item() == pytest.approx(1.0, abs=0.01)
    assert noise.mean().abs().item() < 0.01
    assert torch.equal(noise, standard_noise(20000, seed=1, step=7))
    for other in (standard_noise(20000, 1, 8), standard_noise(20000, 2, 7)):
        assert abs(float((noise * other).mean())) < 0.02


def test_every_frame_comes_once_in_each_order() -> None:
    order = StepOrder(num_frames=10, batch_size=4, steps_per_epoch=5, seed=3)
    flat = [frame for step in range(10) for frame in order.frames_of(step)]
    orders = [flat[k : k + 10] for k in range(0, 40, 10)]
    assert all(sorted(frames) == list(range(10)) for frames in orders)
    assert len({tuple(frames) for frames in orders}) == 4
    assert StepOrder(num_frames=10, batch_size=4, steps_per_epoch=3, seed=3).frames_of(7) == order.frames_of(7)
    assert len(order) == 5


def test_every_step_meets_its_own_frames_also_after_a_restart(split: Split, tmp_path: Path) -> None:
    class Listens(Denoising):
        met: ClassVar[list[list[int]]] = []

        def training_step(self, batch: NoisyBatch, number: int) -> torch.Tensor:
            self.met.append(batch.frames)
            return super().training_step(batch, number)

    settings = dataclasses.replace(SHORT, num_steps=12, validate_every=3)
    data = DenoisingData(SPEC, *split, settings, Hardware())
    for steps in (6, 12):
        checkpoints = ModelCheckpoint(tmp_path, filename="last", every_n_epochs=1, save_on_train_epoch_end=True)
        trainer = lightning.Trainer(
            accelerator="cpu", max_steps=steps, logger=False, callbacks=[checkpoints], enable_progress_bar=False
        )
        checkpoint = tmp_path / "last.ckpt"
        trainer.fit(
            Listens(Encoder(SPEC), settings), datamodule=data, ckpt_path=checkpoint if checkpoint.is_file() else None
        )
    assert Listens.met == [data.order.frames_of(step) for step in range(12)]
    assert len({tuple(frames) for frames in Listens.met}) == 12


def test_frames_are_in_the_encoders_unit_without_hydrogens(split: Split) -> None:
    molecule = split.training[0]
    heavy = molecule.atomic_numbers != 1
    numbers, positions = MoleculeFrames(split.training[:1], False, "angstrom")[2]
    assert numbers.tolist() == molecule.atomic_numbers[heavy].tolist()
    np.testing.assert_allclose(positions.numpy(), 10 * molecule.positions[2][heavy], rtol=1e-6)
    numbers, positions = MoleculeFrames(split.training[:1], True, "nanometer")[2]
    np.testing.assert_allclose(positions.numpy(), molecule.positions[2])
    _, together, molecule_of = collate([(numbers, positions), (numbers[:3], positions[:3])])
    assert molecule_of.tolist() == [0] * len(numbers) + [1] * 3
    assert torch.equal(together[-3:], positions[:3])


def _run(split: Split, directory: Path) -> None:
    torch.set_num_threads(1)
    settings = dataclasses.replace(SHORT, num_steps=60, validate_every=6)
    pretrain_on_molecules(SPEC, *split, settings, directory, progress=False)


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_one_never_killed(split: Split, tmp_path: Path) -> None:
    _run(split, tmp_path / "whole")
    context, kills = multiprocessing.get_context("fork"), 0
    for rows in (1, 4, 7):
        process = context.Process(target=_run, args=(split, tmp_path / "killed"))
        process.start()
        log, deadline = tmp_path / "killed" / "log.csv", time.monotonic() + 60
        while process.is_alive() and time.monotonic() < deadline:
            if log.exists() and len(log.read_text().splitlines()) > rows + 1:
                os.kill(process.pid or 0, signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.002)
        process.join()
    assert kills == 3
    _run(split, tmp_path / "killed")
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")
    first, second = (load_encoder(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


def test_a_training_that_diverges_says_so_and_leaves_no_bundle(split: Split, tmp_path: Path) -> None:
    wild = dataclasses.replace(SHORT, num_steps=6, validate_every=3, learning_rate=1e30, warmup_steps=1)
    with pytest.raises(NonFiniteError, match=r"error of step 2 is not .*, frame .* the learning rate, now 1e\+30"):
        pretrain_on_molecules(SPEC, *split, wild, tmp_path, progress=False)
    assert not (tmp_path / "model.safetensors").exists()


def test_another_encoder_other_data_and_nonsense_are_refused(trained: Path, split: Split, tmp_path: Path) -> None:
    other = dataclasses.replace(SPEC, width=8)
    with pytest.raises(DataError, match="another encoder"):
        pretrain_on_molecules(other, *split, SHORT, trained.parent, progress=False)
    with pytest.raises(DataError, match="other data"):
        pretrain_on_molecules(SPEC, *split, SHORT, trained.parent, progress=False, metadata={"data": {"sha256": "abc"}})
    with pytest.raises(DataError, match="validation set has no molecules"):
        pretrain_on_molecules(SPEC, split.training, split.validation[:0], SHORT, tmp_path, progress=False)
    with pytest.raises(SpecError, match=r"noise_scale is 0"):
        pretrain_on_molecules(dataclasses.replace(SPEC, noise_scale=0.0), *split, SHORT, tmp_path, progress=False)
    with pytest.raises(SpecError, match="100 steps with a validation every 30"):
        DenoisingSettings(num_steps=100, validate_every=30)


def test_half_of_the_start_is_kept_where_asked_for(trained: Path, split: Split, tmp_path: Path) -> None:
    start = load_encoder(trained)
    once = dataclasses.replace(SHORT, num_steps=20, validate_every=20, learning_rate=5e-3, seed=3)
    kept = {}
    for share in (0.0, 0.5, 1.0):
        settings = dataclasses.replace(once, start_share=share)
        bundle = pretrain_on_molecules(SPEC, *split, settings, tmp_path / str(share), progress=False, start=start)
        kept[share] = dict(load_encoder(bundle).named_parameters())
        validated = float(rows_of(tmp_path / str(share))[-1]["validation_error"])
        assert load_encoder(bundle).spec.metadata["validation"]["validation_error"] == pytest.approx(
            validated, rel=1e-4
        )
    before = dict(start.named_parameters())
    assert any(not torch.equal(kept[0.0][name], weight) for name, weight in before.items())
    for name, weight in before.items():
        assert torch.equal(kept[1.0][name], weight)
        torch.testing.assert_close(kept[0.5][name], (kept[0.0][name] + weight) / 2, rtol=1e-6, atol=1e-7)


def test_a_share_of_no_start_is_refused(split: Split, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="there is no start"):
        pretrain_on_molecules(SPEC, *split, dataclasses.replace(SHORT, start_share=0.5), tmp_path, progress=False)
    with pytest.raises(SpecError, match="give 0 to 1"):
        dataclasses.replace(SHORT, start_share=1.5)
