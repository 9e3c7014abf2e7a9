"""Slow variables that are linear in the invariants of the tokens: what TICA finds, as a network of one layer.

The invariants are the scalars and the lengths of the vectors, as `observables_of` has them. TICA is the reversible case
of VAMP: Perez-Hernandez et al., J. Chem. Phys. 139, 015102 (2013), doi 10.1063/1.4811489.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import DataError

EPSILON = 1e-6
"""Directions with less of the variance than this share are left out: they are rounding."""


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
    trajectories: Iterable[np.ndarray],
    lag_frames: int,
    num_outputs: int,
    weights: Sequence[np.ndarray] | None = None,
) -> LinearVariables:
    """Slow variables with mean 0 and variance 1, the slowest first.

    Args:
        trajectories: invariants of each piece without a gap, (frames, n).
        lag_frames: frames between the two of a pair.
        weights: of each piece (frames,); of a pair, that of its first frame counts.
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
