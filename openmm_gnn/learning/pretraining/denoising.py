"""Pretraining of encoders by denoising, with Lightning: atoms are moved at random, the network says by how much.

Near the minima of the energy this is learning the forces: the noise that would lead back is their negative.

Source: Zaidi et al., "Pre-training via denoising for molecular property prediction", ICLR 2023, arXiv 2206.00133; noise
of 0.2 angstrom and AdamW with amsgrad: Pengmei et al., J. Chem. Phys. 162 (2025), arXiv 2409.19838.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.data.conformers.conformations import Molecule
from openmm_gnn.learning.best_weights import BestWeights
from openmm_gnn.learning.pretraining.denoising_data import DenoisingData
from openmm_gnn.learning.pretraining.denoising_meter import ERROR, DenoisingErrorMeter, denoising_error
from openmm_gnn.learning.pretraining.denoising_module import Denoising, scales_of
from openmm_gnn.learning.pretraining.denoising_settings import DenoisingSettings, Hardware, Precision, Strategy
from openmm_gnn.learning.pretraining.training_curves import PretrainingBar, TrainingCurves, tensorboard_logger
from openmm_gnn.learning.trainer import CHECKPOINT, begin, fit
from openmm_gnn.networks.encoders.encoder import Encoder
from openmm_gnn.networks.weights import save_network

__all__ = [
    "Denoising",
    "DenoisingErrorMeter",
    "DenoisingSettings",
    "Hardware",
    "Precision",
    "Strategy",
    "denoising_error",
    "is_first_process",
    "pretrain",
]

ORIGIN = ("source", "license")
"""Fields of an encoder's metadata that pass on to what is trained from its weights."""


def pretrain(
    spec: EncoderSpec,
    training: Sequence[Molecule],
    validation: Sequence[Molecule],
    settings: DenoisingSettings,
    directory: str | os.PathLike[str],
    progress: bool = True,
    provenance: dict[str, Any] | None = None,
    start: Encoder | None = None,
    hardware: Hardware | None = None,
) -> Path:
    """Train an encoder and return the path of its bundle, the best by the error on held-out molecules.

    `provenance` (data with their sha256, command) goes into the bundle's metadata beside recipe and figures. A run that
    was killed goes on from its last checkpoint when called again with the same arguments, with the frames and the noise
    that it would have met; the hardware may be another. `start`: an encoder of this spec whose weights to begin with,
    in place of random ones. With several devices Lightning starts the other processes by the command line that started
    this one, unless a launcher such as torchrun has done so.

    Raises:
        DataError: if there are no molecules, or the directory belongs to another encoder or other data.
        SpecError: if the spec has no noise scale, is not that of `start`, or the data do not fit into the batches.
        NonFiniteError: if the training diverged.
    """
    hardware = hardware or Hardware()
    if start is not None and start.spec != spec:
        raise SpecError(f"the weights to start from belong to {start.spec}: give the same spec, now it is {spec}")
    if start is None and settings.start_share:
        raise SpecError(f"{settings.start_share} of the start's weights are to be kept: say which, there is no start")
    for name, molecules in (("training", training), ("validation", validation)):
        if not molecules:
            raise DataError(f"the {name} set has no molecules: give more of them")
    if spec.noise_scale <= 0:
        raise SpecError("EncoderSpec.noise_scale is 0: give the standard deviation of the noise, such as 0.2 angstrom")
    directory = begin(directory, settings.seed)
    encoder = Encoder(spec)
    origin = {}
    if start is not None:
        encoder.load_state_dict(start.state_dict())
        origin = {name: start.spec.metadata[name] for name in ORIGIN if name in start.spec.metadata}
    data = DenoisingData(spec, training, validation, settings, hardware)
    metadata = {**origin, "recipe": asdict(settings), **(provenance or {})}
    module = Denoising(encoder, settings, data_identity=str(metadata.get("data", {}).get("sha256", "")))
    best = BestWeights(
        directory,
        ("train_error", *data.columns(scales_of(spec, settings))),
        lambda path, metadata: save_network(module.best_weights, path, metadata),
        metadata,
        ERROR,
    )
    curves = TrainingCurves()
    fit(
        module,
        data,
        best,
        settings.num_steps,
        progress=progress,
        callbacks=[curves],
        bar=PretrainingBar(curves),
        devices=hardware.devices,
        strategy="ddp" if hardware.devices > 1 or hardware.strategy is Strategy.DDP else "auto",
        use_distributed_sampler=False,
        precision="bf16-mixed" if settings.precision is Precision.BFLOAT16_MIXED else "32-true",
        gradient_clip_val=settings.gradient_clip,
        logger=tensorboard_logger(directory, directory / CHECKPOINT),
        log_every_n_steps=settings.validate_every,  # all that is logged, the curves write themselves
    )
    best.check_written(settings.learning_rate)
    return best.bundle


def is_first_process() -> bool:
    """Of those that train together: the one that writes and speaks."""
    return not getattr(rank_zero_only, "rank", 0)
