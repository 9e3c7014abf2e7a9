"""VAMPnet: slow variables learned from pairs of frames, from several random seeds, with the best weights restored."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.data import DataLoader

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import write_json
from openmm_gnn.base.specs.codec import spec_to_json
from openmm_gnn.base.specs.tokens import CVNetworkSpec
from openmm_gnn.kinetics.data import AnalysisData
from openmm_gnn.kinetics.lagged_pairs import LaggedPairs
from openmm_gnn.kinetics.methods.interface import Learned, SeedScore, TrainingCurve, network_spec
from openmm_gnn.kinetics.methods.vampnet_training import (
    PairsDataset,
    TrainingOrder,
    Vampnet,
    VampnetSettings,
    collected,
    evaluation_loader,
)
from openmm_gnn.kinetics.settings import AnalysisSettings
from openmm_gnn.kinetics.token_trajectories import TokenTrajectory, check_together, input_statistics
from openmm_gnn.kinetics.vamp import fit_vamp, held_out_score, vamp_score
from openmm_gnn.learning import trainer
from openmm_gnn.learning.trainer import BestWeights
from openmm_gnn.networks.tokens.cv_network import CVNetwork
from openmm_gnn.networks.weights import load_cv_network, save_network

TITLE = "VAMPnet"
VALIDATIONS, FEWEST_STEPS = 50, 5
"""Validations of a training that goes on to its last step, and steps between two of them, at least. Of few frames a
network has learned all there is within some dozen steps, and learns them by heart from then on."""
PATIENCE = 10
"""Validations without a better score that end a training; many, because the score rises late at first."""
SATURATED = 0.999
"""Share of the highest possible training score, 1 + outputs, that ends a training: nothing is left to learn."""
EPSILON = 1e-9
"""Regularisation of the score; the outputs of an untrained network vary by a few 1e-6, which 1e-6 would drown."""
_RESULT, _NETWORK = "result.json", "slow_variables.safetensors"


@dataclass(frozen=True)
class VampnetRun:
    """The result of one seed. The outputs of its network are the slow variables: mean 0, variance 1, slowest first."""

    seed: int
    network: CVNetwork
    best_step: int
    """The step with the highest validation score, whose weights are kept."""
    training_score: float
    """Score of the functions fitted to the training pairs, on those pairs."""
    validation_score: float
    """Score of the same functions on held-out pairs."""
    refitted_score: float
    """Score of functions fitted anew to the held-out pairs, as deeptime's networks report it."""
    singular_values: tuple[float, ...]
    timescales_ps: tuple[float, ...]
    """Both belong to the functions fitted to the training pairs."""
    rows: tuple[dict[str, float], ...]
    """One row per validation: step, batch_score, training_score, validation_score, refitted_score."""


@dataclass(frozen=True)
class VampnetResult:
    """The results of all seeds."""

    lag_ps: float
    """The lag after rounding to whole frames."""
    runs: tuple[VampnetRun, ...]

    @property
    def best(self) -> VampnetRun:
        """The seed with the highest validation score."""
        return max(self.runs, key=lambda run: run.validation_score)


def fit(settings: AnalysisSettings, data: AnalysisData, folder: Path, progress: bool) -> Learned:
    """Train every seed that is not complete; the variables are those of the best one."""
    every = min(settings.used_steps, max(FEWEST_STEPS, settings.used_steps // VALIDATIONS))
    training = VampnetSettings(
        num_steps=every * max(1, settings.used_steps // every),
        batch_size=settings.batch_size or VampnetSettings.batch_size,
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
        range(settings.used_networks),
        folder,
        progress,
        {"runs": [run.name for run in data.runs]},
    )
    pairs = sum(part.stop - part.start for part in data.training)
    per_epoch = max(1.0, pairs / training.batch_size)
    seeds, curves = [], []
    for run in result.runs:
        steps = np.array([row["step"] for row in run.rows])
        scores = np.array([row["validation_score"] for row in run.rows])
        curves.append(TrainingCurve(f"seed {run.seed}", steps / per_epoch, scores, run.best_step / per_epoch))
        epochs = math.ceil(steps[-1] / per_epoch)
        seeds.append(SeedScore(run.seed, run.training_score, run.validation_score, run.best_step / per_epoch, epochs))
    return Learned(result.best.network.eval(), seeds, result.best.seed, curves)


def train_vampnet(
    spec: CVNetworkSpec,
    training: Sequence[TokenTrajectory],
    validation: Sequence[TokenTrajectory],
    lag_ps: float,
    settings: VampnetSettings | None = None,
    seeds: Sequence[int] = (0,),
    directory: str | os.PathLike[str] | None = None,
    progress: bool = True,
    provenance: dict[str, Any] | None = None,
) -> VampnetResult:
    """Train one network per seed.

    Args:
        training, validation: trajectories that share no frame, see `split_by_time`.
        lag_ps: rounded to whole frames.
        directory: keeps a folder seed-N of each seed, with log.csv and slow_variables.safetensors: a training that was
            killed is resumed from its last validation by the same call, and complete seeds are not trained again.
            None: nothing is kept.
        provenance: metadata of the saved networks.
    Raises:
        DataError: naming the trajectory that is too short or does not fit the others, if the outputs do not vary, or
            the directory belongs to another training.
        SpecError: if the spec has other tokens than the trajectories, or a seed is given twice.
        NonFiniteError: if the training diverged.
    """
    settings = settings or VampnetSettings()
    check_together([*training, *validation], spec)
    pairs, held_out = LaggedPairs(training, lag_ps), LaggedPairs(validation, lag_ps)
    if not seeds or len(set(seeds)) < len(seeds):
        raise SpecError(f"the seeds are {list(seeds)}: give at least one, and each once")
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary if directory is None else directory)
        runs = [
            _train_seed(
                spec,
                pairs,
                held_out,
                settings,
                seed,
                home / f"seed-{seed}",
                *(f"network {number} of {len(seeds)}", progress, provenance or {}),
            )
            for number, seed in enumerate(seeds, 1)
        ]
    return VampnetResult(pairs.lag_ps, tuple(runs))


@isolate_rng()
def _train_seed(
    spec: CVNetworkSpec,
    pairs: LaggedPairs,
    held_out: LaggedPairs,
    settings: VampnetSettings,
    seed: int,
    directory: Path,
    title: str,
    progress: bool,
    provenance: dict[str, Any],
) -> VampnetRun:
    fingerprint = _fingerprint(spec, pairs, held_out, settings)
    if (directory / _RESULT).is_file():
        return _read_run(directory, fingerprint)
    trainer.begin(directory, seed)
    network = CVNetwork(spec)
    statistics = input_statistics(pairs.trajectories)
    network.set_input_statistics(statistics.scalar_mean, statistics.scalar_std, statistics.vector_scale)
    source = {"lag_ps": pairs.lag_ps, "seed": seed, "settings": dataclasses.asdict(settings), **provenance}
    module = Vampnet(network, settings, fingerprint)
    best = BestWeights(
        directory,
        ("batch_score", "training_score", "validation_score", "refitted_score"),
        lambda path, metadata: save_network(network, path, metadata),
        source,
        "validation_score",
        highest=True,
    )
    highest = 1 + SATURATED * network.num_outputs
    stopping = [
        EarlyStopping(name, mode="max", check_finite=False, check_on_train_epoch_end=False, **limit)
        for name, limit in (
            ("validation_score", {"patience": settings.patience}),
            ("training_score", {"patience": settings.num_steps, "stopping_threshold": highest}),
        )
    ]
    loaders = (
        DataLoader(PairsDataset(pairs), sampler=TrainingOrder(module, len(pairs), seed), batch_size=None),
        [evaluation_loader(part, settings.most_pairs) for part in (pairs, held_out)],
    )
    trainer.fit(
        module,
        *loaders,
        best,
        settings.num_steps,
        progress=progress,
        callbacks=stopping,
        title=title,
        use_distributed_sampler=False,
    )
    return _finish(directory, best, pairs, held_out, settings, seed, fingerprint)


def _finish(
    directory: Path,
    best: BestWeights,
    pairs: LaggedPairs,
    held_out: LaggedPairs,
    settings: VampnetSettings,
    seed: int,
    fingerprint: str,
) -> VampnetRun:
    """Load the best weights, score them again, and rotate the outputs into the slow variables."""
    network = load_cv_network(best.bundle)
    outputs = collected(network, pairs, settings.most_pairs)
    fitted = outputs.covariances(settings.reversible)
    test = collected(network, held_out, settings.most_pairs).covariances(settings.reversible)
    model = fit_vamp(fitted, settings.epsilon, truncate=True)
    network.set_output_map(model.mean_0, model.left)
    signs = torch.sign(collected(network, pairs, settings.most_pairs).third_moments)
    signs[signs == 0] = 1.0
    network.set_output_map(model.mean_0, model.left * signs)  # the rarer side is the positive one, for every seed
    run = VampnetRun(
        seed=seed,
        network=network,
        best_step=int(network.spec.metadata["step"]),
        training_score=float(vamp_score(fitted, settings.score, settings.epsilon, truncate=True)),
        validation_score=held_out_score(model, test, settings.score, settings.epsilon),
        refitted_score=float(vamp_score(test, settings.score, settings.epsilon, truncate=True)),
        singular_values=tuple(model.singular_values.tolist()),
        timescales_ps=tuple(model.timescales_ps(pairs.lag_ps).tolist()),
        rows=best.rows,
    )
    save_network(network, directory / _NETWORK)
    figures = {name: value for name, value in vars(run).items() if name != "network"}
    document = {"fingerprint": fingerprint, "run": figures}
    write_json(directory / _RESULT, document, indent=1)
    (directory / trainer.CHECKPOINT).unlink(missing_ok=True)
    return run


def _read_run(directory: Path, fingerprint: str) -> VampnetRun:
    document = json.loads((directory / _RESULT).read_text())
    if document["fingerprint"] != fingerprint:
        raise DataError(
            f"{directory} holds a training of other data, another network or other settings: give the same, or another "
            "directory"
        )
    figures: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in document["run"].items()
    }
    return VampnetRun(network=load_cv_network(directory / _NETWORK), **figures)


def _fingerprint(spec: CVNetworkSpec, pairs: LaggedPairs, held_out: LaggedPairs, settings: VampnetSettings) -> str:
    """A hash of what a resumed training must share: data (a sample of the frames), network, lag and settings."""
    sha = hashlib.sha256(spec_to_json(dataclasses.replace(spec, metadata={})).encode())
    sha.update(json.dumps({**dataclasses.asdict(settings), "lag": pairs.lag_frames}).encode())
    for part in (pairs, held_out):
        for trajectory in part.trajectories:
            sample = trajectory.tokens[:: max(1, len(trajectory) // 100)]
            weights = trajectory.log_weights
            figures = (
                len(trajectory),
                zlib.crc32(np.ascontiguousarray(sample).tobytes()),
                0 if weights is None else zlib.crc32(np.ascontiguousarray(weights).tobytes()),
            )
            sha.update(repr(figures).encode())
    return sha.hexdigest()
