"""The Lightning module of a VAMPnet: loss, validation, and the best weights kept on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from openmm_gnn.base.errors import NonFiniteError, SpecError, positive, whole
from openmm_gnn.kinetics.lagged_pairs import LaggedPairs, PairBatch
from openmm_gnn.kinetics.token_trajectories import CHUNK_BYTES, frames_in
from openmm_gnn.kinetics.vamp import (
    LaggedCovariances,
    VampScore,
    fit_vamp,
    held_out_score,
    lagged_covariances,
    vamp_score,
)
from openmm_gnn.learning.step_order import StepOrder
from openmm_gnn.learning.trainer import ResumableModule
from openmm_gnn.networks.tokens.cv_network import CVNetwork

EVALUATION_PAIRS = 4096
"""Pairs per batch where no gradient is needed."""


@dataclass(frozen=True)
class VampnetSettings:
    """Settings of a training; everything about the network itself is in its spec."""

    num_steps: int = 1000
    """Training steps, at most; the schedule of the learning rate ends there."""
    batch_size: int = 4000
    """Pairs per step; the covariances of few pairs are noise, to which a network overfits."""
    learning_rate: float = 2e-3
    warmup_steps: int = 20
    weight_decay: float = 0.01
    score: VampScore = VampScore.VAMP2
    """Score that is maximised."""
    epsilon: float = 1e-6
    """Regularisation of the covariances."""
    reversible: bool = False
    """Count every pair in both directions of time."""
    validate_every: int = 50
    """Steps between two validations, and between two checkpoints."""
    patience: int = 6
    """Validations in a row without a better score, after which training ends."""
    most_pairs: int = 50_000
    """Training pairs, and held-out pairs, of a validation at most; they are evenly spaced."""

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.validate_every < 1 or self.num_steps % self.validate_every:
            raise SpecError(
                f"{self.num_steps} steps with a validation every {self.validate_every}: give a multiple, so that the "
                "last step is validated"
            )
        whole(self, 2, "batch_size", "most_pairs")
        whole(self, 1, "patience")
        positive(self, "learning_rate", "epsilon")


class PairsDataset(Dataset[PairBatch]):
    """Maps the numbers of pairs to the pairs."""

    def __init__(self, pairs: LaggedPairs) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, numbers: Any) -> PairBatch:
        return self.pairs.batch(np.asarray(numbers))


class TrainingOrder(Sampler[list[int]]):
    """The numbers of the pairs of each step until the next validation.

    They follow from the step that the module has reached: Lightning counts an epoch twice when it resumes from a
    checkpoint.
    """

    def __init__(self, module: Vampnet, num_pairs: int, seed: int) -> None:
        settings = module.settings
        self._module = module
        self._order = StepOrder(num_pairs, min(settings.batch_size, num_pairs), settings.validate_every, seed)

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[list[int]]:
        first = self._module.global_step
        return (self._order.frames_of(step) for step in range(first, first + len(self)))


def evaluation_loader(pairs: LaggedPairs, most: int) -> DataLoader[PairBatch]:
    """At most `most` pairs, evenly spaced, in the order of time."""
    numbers, portion = pairs.evenly_spaced(most), frames_in(CHUNK_BYTES, pairs.trajectories[0].tokens, EVALUATION_PAIRS)
    portions = [numbers[start : start + portion] for start in range(0, len(numbers), portion)]
    return DataLoader(PairsDataset(pairs), sampler=portions, batch_size=None)


class PairOutputs:
    """Collects the outputs of pairs, batch by batch."""

    def __init__(self) -> None:
        self._x: list[Tensor] = []
        self._y: list[Tensor] = []
        self._weights: list[Tensor] = []

    def add(self, network: CVNetwork, batch: PairBatch) -> None:
        """The frames of a batch through the network."""
        x, y = batch.ends(network(batch.tokens, batch.coordinates).detach())
        self._x.append(x)
        self._y.append(y)
        if batch.weights is not None:
            self._weights.append(batch.weights)

    def covariances(self, reversible: bool) -> LaggedCovariances:
        weights = torch.cat(self._weights) if self._weights else None
        return lagged_covariances(torch.cat(self._x), torch.cat(self._y), weights, reversible)

    @property
    def third_moments(self) -> Tensor:
        """(k,) third central moments of the outputs at t; the sign distinguishes an output from its negative."""
        x = torch.cat(self._x).double()
        return (x - x.mean(dim=0)).pow(3).mean(dim=0)


class Vampnet(ResumableModule):
    """A CV network whose loss is minus a VAMP score of the batch.

    Source: Mardt, Pasquali, Wu and Noe, Nat. Commun. 9, 5 (2018), doi:10.1038/s41467-017-02388-1.
    """

    def __init__(self, network: CVNetwork, settings: VampnetSettings, identity: str = "") -> None:
        super().__init__({"other data, another network or other settings": identity})
        self.network = network
        self.settings = settings
        self.outputs = [PairOutputs(), PairOutputs()]

    def training_step(self, batch: PairBatch, _: int) -> Tensor:
        settings = self.settings
        # All frames in one call, each once: one pass of large matrices, and one dropout mask per frame.
        outputs = self.network(batch.tokens, batch.coordinates)
        x, y = batch.ends(outputs)
        if not bool(torch.isfinite(outputs).all()):
            raise NonFiniteError(
                f"the outputs became NaN or infinite after {self.global_step} steps: lower the learning rate, now "
                f"{settings.learning_rate:g}"
            )
        score = vamp_score(
            lagged_covariances(x, y, batch.weights, settings.reversible), settings.score, settings.epsilon
        )
        self.log("batch_score", score.detach(), prog_bar=True, batch_size=len(x))
        return -score

    def on_validation_epoch_start(self) -> None:
        self.outputs = [PairOutputs(), PairOutputs()]

    def validation_step(self, batch: PairBatch, _: int, dataloader_idx: int = 0) -> None:
        self.outputs[dataloader_idx].add(self.network, batch)

    def on_validation_epoch_end(self) -> None:
        for name, value in self.scores().items():
            self.log(name, value, prog_bar=name == "validation_score")

    def scores(self) -> dict[str, float]:
        """Scores of the outputs collected last.

        `training_score` and `validation_score` are those of the functions fitted to the training pairs, on training
        and on held-out pairs; `refitted_score` is that of functions fitted anew to the held-out pairs, as deeptime's
        networks report it.
        """
        settings = self.settings
        fitted, held_out = (outputs.covariances(settings.reversible) for outputs in self.outputs)
        model = fit_vamp(fitted, settings.epsilon, truncate=True)
        return {
            "training_score": float(vamp_score(fitted, settings.score, settings.epsilon, truncate=True)),
            "validation_score": held_out_score(model, held_out, settings.score, settings.epsilon),
            "refitted_score": float(vamp_score(held_out, settings.score, settings.epsilon, truncate=True)),
        }

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        settings = self.settings
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        return self.scheduled(optimizer, settings.warmup_steps, settings.num_steps)


def collected(network: CVNetwork, pairs: LaggedPairs, most: int) -> PairOutputs:
    """The outputs of at most `most` pairs, evenly spaced."""
    outputs = PairOutputs()
    with torch.no_grad():
        for batch in evaluation_loader(pairs, most):
            outputs.add(network, batch)
    return outputs
