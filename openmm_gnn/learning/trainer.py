"""What trainings share: a learning rate over time, best weights with a table of validations, resuming after a kill."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import signal
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from openmm_gnn.base.errors import DataError, NonFiniteError
from openmm_gnn.base.files import command_line, write_atomically
from openmm_gnn.base.worker_processes import ProgressBar
from openmm_gnn.networks.weights import BUNDLE

LOG = "log.csv"
"""The file of a training's directory with the figures of each validation; the weights are beside it."""
CHECKPOINT = "last.ckpt"
LAST_FACTOR = 1e-4
"""The learning rate at the end, as a share of the highest."""
_USELESS_WARNINGS = ("Checkpoint directory .* exists and is not empty", ".*LeafSpec.* is deprecated")
"""Our runs are resumed in their own directory; the other is between Lightning and PyTorch."""


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
        text = self.log_file.read_text(errors="replace") if self.log_file.is_file() else ""
        rows = [row.split(",") for row in text.splitlines()[1:]]
        kept = [
            ",".join(row)
            for row in rows
            if len(row) == 1 + len(self.columns) and row[0].isdecimal() and int(row[0]) <= trainer.global_step
        ]
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

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = float(state_dict["best"])


class StepsBar(Callback):
    """The steps that are done, of all, with the logged errors and the remaining time; the first process shows it.

    The bar ends with `stack`, however the training ends.
    """

    def __init__(self, stack: ExitStack, num_steps: int, title: str) -> None:
        self.stack, self.num_steps, self.title = stack, num_steps, title

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        bar = ProgressBar(self.num_steps, trainer.is_global_zero, trainer.global_step, self.title)
        self.bar = self.stack.enter_context(bar)

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.is_global_zero:
            figures = ", ".join(f"{name} {value:.4g}" for name, value in trainer.progress_bar_metrics.items())
            self.bar.update(trainer.global_step, text=f"step {trainer.global_step} of {self.num_steps}  {figures}")


def rise_and_cosine(optimizer: Optimizer, warmup_steps: int, num_steps: int) -> LambdaLR:
    """The schedule by step: up to the optimizer's learning rate in `warmup_steps`, and down by `num_steps`.

    Source: Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, arXiv 1608.03983,
    eq. (5), without restarts.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress))) + LAST_FACTOR

    return LambdaLR(optimizer, factor)


def provenance() -> dict[str, Any]:
    """What the metadata of trained weights say about how they were made: command line and versions."""
    versions = {name: version(name) for name in ("openmm-gnn", "torch", "lightning")}
    return {"command": command_line(), "versions": versions}


def identity_of(spec: Any) -> str:
    """A spec as text that is the same for equal specs: without metadata, also those of specs inside it."""

    def bare(fields: dict[str, Any]) -> dict[str, Any]:
        return {
            name: bare(value) if isinstance(value, dict) else value
            for name, value in fields.items()
            if name != "metadata"
        }

    return json.dumps({type(spec).__name__: bare(dataclasses.asdict(spec))}, sort_keys=True)


class ResumableModule(lightning.LightningModule):
    """A module whose checkpoint says what it belongs to.

    Args:
        identity: what must be the same for a training to go on, as text, by what it would be called if it were not,
            such as "another network".
    """

    def __init__(self, identity: dict[str, str]) -> None:
        super().__init__()
        self.identity = identity

    def scheduled(self, optimizer: Optimizer, warmup_steps: int, num_steps: int) -> OptimizerLRSchedulerConfig:
        """The optimizer with `rise_and_cosine`."""
        scheduler = rise_and_cosine(optimizer, warmup_steps, num_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["identity"] = self.identity

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for other, identity in self.identity.items():
            if checkpoint["identity"].get(other) != identity:
                raise DataError(
                    f"the checkpoint belongs to {other}: give the same data and options, or another directory (--out)"
                )


def checkpoint_in(directory: Path) -> dict[str, Any] | None:
    """The checkpoint of a training that was begun in a directory; None where there is none.

    Raises:
        DataError: if it cannot be read.
    """
    path = directory / CHECKPOINT
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return found
    except Exception as error:  # of pickle, of zip files, of the system
        raise DataError(
            f"{path} is damaged ({type(error).__name__}): delete it to train from the start, or give another directory"
        ) from error


def begin(directory: str | os.PathLike[str], seed: int) -> Path:
    """Make the directory of a training, seed all random numbers, and leave warnings and errors that matter."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in _USELESS_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    lightning.seed_everything(seed, verbose=False)
    return directory


def fit(
    module: ResumableModule,
    training: DataLoader[Any] | lightning.LightningDataModule,
    validation: DataLoader[Any] | Sequence[DataLoader[Any]] | None,
    best: BestWeights,
    num_steps: int,
    validate_every: int | None = None,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
    title: str = "training",
    **options: Any,
) -> Path:
    """Train a module for `num_steps` in all, those of earlier calls with the same directory among them.

    Args:
        training: a loader, or what has both loaders.
        best: writes rows and weights when a validation ends; the checkpoint is made after it, in the same directory.
        validate_every: steps; a kill costs as many at most. None: an epoch, whose loader says how many steps it has.
        callbacks: called after `best` and before the checkpoint is made.
        title: of the progress bar.
        options: of `lightning.Trainer`, in place of ours.
    Returns:
        The path of the best weights.
    Raises:
        DataError: if the checkpoint cannot be read.
        NonFiniteError: if no validation was a finite number, so that no weights were saved.
    """
    directory = best.bundle.parent
    by_epoch = validate_every is None
    checkpoints = ModelCheckpoint(
        directory,
        filename=Path(CHECKPOINT).stem,
        every_n_epochs=1,
        save_on_train_epoch_end=by_epoch,  # otherwise after each validation, when its row and weights are written
        enable_version_counter=False,
    )
    intervals = {} if by_epoch else {"val_check_interval": validate_every, "check_val_every_n_epoch": None}
    ours: dict[str, Any] = {
        **{"accelerator": "auto", "devices": 1, "logger": False},
        **{"num_sanity_val_steps": 0, "enable_model_summary": False, "enable_progress_bar": False, **intervals},
    }
    begun = None if checkpoint_in(directory) is None else str(directory / CHECKPOINT)
    with ExitStack() as stack:
        shown = [StepsBar(stack, num_steps, title)] if progress else []
        trainer = lightning.Trainer(
            max_steps=num_steps, callbacks=[best, *callbacks, checkpoints, *shown], **{**ours, **options}
        )
        try:
            trainer.fit(module, training, validation, ckpt_path=begun, weights_only=True)
        except SystemExit as stop:  # Lightning's answer to a ctrl-C, after which it would ignore others
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from stop
    if not best.bundle.is_file() and trainer.is_global_zero:
        raise NonFiniteError(
            f"{best.criterion.replace('_', ' ')} was never a finite number: lower the learning rate, now "
            f"{trainer.optimizers[0].param_groups[0]['initial_lr']:g}"
        )
    return best.bundle
