"""Regression of properties on an encoder, frozen or not, with Lightning."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.utils.data import DataLoader

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.specs.property import PropertySpec
from openmm_gnn.learning.best_weights import BestWeights
from openmm_gnn.learning.properties.property_sets import PropertyBatch, PropertyFrames, PropertySets, fit_elements
from openmm_gnn.learning.trainer import ResumableModule, begin, fit, identity_of
from openmm_gnn.networks.encoders.encoder import Encoder
from openmm_gnn.networks.encoders.encoder_transfer import freeze, start_from
from openmm_gnn.networks.encoders.property_model import PropertyModel
from openmm_gnn.networks.weights import save_network

FIGURES = ("validation_mae", "validation_rmse", "elements_mae")
"""The columns of log.csv; the first chooses the best weights."""


@dataclass(frozen=True)
class PropertySettings:
    """How to train; everything about the network itself is in its spec."""

    num_steps: int = 2000
    batch_size: int = 16
    """Frames per step."""
    learning_rate: float = 1e-3
    """Highest of the schedule: a linear rise, then half a cosine down to zero."""
    warmup_steps: int = 100
    gradient_clip: float = 1.0
    freeze_encoder: bool = False
    """Train the head alone, and the embeddings of elements that the encoder has not met."""
    validate_every: int = 200
    seed: int = 0


class PropertyErrorMeter:
    """Errors over all numbers added, in the unit of the labels: of the model, and of what the elements alone say."""

    def __init__(self) -> None:
        self.absolute, self.squared, self.of_elements, self.count = 0.0, 0.0, 0.0, 0

    def add(self, predicted: Tensor, of_elements: Tensor, labels: Tensor) -> None:
        """All of the same shape."""
        error = (predicted - labels).double()
        self.absolute += float(error.abs().sum())
        self.squared += float(error.square().sum())
        self.of_elements += float((of_elements - labels).abs().sum())
        self.count += error.numel()

    def errors(self) -> dict[str, float]:
        """Mean absolute and root mean square error, and the former of what the elements alone say."""
        return {
            "validation_mae": self.absolute / self.count,
            "validation_rmse": (self.squared / self.count) ** 0.5,
            "elements_mae": self.of_elements / self.count,
        }


class PropertyRegression(ResumableModule):
    """A property model with the mean square of the standardised error as its loss."""

    def __init__(self, model: PropertyModel, settings: PropertySettings) -> None:
        super().__init__({"another property model": identity_of(model.spec)})
        self.model = model
        self.settings = settings
        self.meter = PropertyErrorMeter()

    def training_step(self, frames: PropertyBatch, _: int) -> Tensor:
        wanted = (frames.labels - self.model.of_elements(frames.atomic_numbers, frames.batch)) / self.model.scale
        found = self.model.standardised(frames.atomic_numbers, frames.positions, frames.batch, frames.box_vectors)
        loss = (found - wanted.to(found.dtype)).square().mean()
        self.log("train_error", loss.detach(), prog_bar=True, batch_size=len(frames.labels))
        return loss

    def on_validation_epoch_start(self) -> None:
        self.meter = PropertyErrorMeter()

    def validation_step(self, frames: PropertyBatch, _: int) -> None:
        predicted = self.model(frames.atomic_numbers, frames.positions, frames.batch, frames.box_vectors)
        self.meter.add(predicted, self.model.of_elements(frames.atomic_numbers, frames.batch), frames.labels)

    def on_validation_epoch_end(self) -> None:
        for name, value in self.meter.errors().items():
            self.log(name, value, prog_bar=name == "validation_mae")

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        learning = [weight for weight in self.parameters() if weight.requires_grad]
        optimizer = torch.optim.Adam(learning, lr=self.settings.learning_rate)
        return self.scheduled(optimizer, self.settings.warmup_steps, self.settings.num_steps)


def train_property(
    spec: PropertySpec,
    sets: PropertySets,
    settings: PropertySettings,
    directory: str | os.PathLike[str],
    encoder: Encoder | None = None,
    progress: bool = True,
    provenance: dict[str, Any] | None = None,
) -> Path:
    """Train a property model and return the path of its bundle, the best by the error on held-out molecules.

    `encoder` is the pretrained one to begin with; None: random weights. `provenance` (labels, command) goes into the
    bundle's metadata beside recipe and figures. A run that was killed goes on from its last checkpoint when called
    again with the same arguments.

    Raises:
        DataError: if a frame has an element that the spec does not, or the directory belongs to another model.
        SpecError: if random weights are to be frozen, or the encoder is not the one of the spec.
        NonFiniteError: if the training diverged before its first validation.
    """
    if settings.freeze_encoder and encoder is None:
        raise SpecError("random weights are to be frozen: give a pretrained encoder, or let all weights learn")
    training, validation = (PropertyFrames(frames, spec) for frames in sets)
    directory = begin(directory, settings.seed)
    model = PropertyModel(spec)
    fit_elements(model, training)
    if encoder is not None:
        new_elements = start_from(model.encoder, encoder)
        if settings.freeze_encoder:
            freeze(model.encoder, except_elements=new_elements)
    best = BestWeights(
        directory,
        FIGURES,
        lambda path, metadata: save_network(model, path, metadata),
        {"recipe": asdict(settings), **(provenance or {})},
        FIGURES[0],
    )
    loaders = (
        DataLoader(training, settings.batch_size, shuffle=True, collate_fn=training.collate),
        DataLoader(validation, settings.batch_size, collate_fn=validation.collate),
    )
    fit(
        PropertyRegression(model, settings),
        loaders,
        best,
        settings.num_steps,
        settings.validate_every,
        progress,
        gradient_clip_val=settings.gradient_clip,
    )
    best.check_written(settings.learning_rate)
    return best.bundle
