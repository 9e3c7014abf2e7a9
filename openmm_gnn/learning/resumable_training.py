"""A training on one device that goes on from its last validation after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from torch.utils.data import DataLoader


def fit_resumably(
    module: lightning.LightningModule,
    training: DataLoader[Any],
    validation: DataLoader[Any],
    best: Callback,
    directory: Path,
    num_steps: int,
    validate_every: int,
    gradient_clip: float,
    progress: bool,
) -> None:
    """Train a module for so many steps in all, those of earlier calls with the same directory among them.

    Args:
        best: writes rows and weights when a validation ends; the checkpoint is made after it.
        directory: exists; keeps last.ckpt.
        validate_every: steps; a kill costs as many at most.
    """
    checkpoints = ModelCheckpoint(
        directory,
        filename="last",
        every_n_epochs=1,
        save_on_train_epoch_end=False,  # but after each validation, when its row and bundle are written
        enable_version_counter=False,
    )
    callbacks = [best, checkpoints]
    if progress:
        callbacks.append(RichProgressBar())
    trainer = lightning.Trainer(
        accelerator="auto",
        devices=1,
        max_steps=num_steps,
        val_check_interval=validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        gradient_clip_val=gradient_clip,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
    )
    checkpoint = directory / "last.ckpt"
    trainer.fit(
        module,
        training,
        validation,
        ckpt_path=str(checkpoint) if checkpoint.is_file() else None,
        weights_only=True,
    )
