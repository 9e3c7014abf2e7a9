"""The interface of the methods that learn slow variables, and the result that each of them returns.

To add a method, write a file of this folder with the contents of `MethodFile`, and add its name to
`kinetics.settings.Method`, the registry.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from torch import nn

from openmm_gnn.base.specs.tokens import CVNetworkSpec
from openmm_gnn.kinetics.data import AnalysisData
from openmm_gnn.kinetics.settings import AnalysisSettings, Method
from openmm_gnn.kinetics.token_trajectories import TokenTrajectory
from openmm_gnn.networks.tokens.cv_network import CVNetwork


@dataclass(frozen=True)
class SeedScore:
    """VAMP-2 scores of the training from one random seed."""

    seed: int
    training: float
    validation: float
    """The score by which the best seed is chosen."""
    best_epoch: float
    num_epochs: int


@dataclass(frozen=True)
class TrainingCurve:
    """The validation score of one seed, for methods whose training maximises it."""

    name: str
    epochs: np.ndarray
    scores: np.ndarray
    best_epoch: float
    """The epoch whose weights were kept."""


@dataclass(frozen=True)
class Learned:
    """A function from tokens to slow variables, and the record of its training."""

    network: nn.Module
    """(B, T, 4, H) tokens and (B, T, 3) coordinates -> (B, K) variables, in evaluation mode."""
    seeds: list[SeedScore] = field(default_factory=list)
    chosen_seed: int | None = None
    curves: list[TrainingCurve] = field(default_factory=list)
    states: list[np.ndarray] | None = None
    """(frames,) states of each run, of methods that learn states too."""
    warnings: list[str] = field(default_factory=list)

    @property
    def cv_network(self) -> CVNetwork | None:
        """The network, if it is one that a simulation can be biased with."""
        return self.network if isinstance(self.network, CVNetwork) else None

    def along(self, trajectory: TokenTrajectory) -> np.ndarray:
        """(frames, K) float64 slow variables of a trajectory."""
        return slow_variables(self.network, trajectory).astype(np.float64)


def slow_variables(network: nn.Module, trajectory: TokenTrajectory) -> np.ndarray:
    """(frames, K) outputs of a network along a trajectory."""
    dtype = next(iter(network.state_dict().values())).dtype
    with torch.no_grad():
        return np.concatenate([network(*batch).numpy() for batch in trajectory.batches(dtype)])


class MethodFile(Protocol):
    """The contents of a method's file."""

    TITLE: str
    """Name of the method in figures and in the report."""

    def fit(self, settings: AnalysisSettings, data: AnalysisData, folder: Path, progress: bool) -> Learned:
        """Learn from the training parts, and choose among seeds by the held-out ones.

        Args:
            folder: keeps what is complete; the same call again takes it from there.
            progress: show progress bars.
        Raises:
            DataError, SpecError, NonFiniteError: as the training raises them.
        """


def method_file(method: Method) -> MethodFile:
    """The file of a method."""
    return cast("MethodFile", importlib.import_module(f"openmm_gnn.kinetics.methods.{method.value}"))


def learn(settings: AnalysisSettings, data: AnalysisData, folder: Path, progress: bool) -> Learned:
    """Slow variables by the method of the settings; arguments and errors as of `MethodFile.fit`."""
    folder.mkdir(parents=True, exist_ok=True)
    return method_file(settings.method).fit(settings, data, folder, progress)


def network_spec(settings: AnalysisSettings, data: AnalysisData) -> CVNetworkSpec:
    """The CV network of the settings for the tokens of the data; chains are read from the tokens' labels."""
    assert settings.merging is not None  # the settings choose it where nobody does
    tokens = data.trajectories[0].tokens
    chains: dict[str, int] = {}
    labels = data.runs[0].labels
    numbers = tuple(chains.setdefault(label.partition(":")[0], len(chains)) for label in labels)
    return CVNetworkSpec(
        num_tokens=tokens.shape[1],
        input_width=tokens.shape[3],
        num_outputs=settings.outputs,
        mixer=settings.mixer,
        chiral=settings.chiral,
        width=settings.width,
        num_layers=settings.layers,
        merging=settings.merging,
        window=settings.merged_residues,
        chains=numbers if len(chains) > 1 else (),
        dropout=settings.dropout,
    )
