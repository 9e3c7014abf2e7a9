"""The best weights of a training, kept on disk with a table of every validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from openmm_gnn.base.errors import NonFiniteError
from openmm_gnn.base.files import write_atomically

BUNDLE, LOG = "model.safetensors", "log.csv"
"""The files of a training's directory that a user reads."""


class BestWeights(Callback):
    """Saves the weights whenever a validation is the best so far, and writes a row of figures after each.

    The best value is kept in the checkpoint; rows past the restored step are dropped, so a killed run leaves no row
    twice. If several processes train together, the first one writes.

    Args:
        directory: where `model.safetensors` and `log.csv` are written.
        columns: names of the logged figures, in the order of the table.
        save: writes the weights: called with a path and the metadata, which hold step and figures of the validation.
        metadata: what the weights are saved with, besides.
        criterion: the column that decides.
        highest: whether the highest value is the best; otherwise the lowest is.
    """

    def __init__(
        self,
        directory: Path,
        columns: Sequence[str],
        save: Callable[[Path, dict[str, Any]], object],
        metadata: dict[str, Any],
        criterion: str,
        highest: bool = False,
    ) -> None:
        self.columns, self.criterion, self.highest = tuple(columns), criterion, highest
        self.save, self.metadata = save, metadata
        self.bundle, self.log_file = directory / BUNDLE, directory / LOG
        self.best = -math.inf if highest else math.inf

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        rows = self.log_file.read_text().splitlines()[1:] if self.log_file.is_file() else []
        kept = [row for row in rows if row.count(",") == len(self.columns)]
        kept = [row for row in kept if int(row.split(",")[0]) <= trainer.global_step]
        write_atomically(self.log_file, ("\n".join([",".join(["step", *self.columns]), *kept]) + "\n").encode())

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        values = {name: float(trainer.callback_metrics[name]) for name in self.columns}
        with open(self.log_file, "a") as file:  # all digits: the best value is compared with that of restored weights
            file.write(",".join([str(trainer.global_step), *(repr(value) for value in values.values())]) + "\n")
        value = values[self.criterion]
        if value > self.best if self.highest else value < self.best:
            self.best = value
            self.save(self.bundle, {**self.metadata, "validation": values, "step": trainer.global_step})

    @property
    def rows(self) -> tuple[dict[str, float], ...]:
        """The rows of the table, one per validation: step and figures."""
        lines = self.log_file.read_text().splitlines()[1:]
        return tuple(dict(zip(("step", *self.columns), map(float, line.split(",")), strict=True)) for line in lines)

    def check_written(self, learning_rate: float) -> None:
        """
        Raises:
            NonFiniteError: if no validation was a finite number, so that no weights were saved.
        """
        if not self.bundle.is_file():
            raise NonFiniteError(
                f"{self.criterion.replace('_', ' ')} was never a finite number: lower the learning rate, now "
                f"{learning_rate:g}"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = float(state_dict["best"])
