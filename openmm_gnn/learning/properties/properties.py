"""Regression of properties on an encoder, frozen or not, with Lightning."""

from __future__ import annotations

import os
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric

from openmm_gnn.base.specs.encoder import PropertySpec
from openmm_gnn.learning.properties.property_labels import read_labels
from openmm_gnn.learning.properties.property_sets import (
    PropertyBatch,
    PropertyFrames,
    PropertySets,
    fit_elements,
    hold_out,
    property_spec,
)
from openmm_gnn.learning.settings import LearnedProperty, PropertySettings
from openmm_gnn.learning.trainer import BestWeights, ResumableModule, begin, fit, identity_of, provenance
from openmm_gnn.networks.encoders.encoder import Encoder, encoder_provenance, freeze, start_from
from openmm_gnn.networks.encoders.property_model import PropertyModel
from openmm_gnn.networks.weights import load_encoder, load_property_model, save_network

FIGURES = ("validation_mae", "validation_rmse", "elements_mae")
"""The columns of log.csv: of the model, and of what the elements alone say; the first chooses the best weights."""


class PropertyRegression(ResumableModule):
    """A property model with the mean square of the standardised error as its loss."""

    def __init__(self, model: PropertyModel, settings: PropertySettings) -> None:
        super().__init__({"another property model": identity_of(model.spec)})
        self.model = model
        self.settings = settings
        self.errors = torch.nn.ModuleList(
            error.set_dtype(torch.float64)
            for error in (MeanAbsoluteError(), MeanSquaredError(squared=False), MeanAbsoluteError())
        )

    def training_step(self, frames: PropertyBatch, _: int) -> Tensor:
        wanted = (frames.labels - self.model.of_elements(frames.atomic_numbers, frames.batch)) / self.model.scale
        found = self.model.standardised(frames.atomic_numbers, frames.positions, frames.batch, frames.box_vectors)
        loss = (found - wanted.to(found.dtype)).square().mean()
        self.log("train_error", loss.detach(), prog_bar=True, batch_size=len(frames.labels))
        return loss

    def validation_step(self, frames: PropertyBatch, _: int) -> None:
        predicted = self.model(frames.atomic_numbers, frames.positions, frames.batch, frames.box_vectors)
        of_elements = self.model.of_elements(frames.atomic_numbers, frames.batch)
        for name, error, values in zip(FIGURES, self.errors, (predicted, predicted, of_elements), strict=True):
            assert isinstance(error, Metric)
            error.update(values, frames.labels)
            self.log(name, error, prog_bar=name == FIGURES[0])  # over all frames, in the unit of the labels

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        learning = [weight for weight in self.parameters() if weight.requires_grad]
        optimizer = torch.optim.Adam(learning, lr=self.settings.learning_rate)
        return self.scheduled(optimizer, self.settings.warmup_steps, self.settings.num_steps)


def regress(
    labels: str | os.PathLike[str],
    encoder: Encoder | str | os.PathLike[str],
    wanted: LearnedProperty,
    out: str | os.PathLike[str],
    settings: PropertySettings | None = None,
    progress: bool = True,
) -> Path:
    """Learn a property from labels in a file and return the path of its bundle, the best by the error on held-out ones.

    Args:
        labels: extended XYZ, or a table (.csv) with the columns molecule, perhaps frame, and the property.
        encoder: pretrained encoder, or its path or shipped name.
        wanted: the property.
        out: directory of the run; a run that was killed goes on from its last validation.
    Raises:
        DataError: if a label is missing or of another shape, nothing is left to hold out, an element is not known, or
            the directory belongs to another model.
        NonFiniteError: if the training diverged before its first validation.
    """
    settings, labels = settings or PropertySettings(), Path(labels)
    pretrained = load_encoder(encoder)
    frames = read_labels(labels, wanted)
    spec = property_spec(pretrained.spec, frames, wanted)
    sets = hold_out(frames, settings.hold_out, settings.by_frame)
    frozen = settings.freeze_encoder and not settings.random_weights
    metadata = {
        "labels": {
            "file": labels.name,
            "training_frames": len(sets.training),
            "validation_frames": len(sets.validation),
            "validation_molecules": sorted({frame.group for frame in sets.validation}),
        },
        **encoder_provenance(pretrained, frozen, settings.random_weights),
        **provenance(),
    }
    start = None if settings.random_weights else pretrained
    return train_property(spec, sets, settings, out, start, progress, metadata)


def summary_of(bundle: Path) -> str:
    """What came of a regression: the errors of the best weights on frames held out."""
    spec = load_property_model(bundle).spec
    figures, held_out = spec.metadata["validation"], spec.metadata["labels"]["validation_frames"]
    unit = f" {spec.unit}" if spec.unit else ""
    return (
        f"{spec.name} of {held_out} frames held out: mean absolute error {figures['validation_mae']:.4g}{unit}; "
        f"by their elements alone {figures['elements_mae']:.4g}{unit}\nwrote {bundle}"
    )


def train_property(
    spec: PropertySpec,
    sets: PropertySets,
    settings: PropertySettings,
    directory: str | os.PathLike[str],
    encoder: Encoder | None = None,
    progress: bool = True,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Train a property model on these frames; see `regress`.

    `encoder` is the pretrained one to begin with; None: random weights, none of them frozen. `metadata` go into the
    bundle beside recipe and figures.

    Raises:
        DataError: if a frame has an element that the spec does not, or the directory belongs to another model.
        SpecError: if the encoder is not the one of the spec.
        NonFiniteError: if the training diverged before its first validation.
    """
    training, validation = (PropertyFrames(frames, spec) for frames in sets)
    directory = begin(directory, settings.seed)
    model = PropertyModel(spec)
    fit_elements(model, training)
    if encoder is not None:
        new_elements = start_from(model.encoder, encoder)
        if settings.freeze_encoder:
            freeze(model.encoder, except_elements=new_elements)
    best = BestWeights(
        directory, FIGURES, partial(save_network, model), {"recipe": asdict(settings), **(metadata or {})}, FIGURES[0]
    )
    loaders = (
        DataLoader(training, settings.batch_size, shuffle=True, collate_fn=training.collate),
        DataLoader(validation, settings.batch_size, collate_fn=validation.collate),
    )
    return fit(
        PropertyRegression(model, settings),
        *loaders,
        best,
        settings.num_steps,
        settings.validate_every,
        progress,
        gradient_clip_val=settings.gradient_clip,
    )
