"""TICA: slow variables that are linear in the invariants of the tokens, as a network of one layer.

The invariants are the scalars and the lengths of the vectors, as `observables_of` has them. TICA is the reversible case
of VAMP: Perez-Hernandez et al., J. Chem. Phys. 139, 015102 (2013), doi 10.1063/1.4811489.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.files import write_arrays
from openmm_gnn.kinetics.data import AnalysisData
from openmm_gnn.kinetics.methods.interface import Learned
from openmm_gnn.kinetics.settings import AnalysisSettings
from openmm_gnn.kinetics.token_trajectories import relative_weights
from openmm_gnn.reporters.store_exports import observables_of

TITLE = "TICA"
EPSILON = 1e-6
"""Share of the variance below which a direction is left out, as rounding."""
CHUNK_FRAMES = 4096


class LinearVariables(nn.Module):
    """Tokens -> (invariants - mean) @ matrix."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, mean: Tensor, matrix: Tensor) -> None:
        """
        Args:
            mean: (tokens * 2 H,)
            matrix: (tokens * 2 H, K)
        """
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("matrix", matrix)

    def forward(self, tokens: Tensor, coordinates: Tensor) -> Tensor:
        """(B, T, 4, H) and (B, T, 3), which is not used -> (B, K)."""
        squared = tokens[:, :, 1:].square().sum(dim=2)
        lengths = torch.where(squared > 0, squared, torch.ones_like(squared)).sqrt() * (squared > 0)
        invariants = torch.cat([tokens[:, :, 0], lengths], dim=2).flatten(1)
        return (invariants - self.mean) @ self.matrix


def fit_tica(
    trajectories: Iterable[np.ndarray], lag_frames: int, num_outputs: int, weights: Sequence[np.ndarray] | None = None
) -> LinearVariables:
    """Fit slow variables with mean 0 and variance 1, the slowest first.

    Args:
        trajectories: (frames, n) invariants of each piece without a gap.
        lag_frames: frames between the two of a pair.
        weights: (frames,) weights of each piece; a pair has the weight of its first frame.
    Raises:
        DataError: if no piece is longer than the lag, or the invariants have fewer directions than outputs.
    """
    from deeptime.decomposition import TICA
    from deeptime.numeric import ZeroRankError

    estimator = TICA.covariance_estimator(lag_frames)
    used = 0
    for number, piece in enumerate(trajectories):
        if len(piece) <= lag_frames:
            continue
        values = np.asarray(piece, np.float64)
        own = None if weights is None else weights[number][:-lag_frames]
        estimator.partial_fit((values[:-lag_frames], values[lag_frames:]), weights=own)
        used += len(values) - lag_frames
    if not used:
        raise DataError(f"no stretch of the runs is longer than the lag of {lag_frames} frames: choose a shorter lag")
    try:
        fitted = TICA(lagtime=lag_frames, epsilon=EPSILON, scaling=None).fit_from_covariances(estimator).fetch_model()
    except ZeroRankError as error:
        raise DataError(
            "the features do not vary from frame to frame: nothing is slow, or the encoder is not trained"
        ) from error
    found = fitted.singular_vectors_left
    if found.shape[1] < num_outputs:
        raise DataError(
            f"the features have {found.shape[1]} independent directions, {num_outputs} outputs were asked for: ask for "
            "fewer"
        )
    mean = torch.from_numpy(np.asarray(fitted.mean_0)).float()
    return LinearVariables(mean, torch.from_numpy(np.ascontiguousarray(found[:, :num_outputs])).float())


def fit(settings: AnalysisSettings, data: AnalysisData, folder: Path, progress: bool) -> Learned:
    """TICA of the training parts; there is nothing random in it, so it has no seeds."""
    file = folder / "tica.npz"
    if not file.is_file():
        weights = None if data.log_weights is None else _training_weights(data)
        network = fit_tica(training_invariants(data), data.in_frames(settings.lag), settings.outputs, weights)
        write_arrays(file, mean=network.mean.numpy(), matrix=network.matrix.numpy())
    with np.load(file) as stored:
        return Learned(LinearVariables(torch.from_numpy(stored["mean"]), torch.from_numpy(stored["matrix"])))


def training_invariants(data: AnalysisData) -> Iterator[np.ndarray]:
    """(frames, n) invariants of each training piece without a gap, one after the other."""
    for trajectory in data.cut(data.training):
        for rows in trajectory.pieces:
            parts = [
                observables_of(trajectory.tokens[start : min(start + CHUNK_FRAMES, rows.stop)])
                for start in range(rows.start, rows.stop, CHUNK_FRAMES)
            ]
            yield np.concatenate(parts)


def _training_weights(data: AnalysisData) -> list[np.ndarray]:
    """(frames,) weights of the frames of each of those pieces, at most 1."""
    trajectories = data.cut(data.training)
    weights = relative_weights([one.log_weights for one in trajectories if one.log_weights is not None])
    return [own[rows] for one, own in zip(trajectories, weights, strict=True) for rows in one.pieces]
