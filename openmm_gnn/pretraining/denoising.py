"""Pretraining of encoders by denoising, with Lightning: atoms are moved at random, the network says by how much.

Near the minima of the energy this is learning the forces: the noise that would lead back is their negative.

Source: Zaidi et al., "Pre-training via denoising for molecular property prediction", ICLR 2023, arXiv 2206.00133; noise
of 0.2 angstrom and AdamW with amsgrad: Pengmei et al., J. Chem. Phys. 162 (2025), arXiv 2409.19838.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from openmm_gnn.errors import DataError, NonFiniteError, SpecError
from openmm_gnn.models.encoder import Encoder
from openmm_gnn.models.encoder_files import save_encoder
from openmm_gnn.pretraining.conformations import Molecule
from openmm_gnn.pretraining.noisy_frames import (
    MoleculeBatch,
    MoleculeFrames,
    collate,
    noise_scale_of,
    standard_noise,
)
from openmm_gnn.spec import EncoderSpec, encoder_spec_from_json, spec_to_json
from openmm_gnn.training.force_matching import BestBundle
from openmm_gnn.training.schedule import rise_and_cosine
from openmm_gnn.training.step_order import StepOrder

_VALIDATION_SEED = 2**31
"""Of the noise on held-out molecules, the same at every validation."""


@dataclass(frozen=True)
class DenoisingSettings:
    """How to pretrain; everything about the network itself is in its spec."""

    num_steps: int = 8000
    batch_size: int = 16
    """Molecules per step."""
    learning_rate: float = 5e-4
    """Highest of the schedule: a linear rise, then half a cosine down to zero."""
    warmup_steps: int = 200
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    average_decay: float = 0.999
    """Of the exponential moving average of the weights, which is what is validated and kept."""
    hydrogens: bool = False
    validate_every: int = 250
    """Steps; also between checkpoints, which a kill costs at most."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.validate_every < 1 or self.num_steps % self.validate_every:
            raise SpecError(
                f"{self.num_steps} steps with a validation every {self.validate_every}: give a multiple, so that the "
                "last step is validated"
            )
        if not 0 <= self.average_decay < 1:
            raise SpecError(f"the decay of the average is {self.average_decay}: give 0 (none) or more, below 1")


class DenoisingErrorMeter:
    """sum |predicted - noise|^2 / sum |noise|^2, a share of the mean square: 0 is perfect, 1.0 has learned nothing."""

    def __init__(self) -> None:
        self.squared_error, self.squared_noise = 0.0, 0.0

    def add(self, predicted: Tensor, noise: Tensor) -> None:
        """Both (N, 3), in the same unit."""
        self.squared_error += float((predicted - noise).double().square().sum())
        self.squared_noise += float(noise.double().square().sum())

    @property
    def error(self) -> float:
        return self.squared_error / self.squared_noise


def denoising_error(
    encoder: Encoder, molecules: Sequence[tuple[Tensor, Tensor]], noise_scale: float, seed: int = 0
) -> float:
    """How well the denoising head sees noise it has not seen: 1.0 is what predicting no noise at all gets.

    The mean displacement of a molecule cannot be seen by a network that ignores translation: of N atoms, at least 1 / N
    remains, whatever the network.

    Args:
        molecules: atomic numbers (N,) and positions (N, 3) in the encoder's length unit, one molecule each.
        noise_scale: standard deviation of a component, in the same unit.
    """
    meter = DenoisingErrorMeter()
    with torch.no_grad():
        for k, (atomic_numbers, positions) in enumerate(molecules):
            noise = noise_scale * standard_noise(len(positions), seed, k).to(positions)
            meter.add(encoder.predicted_noise(atomic_numbers, positions + noise), noise)
    return meter.error


class Denoising(lightning.LightningModule):
    """An encoder with the loss mean |predicted - noise|^2, both in units of the noise scale."""

    def __init__(self, encoder: Encoder, settings: DenoisingSettings) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = encoder
        self.noise_scale = noise_scale_of(encoder.spec)
        self.average = AveragedModel(encoder, avg_fn=self._averaged)
        self.meter = DenoisingErrorMeter()

    def _averaged(self, average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        """The moving average; shorter in the beginning, so that it forgets the random weights it began with."""
        decay = min(self.settings.average_decay, (1 + float(count)) / (10 + float(count)))
        return torch.lerp(current, average, decay)

    @property
    def best_weights(self) -> Encoder:
        """The encoder with the averaged weights."""
        encoder = self.average.module
        assert isinstance(encoder, Encoder)
        return encoder

    def forward(self, encoder: Encoder, molecules: MoleculeBatch, noise: Tensor) -> Tensor:
        """(N, 3) the standardised noise that the encoder sees after this standardised noise was added."""
        positions = molecules.positions + self.noise_scale * noise
        return encoder.predicted_noise(molecules.atomic_numbers, positions, molecules.batch) / self.noise_scale

    def training_step(self, molecules: MoleculeBatch, _: int) -> Tensor:
        noise = standard_noise(len(molecules.positions), self.settings.seed, self.global_step).to(molecules.positions)
        loss = (self(self.encoder, molecules, noise) - noise).square().mean()
        self.log("train_error", loss.detach(), prog_bar=True, batch_size=int(molecules.batch[-1]) + 1)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        self.average.update_parameters(self.encoder)

    def on_validation_epoch_start(self) -> None:
        self.meter = DenoisingErrorMeter()

    def validation_step(self, molecules: MoleculeBatch, number: int) -> None:
        noise = standard_noise(len(molecules.positions), _VALIDATION_SEED, number).to(molecules.positions)
        self.meter.add(self(self.best_weights, molecules, noise), noise)

    def on_validation_epoch_end(self) -> None:
        self.log("validation_error", self.meter.error, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        settings = self.settings
        optimizer = torch.optim.AdamW(
            self.encoder.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, amsgrad=True
        )
        scheduler = rise_and_cosine(optimizer, settings.warmup_steps, settings.num_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["spec_json"] = spec_to_json(self.encoder.spec)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if encoder_spec_from_json(checkpoint["spec_json"]) != self.encoder.spec:
            raise DataError("the checkpoint belongs to another encoder: give the same options, or another --out")


class BestEncoder(BestBundle):
    """Keeps the averaged weights with the lowest error on held-out molecules; refuses to go on with other data."""

    COLUMNS = ("step", "train_error", "validation_error")
    CRITERION = "validation_error"

    def save(self, module: lightning.LightningModule, metadata: dict[str, Any]) -> None:
        assert isinstance(module, Denoising)
        save_encoder(module.best_weights, self.bundle, metadata)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "data": self._data}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["data"] != self._data:
            raise DataError("the checkpoint was trained on other data: give the same data, or another --out")
        super().load_state_dict(state_dict)

    @property
    def _data(self) -> str:
        return str(self.provenance.get("data", {}).get("sha256", ""))


def pretrain(
    spec: EncoderSpec,
    training: Sequence[Molecule],
    validation: Sequence[Molecule],
    settings: DenoisingSettings,
    directory: str | os.PathLike[str],
    progress: bool = True,
    provenance: dict[str, Any] | None = None,
    start: Encoder | None = None,
) -> Path:
    """Train an encoder and return the path of its bundle, the best by the error on held-out molecules.

    `provenance` (data with their sha256, command) goes into the bundle's metadata beside recipe and figures. A run that
    was killed goes on from its last checkpoint when called again with the same arguments, with the frames and the noise
    that it would have met. `start`: an encoder of this spec whose weights to begin with, in place of random ones.

    Raises:
        DataError: if there are no molecules, or the directory belongs to another encoder or other data.
        SpecError: if the spec has no noise scale, or is not that of `start`.
        NonFiniteError: if the training diverged before its first validation.
    """
    if start is not None and start.spec != spec:
        raise SpecError(f"the weights to start from belong to {start.spec}: give the same spec, now it is {spec}")
    for name, molecules in (("training", training), ("validation", validation)):
        if not molecules:
            raise DataError(f"the {name} set has no molecules: give more of them")
    if spec.noise_scale <= 0:
        raise SpecError("EncoderSpec.noise_scale is 0: give the standard deviation of the noise, such as 0.2 angstrom")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    lightning.seed_everything(settings.seed, verbose=False)
    encoder = Encoder(spec)
    if start is not None:
        encoder.load_state_dict(start.state_dict())
    module = Denoising(encoder, settings)
    best = BestEncoder(directory, {"recipe": asdict(settings), **(provenance or {})})
    checkpoints = ModelCheckpoint(
        directory, filename="last", every_n_epochs=1, save_on_train_epoch_end=True, enable_version_counter=False
    )
    callbacks: list[Callback] = [best, checkpoints]
    if progress:
        callbacks.append(RichProgressBar())
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=1,
        max_steps=settings.num_steps,
        num_sanity_val_steps=0,
        gradient_clip_val=settings.gradient_clip,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
    )
    frames = MoleculeFrames(training, settings.hydrogens, spec.length_unit)
    held_out = MoleculeFrames(validation, settings.hydrogens, spec.length_unit)
    order = StepOrder(len(frames), settings.batch_size, settings.validate_every, settings.seed)
    checkpoint = directory / "last.ckpt"
    trainer.fit(
        module,
        DataLoader(frames, batch_sampler=order, collate_fn=collate),
        DataLoader(held_out, settings.batch_size, collate_fn=collate),
        ckpt_path=str(checkpoint) if checkpoint.is_file() else None,
        weights_only=True,
    )
    if not best.bundle.is_file():
        raise NonFiniteError(
            f"the error on held-out molecules was never a finite number in {settings.num_steps} steps: lower the "
            f"learning rate, now {settings.learning_rate:g}"
        )
    return best.bundle
