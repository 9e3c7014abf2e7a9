"""Slow variables learned in the way that was asked for, and what the training came to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from openmm_gnn.base.files import write_arrays
from openmm_gnn.base.specs.tokens import CVNetworkSpec
from openmm_gnn.kinetics.linear_variables import LinearVariables, fit_tica
from openmm_gnn.kinetics.report.data import SlowData, stretches
from openmm_gnn.kinetics.report.results import SeedScore
from openmm_gnn.kinetics.report.score_figures import TrainingCurve
from openmm_gnn.kinetics.settings import AnalysisSettings, Method
from openmm_gnn.kinetics.token_trajectories import TokenTrajectory
from openmm_gnn.networks.tokens.cv_network import CVNetwork
from openmm_gnn.reporters.store_exports import observables_of

VALIDATIONS = 20
"""In a training that goes on to its last step."""
PATIENCE = 8
"""Validations without a better score that end a training: of many steps, because the score rises late at first."""
EPSILON = 1e-9
"""Of the score: the outputs of a network that has learned nothing yet vary by a few 1e-6, which 1e-6 would drown."""
CHUNK_FRAMES = 4096


@dataclass(frozen=True)
class Learned:
    """A function from tokens to slow variables, and how it came about."""

    network: nn.Module
    """(B, T, 4, H) and (B, T, 3) -> (B, K), in evaluation mode."""
    seeds: list[SeedScore]
    chosen_seed: int | None
    curves: list[TrainingCurve]
    states: list[np.ndarray] | None = None
    """States that were learned too, of each run (frames,)."""

    @property
    def cv_network(self) -> CVNetwork | None:
        """The network, if it is one that a simulation can be biased with."""
        return self.network if isinstance(self.network, CVNetwork) else None

    def along(self, trajectory: TokenTrajectory) -> np.ndarray:
        """(frames, K) float64 slow variables of a trajectory."""
        dtype = next(iter(self.network.state_dict().values())).dtype
        with torch.no_grad():
            parts = [self.network(*batch).double().numpy() for batch in trajectory.batches(dtype)]
        return np.concatenate(parts)


def learn(settings: AnalysisSettings, data: SlowData, directory: Path, progress: bool) -> Learned:
    """Learn slow variables from the training parts, and choose among seeds by the held-out ones.

    Args:
        directory: keeps what is complete; the same call again takes it from there.
        progress: whether bars are shown.
    Raises:
        DataError, SpecError, NonFiniteError: as the trainings raise them.
    """
    directory.mkdir(parents=True, exist_ok=True)
    from openmm_gnn.kinetics.report.spib import learn_spib

    learners = {Method.VAMPNET: _learn_vampnet, Method.SPIB: learn_spib, Method.TICA: _learn_tica}
    return learners[settings.method](settings, data, directory, progress)


def network_spec(settings: AnalysisSettings, data: SlowData) -> CVNetworkSpec:
    """Of the network that is trained; chains are read from the labels of the tokens."""
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
        width=settings.width,
        num_layers=settings.layers,
        merging=settings.merging,
        window=settings.window,
        chains=numbers if len(chains) > 1 else (),
        dropout=settings.dropout,
    )


def _learn_vampnet(settings: AnalysisSettings, data: SlowData, directory: Path, progress: bool) -> Learned:
    from openmm_gnn.kinetics.vampnet import train_vampnet
    from openmm_gnn.kinetics.vampnet_training import VampnetSettings

    every = max(1, settings.used_steps // VALIDATIONS)
    training = VampnetSettings(
        num_steps=every * max(1, settings.used_steps // every),
        batch_size=settings.batch_size,
        validate_every=every,
        patience=PATIENCE,
        epsilon=EPSILON,
    )
    result = train_vampnet(
        network_spec(settings, data),
        data.cut(data.training),
        data.cut(data.validation),
        settings.lag,
        training,
        range(settings.used_seeds),
        directory,
        progress,
        {"runs": [run.name for run in data.runs]},
    )
    pairs = sum(part.stop - part.start for part in data.training)
    per_epoch = max(1.0, pairs / settings.batch_size)
    seeds, curves = [], []
    for run in result.runs:
        steps = np.array([row["step"] for row in run.rows])
        scores = np.array([row["validation_score"] for row in run.rows])
        curves.append(TrainingCurve(f"seed {run.seed}", steps / per_epoch, scores, run.best_step / per_epoch))
        epochs = math.ceil(steps[-1] / per_epoch)
        seeds.append(SeedScore(run.seed, run.training_score, run.validation_score, run.best_step / per_epoch, epochs))
    return Learned(result.best.network.eval(), seeds, result.best.seed, curves)


def _learn_tica(settings: AnalysisSettings, data: SlowData, directory: Path, progress: bool) -> Learned:
    file = directory / "tica.npz"
    if not file.is_file():
        lag = max(1, round(settings.lag / data.interval_ps))
        weights = None if data.log_weights is None else list(_piece_weights(data))
        network = fit_tica(_pieces(data), lag, settings.outputs, weights)
        write_arrays(file, mean=network.mean.numpy(), matrix=network.matrix.numpy())
    with np.load(file) as stored:
        return Learned(
            LinearVariables(torch.from_numpy(stored["mean"]), torch.from_numpy(stored["matrix"])), [], None, []
        )


def _pieces(data: SlowData) -> Iterator[np.ndarray]:
    """The invariants of every training piece without a gap, one after the other."""
    for trajectory in data.cut(data.training):
        for rows in stretches(trajectory.segments):
            parts = [
                observables_of(trajectory.tokens[start : min(start + CHUNK_FRAMES, rows.stop)])
                for start in range(rows.start, rows.stop, CHUNK_FRAMES)
            ]
            yield np.concatenate(parts)


def _piece_weights(data: SlowData) -> Iterator[np.ndarray]:
    trajectories = data.cut(data.training)
    highest = max(float(one.log_weights.max()) for one in trajectories if one.log_weights is not None)
    for trajectory in trajectories:
        assert trajectory.log_weights is not None
        for rows in stretches(trajectory.segments):
            yield np.exp(trajectory.log_weights[rows] - highest)
