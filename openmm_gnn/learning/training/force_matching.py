"""Training of GAMD on labelled trajectories, with Lightning.

Source: Li et al., J. Chem. Phys. 156, 144103 (2022), eq. (10).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.specs.force import ForceSpec
from openmm_gnn.kernels.radial_pairs import scatter_pair_forces
from openmm_gnn.learning.settings import TrainingSettings, seed_ranges
from openmm_gnn.learning.trainer import BestWeights, ResumableModule, begin, fit, identity_of, provenance
from openmm_gnn.learning.training.data_sets import force_matching_sets, open_all
from openmm_gnn.learning.training.frames import ForceErrorMeter, FrameBatch, FrameDataset, collate, predicted_forces
from openmm_gnn.learning.training.training_distribution import TRAINING_DISTRIBUTION, fit_distribution, training_frames
from openmm_gnn.networks.encoder_force import encoder_force_spec
from openmm_gnn.networks.encoders.encoder import Encoder, encoder_provenance
from openmm_gnn.networks.force_model import ForceModel
from openmm_gnn.networks.pair_term import PairTerm
from openmm_gnn.networks.weights import load_encoder, load_model, make_model, save_network

FIGURES = ("validation_mae", "validation_rmse", "validation_relative_error", "validation_cosine")
"""The columns of log.csv; the first chooses the best weights."""
LARGEST_MOVE_NM = 1e-3
"""How far the atom with the largest gradient moves: small beside the network's features, large beside rounding."""


def energy_matching_loss(model: ForceModel, frames: FrameBatch) -> tuple[Tensor, Tensor]:
    """A stand-in whose gradient by the weights is that of the loss, and the loss: no second derivative is needed.

    The loss L depends on the weights w through the forces F = -dE/dx. With v = dL/dF held fixed,

        dL/dw = d/dw (v . F) = -d/dw (dE/dx . v) = -d/dw [E(x + h v) - E(x - h v)] / 2h + O(h^2),

    so two more energies, each differentiated once by the weights, do what a second backward pass would: the compiled
    operators have no second derivative, and a step takes three evaluations in place of about ten.

    Args:
        model: one that matches energies, see `ForceModel.matches_energies`.
        frames: N atoms and P pairs.
    Returns:
        0-d each: the stand-in, whose value means nothing, and mean |F - F_ref| in units of the force scale.
    """
    assert frames.types is not None
    types, (i, j) = frames.types, frames.pairs
    vectors = frames.vectors.detach().requires_grad_()
    with torch.enable_grad():
        energy = model.energy(frames.species, frames.pairs, types, vectors, True)
        (gradient,) = torch.autograd.grad(energy, vectors)
    forces = scatter_pair_forces(gradient, frames.pairs, len(frames.species))
    if frames.pair_forces is not None:
        forces = forces + frames.pair_forces
    forces.requires_grad_()
    loss = (forces - frames.forces).abs().mean() / model.force_scale
    (direction,) = torch.autograd.grad(loss, forces)
    step = LARGEST_MOVE_NM / direction.norm(dim=1).max().clamp(min=1e-30)
    moves = step * (direction.index_select(0, j) - direction.index_select(0, i))
    ahead = model.energy(frames.species, frames.pairs, types, frames.vectors + moves, True)
    behind = model.energy(frames.species, frames.pairs, types, frames.vectors - moves, True)
    return (behind - ahead) / (2 * step), loss.detach()


class ForceMatching(ResumableModule):
    """GAMD with the loss (10): mean |F - F_ref| in units of the force scale, plus lambda times the net force.

    Departure from the published code, which averages all components into one scalar: the net force is the vector sum
    of the predicted forces of each frame; its L1 norm per atom enters.
    """

    def __init__(self, model: ForceModel, settings: TrainingSettings) -> None:
        super().__init__({"another network": identity_of(model.spec)})
        self.model = model
        self.settings = settings
        self.meter = ForceErrorMeter()

    def training_step(self, frames: FrameBatch, _: int) -> Tensor:
        scale = self.model.force_scale
        if self.model.matches_energies(frames.vectors):
            stand_in, error = energy_matching_loss(self.model, frames)
            self.log("train_error", error, prog_bar=True, batch_size=frames.num_frames)
            return stand_in
        predicted = predicted_forces(self.model, frames)
        error = (predicted - frames.forces).abs().mean() / scale
        net = torch.zeros((frames.num_frames, 3), device=predicted.device).index_add(0, frames.batch, predicted)
        atoms_per_frame = predicted.size(0) / frames.num_frames
        net_force = net.abs().sum(dim=1).mean() / (atoms_per_frame * scale)
        self.log("train_error", error, prog_bar=True, batch_size=frames.num_frames)
        return error + self.settings.net_force_weight * net_force

    def on_validation_epoch_start(self) -> None:
        self.meter = ForceErrorMeter()

    def validation_step(self, frames: FrameBatch, _: int) -> None:
        predicted = predicted_forces(self.model, frames)
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
        return self.scheduled(optimizer, settings.warmup_steps, settings.num_steps)


def train(
    data: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    network: Callable[..., ForceSpec],
    settings: TrainingSettings | None = None,
    encoder: Encoder | str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Path:
    """Train a force model on labelled trajectories and return the path of its bundle, the best by validation error.

    ```python
    network = functools.partial(GAMDSpec, NeighborSpec(cutoff=0.75), width=16)
    bundle = train(["argon"], "network", network, TrainingSettings(train_seeds=(1, 2), validation_seeds=(3,)))
    ```

    The bundle's metadata say where it comes from: command, data, seeds, recipe, versions, the figures of the best
    validation, and the distribution of the neighbourhoods that it was trained on. A run that was killed goes on from
    its last validation when called again with the same arguments.

    Args:
        data: directories written by `openmm-gnn label` or `import-labels`, of one topology or of several.
        out: directory of the run.
        network: gives the spec for `elements` (atomic numbers of all training frames) and `force_scale` (root mean
            square of a force component, kJ/mol/nm): a partial of a spec class. With an encoder, a partial of
            `EncoderForceSpec` with the fields that are not to be its defaults.
        encoder: pretrained encoder whose features a head turns into forces, or its path or shipped name.
    Raises:
        DataError: if a seed is missing, bonds are asked for where none are known, or the directory belongs to another
            network.
        TopologyError: if a validation frame has an element that no training frame has.
        SpecError: if random weights are to be frozen.
        NonFiniteError: if the training diverged before its first validation.
    """
    settings, pretrained = settings or TrainingSettings(), None
    if encoder is not None:
        pretrained = load_encoder(encoder)
        begin, given = pretrained.spec, getattr(network, "keywords", {})

        def network(elements: tuple[int, ...], force_scale: float) -> ForceSpec:
            return encoder_force_spec(begin, elements, **{"force_scale": force_scale, **given})

    paths = [Path(path) for path in data]
    sets = force_matching_sets(paths, network, settings)
    metadata = {
        TRAINING_DISTRIBUTION: fit_distribution(
            training_frames(sets.training, sets.spec.elements), sets.spec.neighbors.cutoff
        ),
        "data": [{"directory": opened.path.name, **opened.meta["settings"]} for opened in open_all(paths)],
        "train_seeds": seed_ranges(settings.train_seeds),
        "validation_seeds": seed_ranges(settings.validation_seeds),
        "recipe": asdict(settings),
        **provenance(),
    }
    if pretrained is not None:
        metadata |= encoder_provenance(pretrained, settings.freeze_encoder, settings.random_weights)
    start = None if settings.random_weights else pretrained
    return train_on_frames(
        sets.spec, sets.training, sets.validation, settings, out, progress, metadata, sets.pair_term, start
    )


def train_on_frames(
    spec: ForceSpec,
    training: FrameDataset | ConcatDataset[FrameBatch],
    validation: FrameDataset | ConcatDataset[FrameBatch],
    settings: TrainingSettings,
    directory: str | os.PathLike[str],
    progress: bool = True,
    metadata: dict[str, Any] | None = None,
    pair_term: PairTerm | None = None,
    encoder: Encoder | None = None,
    begin_with: Path | None = None,
) -> Path:
    """Train a network on these frames, whatever seeds the settings name; see `train`.

    `metadata` go into the bundle beside the validation figures; `pair_term` is the one the data sets were made with; an
    `EncoderForce` begins with the weights of the pretrained `encoder`; any network with those of the bundle
    `begin_with`, which is of the same spec.

    Raises:
        DataError: if a data set is empty, or the directory belongs to another network.
        SpecError: if the encoder is not the one of the spec, or there is none and it is to be frozen.
        NonFiniteError: if the training diverged before its first validation.
    """
    if settings.freeze_encoder and encoder is None:
        raise SpecError("random weights are to be frozen: give a pretrained encoder, or let all weights learn")
    for name, dataset in (("training", training), ("validation", validation)):
        if len(dataset) == 0:
            raise DataError(f"the {name} set has no frames: give seeds that the data has")
    directory = begin(directory, settings.seed)
    model = make_model(spec)
    if begin_with is not None:
        model.load_state_dict(load_model(begin_with).state_dict())
    if pair_term is not None:
        assert model.pair_term is not None
        model.pair_term.load_state_dict(pair_term.state_dict())
    if encoder is not None:
        model.start_from(encoder, settings.freeze_encoder)
    best = BestWeights(directory, FIGURES, partial(save_network, model), metadata or {}, FIGURES[0])
    loaders = (
        DataLoader(training, settings.batch_size, shuffle=True, collate_fn=collate),
        DataLoader(validation, settings.batch_size, collate_fn=collate),
    )
    return fit(
        ForceMatching(model, settings),
        *loaders,
        best,
        settings.num_steps,
        settings.validate_every,
        progress,
        gradient_clip_val=1.0,
    )
