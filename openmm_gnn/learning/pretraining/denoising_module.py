"""Pretraining by denoising for Lightning: data, loss, moving average, validation, progress bar and TensorBoard.

Noise of several scales: each molecule draws one, which the network does not see. The head predicts displacements in
units of `EncoderSpec.noise_scale`, whatever was drawn; the loss counts what is left of them in units of the scale that
was drawn. So nothing learned is 1.0 at every scale, and large noise does not outweigh small noise by its square.

Source: Zaidi et al., "Pre-training via denoising for molecular property prediction", ICLR 2023, arXiv 2206.00133; the
weight of each scale: Song and Ermon, "Generative modeling by estimating gradients of the data distribution", NeurIPS
2019, arXiv 1907.05600, eqs. (5) and (6), with a displacement of -sigma^2 times their score.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from openmm_gnn.base.errors import NonFiniteError, SpecError
from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.data.conformers.conformations import Molecules
from openmm_gnn.learning.pretraining.denoising_meter import ERROR, DenoisingErrorMeter
from openmm_gnn.learning.pretraining.noisy_frames import (
    VALIDATION_SEED,
    HeldOutShares,
    MoleculeFrames,
    NoisyBatch,
    NoisyFrames,
    StepShares,
    collate_noisy,
    noise_scale_of,
)
from openmm_gnn.learning.settings import DenoisingSettings, Hardware, Precision
from openmm_gnn.learning.step_order import AtomOrder, StepOrder
from openmm_gnn.learning.trainer import ResumableModule, checkpoint_in, identity_of
from openmm_gnn.networks.encoders.encoder import Encoder

TENSORBOARD_FOLDER = "tensorboard"
_EVERY = 10
"""Steps between two points of the curves."""


class DenoisingData(lightning.LightningDataModule):
    """Molecules to train on and molecules held out.

    Raises:
        SpecError: if a molecule is larger than a step may be, or a step has fewer molecules than there are processes.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        training: Molecules,
        validation: Molecules,
        settings: DenoisingSettings,
        hardware: Hardware,
    ) -> None:
        super().__init__()
        self.settings, self.hardware = settings, hardware
        self.scales = settings.noise_scales or (spec.noise_scale,)
        self.training = MoleculeFrames(training, settings.hydrogens, spec.length_unit)
        self.held_out = MoleculeFrames(validation, settings.hydrogens, spec.length_unit)
        self.set_names, self.set_of = sets_of(self.held_out)
        if settings.batch_atoms:
            self.order: StepOrder = AtomOrder(
                self.training.sizes, settings.batch_atoms, settings.validate_every, settings.seed
            )
        elif settings.batch_size < hardware.devices:
            raise SpecError(
                f"{hardware.devices} processes share {settings.batch_size} molecules per step: give at least one each"
            )
        else:
            self.order = StepOrder(len(self.training), settings.batch_size, settings.validate_every, settings.seed)

    def train_dataloader(self) -> DataLoader[NoisyBatch]:
        """This process's share of the steps."""
        trainer = self.trainer
        assert trainer is not None
        shares = StepShares(
            self.order, self.training, lambda: trainer.global_step, trainer.global_rank, trainer.world_size
        )
        return self._loader(NoisyFrames(self.training, self.scales, self.settings.seed), shares)

    def val_dataloader(self) -> DataLoader[NoisyBatch]:
        """This process's share of the held-out frames; which scale their noise has is for the validation to say."""
        trainer, settings = self.trainer, self.settings
        assert trainer is not None
        shares = HeldOutShares(
            self.held_out, settings.batch_size, settings.batch_atoms, trainer.global_rank, trainer.world_size
        )
        return self._loader(NoisyFrames(self.held_out, self.scales[:1], VALIDATION_SEED), shares)

    def _loader(self, frames: NoisyFrames, shares: StepShares | HeldOutShares) -> DataLoader[NoisyBatch]:
        workers = self.hardware.workers
        return DataLoader(
            frames,  # type: ignore[arg-type]
            batch_sampler=shares,
            collate_fn=collate_noisy,
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    def columns(self, scales: Sequence[float]) -> list[str]:
        """Names of the errors on held-out molecules: at the first scale; at each, of each set, where there are more."""
        return list(self.named_errors(DenoisingErrorMeter((len(scales), len(self.set_names))), scales))

    def named_errors(self, meter: DenoisingErrorMeter, scales: Sequence[float]) -> dict[str, float]:
        """The errors that a meter of shape (scales, sets) has found."""
        found = {ERROR: meter.error_at(0)}
        if len(scales) > 1:
            found |= {f"{ERROR}_at_{scale:g}": meter.error_at(k) for k, scale in enumerate(scales)}
        if len(self.set_names) > 1:
            names = [re.sub(r"[^\w.-]+", "_", name) for name in self.set_names]  # no commas in log.csv
            found |= {f"{ERROR}_of_{name}": meter.error_at(0, k) for k, name in enumerate(names)}
        return found


def sets_of(frames: MoleculeFrames) -> tuple[list[str], Tensor]:
    """Names of the directories that molecules come from, and (num_frames,) int64 which of them each frame is from."""
    directories = [molecule.shard.path.parents[1].name for molecule in frames.molecules]
    names = sorted(set(directories))
    number = {name: k for k, name in enumerate(names)}
    per_molecule = np.array([number[name] for name in directories], dtype=np.int64)
    return names, torch.from_numpy(np.repeat(per_molecule, frames.frames_per_molecule))


class Denoising(ResumableModule):
    """An encoder with the loss mean |predicted - noise|^2, both in units of the scale of the noise.

    `data_identity` distinguishes the data from others when a killed training continues, such as their sha256.
    """

    def __init__(self, encoder: Encoder, settings: DenoisingSettings, data_identity: str = "") -> None:
        super().__init__({"another encoder": identity_of(encoder.spec), "other data": data_identity})
        self.settings = settings
        self.encoder = encoder
        self.scales = scales_of(encoder.spec, settings)
        self.average = AveragedModel(encoder).requires_grad_(False)
        if settings.precision is not Precision.FLOAT32:
            self.encoder.network.use_compiled(False)  # that form computes in float32
        self.meter = DenoisingErrorMeter()
        # Neither belongs into checkpoints: the start is given anew with the settings, what is kept follows from it.
        self._start = {name: weight.detach().clone() for name, weight in encoder.named_parameters()}
        self._mixed = [copy.deepcopy(encoder).requires_grad_(False).eval()]

    def _average(self, averages: Any, weights: Any, count: Tensor | int) -> None:
        """The moving average; shorter in the beginning, so that it forgets the random weights it began with."""
        decay = min(self.settings.average_decay, (1 + float(count)) / (10 + float(count)))
        torch._foreach_lerp_(averages, weights, 1 - decay)

    @property
    def best_weights(self) -> Encoder:
        """The encoder with the averaged weights; with a share of the start's, as the last validation met it."""
        encoder = self._mixed[0] if self.settings.start_share else self.average.module
        assert isinstance(encoder, Encoder)
        return encoder

    def _mix(self) -> None:
        """Put the share of the start's weights to the averaged ones."""
        mixed, averages = self._mixed[0].to(self.device), dict(self.average.module.named_parameters())
        with torch.no_grad():
            for name, weight in mixed.named_parameters():
                weight.copy_(torch.lerp(averages[name], self._start[name].to(weight), self.settings.start_share))
        mixed.eval()  # its tables are those of other weights

    @property
    def data(self) -> DenoisingData:
        """What it is trained on."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, DenoisingData)
        return data

    def forward(self, encoder: Encoder, batch: NoisyBatch, scales: Tensor | float) -> Tensor:
        """(N, 3) the noise that the encoder sees, in units of its scale, after noise of these scales was added."""
        positions = batch.positions + scales * batch.noise
        return encoder.predicted_noise(batch.atomic_numbers, positions, batch.batch).float() / scales

    def training_step(self, batch: NoisyBatch, _: int) -> Tensor:
        residual = self(self.encoder, batch, batch.scales) - batch.noise
        # Gradients are averaged over the processes, and so is the loss: their weighted sums shall be summed.
        loss = residual.square().sum() * (batch.weight * self.trainer.world_size)
        if not bool(torch.isfinite(loss)):
            raise NonFiniteError(self._not_finite(residual, batch))
        self.log("train_error", loss.detach(), prog_bar=True, batch_size=1, logger=False, sync_dist=self._together)
        return loss

    def _not_finite(self, residual: Tensor, batch: NoisyBatch) -> str:
        """Which molecules' error it is."""
        broken = batch.batch[~torch.isfinite(residual).all(dim=1)].unique().tolist()
        names = [self.data.training.name(batch.frames[k]) for k in broken or range(len(batch.frames))]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        return (
            f"the error of step {self.global_step + 1} is not a finite number, that of {'; '.join(names[:5])}{more}: "
            f"lower the learning rate, now {self.settings.learning_rate:g}, or look at these molecules"
        )

    @property
    def _together(self) -> bool:
        return self.trainer.world_size > 1

    def on_train_batch_end(self, *_: Any) -> None:
        # Weights alone, not `update_parameters`: buffers are constants, or tables that each makes of its own weights.
        averages: list[Tensor] = list(self.average.module.parameters())
        weights: list[Tensor] = list(self.encoder.parameters())
        with torch.no_grad():
            if self.average.n_averaged == 0:
                torch._foreach_copy_(averages, weights)
            else:
                self._average(averages, weights, self.average.n_averaged)
            self.average.n_averaged += 1

    def on_validation_epoch_start(self) -> None:
        if self.settings.start_share:
            self._mix()
        self.meter = DenoisingErrorMeter((len(self.scales), len(self.data.set_names)))

    def validation_step(self, batch: NoisyBatch, _: int) -> None:
        sets = self.data.set_of[batch.frames].to(batch.batch.device).index_select(0, batch.batch)
        with torch.autocast(self.device.type, enabled=False):  # as the weights will be used
            for k, scale in enumerate(self.scales):
                self.meter.add(self(self.best_weights, batch, scale), batch.noise, k, sets)

    def on_validation_epoch_end(self) -> None:
        meter, sums = self.meter, self.meter.sums.to(self.device)
        meter.sums = self.trainer.strategy.reduce(sums, reduce_op="sum").cpu()
        for name, error in self.data.named_errors(meter, self.scales).items():
            self.log(name, error, prog_bar=name == ERROR, logger=False, sync_dist=self._together)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        settings = self.settings
        optimizer = torch.optim.AdamW(
            self.encoder.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, amsgrad=True
        )
        return self.scheduled(optimizer, settings.warmup_steps, settings.num_steps)


def scales_of(spec: EncoderSpec, settings: DenoisingSettings) -> tuple[float, ...]:
    """Noise scales of validations: the spec's, by which weights are chosen, and then the others trained on."""
    unit = noise_scale_of(spec)
    return (unit, *(scale for scale in settings.noise_scales if scale != unit))


class TrainingCurves(Callback):
    """Counts atoms and molecules per second, of all processes, and writes them beside the errors.

    The step of a point is the number of steps done, as in log.csv. Times include loading, but no validation.
    """

    def __init__(self) -> None:
        self._restart()

    def _restart(self) -> None:
        self._since, self._atoms, self._molecules = time.perf_counter(), 0, 0

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._restart()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: NoisyBatch, index: int
    ) -> None:
        self._atoms += batch.step_atoms
        self._molecules += batch.step_frames
        if trainer.global_step % _EVERY:
            return
        seconds = time.perf_counter() - self._since
        points = {
            "error/train": float(trainer.callback_metrics["train_error"]),
            "learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "throughput/atoms_per_s": self._atoms / seconds,
            "throughput/molecules_per_s": self._molecules / seconds,
        }
        module.log("atoms/s", round(points["throughput/atoms_per_s"]), prog_bar=True, logger=False, batch_size=1)
        self._write(trainer, points)
        self._restart()

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Errors on held-out molecules; all points are on the disk before the checkpoint of this step is."""
        errors = {
            f"error/{name.replace('validation_error', 'validation')}": float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("validation_error")
        }
        self._write(trainer, errors)
        if isinstance(trainer.logger, TensorBoardLogger):
            trainer.logger.experiment.flush()

    def _write(self, trainer: lightning.Trainer, values: dict[str, float]) -> None:
        if trainer.logger is not None:
            trainer.logger.log_metrics(values, step=trainer.global_step)


def tensorboard_logger(directory: Path) -> TensorBoardLogger:
    """Writes into `directory`/tensorboard; what a killed run wrote past its checkpoint is not shown twice."""
    done = int((checkpoint_in(directory) or {"global_step": 0})["global_step"])
    return TensorBoardLogger(
        directory, name=TENSORBOARD_FOLDER, version="", default_hp_metric=False, purge_step=done + 1
    )
