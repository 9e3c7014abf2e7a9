"""Training of GAMD on labelled trajectories, with Lightning.

Source: Li et al., J. Chem. Phys. 156, 144103 (2022), eq. (10).
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.specs.force import ForceSpec, spec_from_json, spec_to_json
from openmm_gnn.data.labels.metrics import ForceErrorMeter
from openmm_gnn.learning.quiet_lightning import quiet_lightning
from openmm_gnn.learning.resumable_training import fit_resumably
from openmm_gnn.learning.schedule import rise_and_cosine
from openmm_gnn.learning.training.energy_matching import energy_matching_loss
from openmm_gnn.learning.training.frames import FrameBatch, FrameDataset, collate, predicted_forces
from openmm_gnn.networks.bundle import save_bundle
from openmm_gnn.networks.encoder_force import EncoderForce
from openmm_gnn.networks.encoders.encoder import Encoder
from openmm_gnn.networks.encoders.encoder_transfer import freeze
from openmm_gnn.networks.force_model import ForceModel, make_model
from openmm_gnn.networks.pair_term import PairTerm
from openmm_gnn.networks.vector_gamd import VectorGAMD


@dataclass(frozen=True)
class TrainingSettings:
    """How to train; everything about the network itself is in its spec."""

    num_steps: int = 8000
    batch_size: int = 4
    learning_rate: float = 2e-3
    warmup_steps: int = 200
    net_force_weight: float = 0.1
    """lambda of equation (10); it moves the node decoder only, a pair decoder has no net force."""
    validate_every: int = 500
    freeze_encoder: bool = False
    """Of an `EncoderForce`, train the head alone, and the embeddings of elements that its encoder has not met."""
    seed: int = 0


class ForceMatching(lightning.LightningModule):
    """GAMD with the loss (10): mean |F - F_ref| in units of the force scale, plus lambda times the net force.

    Departure from the published code, which averages all components into one scalar: the net force is the vector sum
    of the predicted forces of each frame; its L1 norm per atom enters.
    """

    def __init__(self, model: ForceModel, settings: TrainingSettings) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.meter = ForceErrorMeter()

    def predict(self, frames: FrameBatch) -> Tensor:
        """(N, 3) predicted forces, kJ/mol/nm."""
        return predicted_forces(self.model, frames)

    def training_step(self, frames: FrameBatch, _: int) -> Tensor:
        scale = self.model.force_scale
        if isinstance(self.model, VectorGAMD) and self.model.conservative and self.model.is_fused(frames.vectors):
            stand_in, error = energy_matching_loss(self.model, frames)
            self.log("train_error", error, prog_bar=True, batch_size=frames.num_frames)
            return stand_in
        predicted = self.predict(frames)
        error = (predicted - frames.forces).abs().mean() / scale
        net = torch.zeros((frames.num_frames, 3), device=predicted.device).index_add(0, frames.batch, predicted)
        atoms_per_frame = predicted.size(0) / frames.num_frames
        net_force = net.abs().sum(dim=1).mean() / (atoms_per_frame * scale)
        self.log("train_error", error, prog_bar=True, batch_size=frames.num_frames)
        return error + self.settings.net_force_weight * net_force

    def on_validation_epoch_start(self) -> None:
        self.meter = ForceErrorMeter()

    def validation_step(self, frames: FrameBatch, _: int) -> None:
        predicted = self.predict(frames)
        for frame in range(frames.num_frames):
            atoms = frames.batch == frame
            self.meter.add(predicted[atoms], frames.forces[atoms])

    def on_validation_epoch_end(self) -> None:
        errors = self.meter.errors()
        self.log("validation_mae", errors.mae, prog_bar=True)
        self.log("validation_rmse", errors.rmse)
        self.log("validation_relative_error", errors.relative_error, prog_bar=True)
        self.log("validation_cosine", errors.mean_cosine)
        self.log("validation_net_force", errors.relative_net_force)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        settings = self.settings
        optimizer = torch.optim.Adam(
            [weight for weight in self.parameters() if weight.requires_grad], lr=settings.learning_rate
        )
        scheduler = rise_and_cosine(optimizer, settings.warmup_steps, settings.num_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["spec_json"] = spec_to_json(self.model.spec)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if spec_from_json(checkpoint["spec_json"]) != self.model.spec:
            raise DataError("the checkpoint belongs to another network: give the same options, or another --out")


class BestBundle(Callback):
    """Writes the bundle whenever the validation error is the lowest so far, and a row of figures each time.

    The lowest error is kept in the checkpoint; rows past the restored step are dropped, so a killed run leaves no
    row twice.
    """

    COLUMNS: tuple[str, ...] = (
        "step",
        "validation_mae",
        "validation_rmse",
        "validation_relative_error",
        "validation_cosine",
    )
    CRITERION = "validation_mae"

    def __init__(self, directory: Path, provenance: dict[str, Any]) -> None:
        self.provenance = provenance
        self.bundle = directory / "model.safetensors"
        self.log_file = directory / "log.csv"
        self.best = math.inf

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        rows = self.log_file.read_text().splitlines()[1:] if self.log_file.is_file() else []
        kept = [row for row in rows if row.count(",") + 1 == len(self.COLUMNS)]
        kept = [row for row in kept if int(row.split(",")[0]) <= trainer.global_step]
        partial = self.log_file.with_suffix(".part")
        partial.write_text("\n".join([",".join(self.COLUMNS), *kept]) + "\n")
        os.replace(partial, self.log_file)

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        values = {name: float(trainer.callback_metrics[name]) for name in self.COLUMNS[1:]}
        with open(self.log_file, "a") as file:
            file.write(",".join([str(trainer.global_step), *(f"{value:.6g}" for value in values.values())]) + "\n")
        if values[self.CRITERION] < self.best:
            self.best = values[self.CRITERION]
            self.save(module, {**self.provenance, "validation": values, "step": trainer.global_step})

    def save(self, module: lightning.LightningModule, metadata: dict[str, Any]) -> None:
        """Write the bundle."""
        assert isinstance(module, ForceMatching)
        save_bundle(module.model, self.bundle, metadata)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = float(state_dict["best"])


def train(
    spec: ForceSpec,
    training: FrameDataset | ConcatDataset[FrameBatch],
    validation: FrameDataset | ConcatDataset[FrameBatch],
    settings: TrainingSettings,
    directory: str | os.PathLike[str],
    progress: bool = True,
    provenance: dict[str, Any] | None = None,
    pair_term: PairTerm | None = None,
    encoder: Encoder | None = None,
) -> Path:
    """Train a network and return the path of its bundle, the best by validation error.

    `provenance` (data, command) goes into the bundle's metadata beside the validation figures; `pair_term` is the one
    the data sets were made with; an `EncoderForce` begins with the weights of the pretrained `encoder`. A run that was
    killed goes on from its last checkpoint when called again with the same arguments.

    Raises:
        DataError: if a data set is empty, or the directory belongs to another network.
        SpecError: if the encoder is not the one of the spec, or there is none and it is to be frozen.
    """
    if settings.freeze_encoder and encoder is None:
        raise SpecError("random weights are to be frozen: give a pretrained encoder, or let all weights learn")
    for name, dataset in (("training", training), ("validation", validation)):
        if len(dataset) == 0:
            raise DataError(f"the {name} set has no frames: give seeds that the data has")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    quiet_lightning()
    lightning.seed_everything(settings.seed, verbose=False)
    model = make_model(spec)
    if pair_term is not None:
        assert isinstance(model, VectorGAMD) and model.pair_term is not None
        model.pair_term.load_state_dict(pair_term.state_dict())
    if encoder is not None:
        assert isinstance(model, EncoderForce)
        new_elements = model.start_from(encoder)
        if settings.freeze_encoder:
            freeze(model.encoder, except_elements=new_elements)
    module = ForceMatching(model, settings)
    best = BestBundle(directory, provenance or {})
    fit_resumably(
        module,
        DataLoader(training, settings.batch_size, shuffle=True, collate_fn=collate),
        DataLoader(validation, settings.batch_size, collate_fn=collate),
        best,
        directory,
        settings.num_steps,
        settings.validate_every,
        gradient_clip=1.0,
        progress=progress,
    )
    return best.bundle
