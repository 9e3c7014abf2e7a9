"""What a pretraining shows while it runs: errors and throughput, in the progress bar and in TensorBoard."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from openmm_gnn.learning.pretraining.noisy_batches import NoisyBatch

TENSORBOARD_FOLDER = "tensorboard"
_EVERY = 10
"""Steps between two points of the curves."""


class TrainingCurves(Callback):
    """Counts atoms and molecules per second, of all processes, and writes them beside the errors.

    The step of a point is the number of steps done, as in log.csv. Times include loading, but no validation.
    """

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}
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
        self.rates = {"atoms/s": self._atoms / seconds, "molecules/s": self._molecules / seconds}
        self._restart()
        error = float(trainer.callback_metrics["train_error"])
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        self._write(trainer, {"error/train": error, "learning_rate": rate, **self._named_rates()})

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

    def _named_rates(self) -> dict[str, float]:
        return {"throughput/" + name.replace("/s", "_per_s"): value for name, value in self.rates.items()}

    def _write(self, trainer: lightning.Trainer, values: dict[str, float]) -> None:
        if trainer.logger is not None:
            trainer.logger.log_metrics(values, step=trainer.global_step)


class PretrainingBar(RichProgressBar):
    """The progress bar, with atoms and molecules per second."""

    def __init__(self, curves: TrainingCurves) -> None:
        super().__init__()
        self._curves = curves

    def get_metrics(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What is shown beside the bar."""
        shown = super().get_metrics(trainer, module)
        shown.pop("v_num", None)
        return {**shown, **{name: round(value) for name, value in self._curves.rates.items()}}


def tensorboard_logger(directory: Path, checkpoint: Path) -> TensorBoardLogger:
    """Writes into `directory`/tensorboard; what a killed run wrote past its checkpoint is not shown twice."""
    done = 0
    if checkpoint.is_file():
        done = int(torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"])
    return TensorBoardLogger(
        directory, name=TENSORBOARD_FOLDER, version="", default_hp_metric=False, purge_step=done + 1
    )
