"""Which residues a slow variable listens to: its gradient with respect to their features.

The gradient of each variable is taken with respect to each channel of each token, multiplied by the channel's standard
deviation over the frames, so that channels of different size can be compared, and the norm over a token's channels is
averaged over frames. A saliency of 1 says: one standard deviation in this token's features moves the variable by 1.
Source: Simonyan, Vedaldi, Zisserman, arXiv 1312.6034; the scaling is ours, because features have no common unit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from openmm_gnn.base.errors import DataError

BATCH_FRAMES = 256

SlowNetwork = Callable[[Tensor, Tensor], Tensor]
"""(B, T, 4, H) tokens and (B, T, 3) coordinates in nm -> (B, K)."""


@dataclass(frozen=True)
class Saliency:
    """Of each slow variable and token."""

    labels: list[str]
    """Of the tokens."""
    overall: np.ndarray
    """(K, tokens), the mean over all frames."""
    by_state: np.ndarray
    """(states, K, tokens), the mean over the frames of each state; NaN for a state without frames."""
    num_frames: int


def feature_scales(tokens: np.ndarray) -> np.ndarray:
    """The standard deviation of each channel of each token over frames.

    A vector turns with the molecule, so its components share one scale, the root mean square of what is left of them
    when the mean is taken away, and none depends on how the molecule lies.

    Args:
        tokens: (frames, T, 4, H).
    Returns:
        (T, 4, H)
    """
    spread = np.asarray(tokens, np.float64).std(axis=0)
    shared = np.sqrt((spread[:, 1:] ** 2).mean(axis=1, keepdims=True))
    return np.concatenate([spread[:, :1], np.repeat(shared, 3, axis=1)], axis=1)


def saliency(
    network: SlowNetwork,
    tokens: np.ndarray,
    coordinates: np.ndarray,
    labels: list[str],
    states: np.ndarray | None = None,
    num_states: int = 0,
) -> Saliency:
    """Of a network, over some frames.

    Args:
        network: in evaluation mode, differentiable.
        tokens: (frames, T, 4, H).
        coordinates: (frames, T, 3) nm.
        states: (frames,) integers, -1 for none.
    Raises:
        DataError: without frames, or where a gradient is not finite.
    """
    if not len(tokens):
        raise DataError("no frames to take a saliency of: give longer runs")
    scales = torch.from_numpy(feature_scales(tokens)).float()
    parts = []
    for start in range(0, len(tokens), BATCH_FRAMES):
        rows = slice(start, start + BATCH_FRAMES)
        parts.append(_gradients(network, tokens[rows], coordinates[rows], scales))
    gradients = np.concatenate(parts)
    if not np.isfinite(gradients).all():
        bad = int(np.flatnonzero(~np.isfinite(gradients).all(axis=(1, 2)))[0])
        raise DataError(f"the gradient of a slow variable is not finite in frame {bad}: look at the features there")
    by_state = np.full((num_states, *gradients.shape[1:]), np.nan)
    for state in range(num_states):
        if states is not None and (states == state).any():
            by_state[state] = gradients[states == state].mean(axis=0)
    return Saliency(labels, gradients.mean(axis=0), by_state, len(gradients))


def _gradients(network: SlowNetwork, tokens: np.ndarray, coordinates: np.ndarray, scales: Tensor) -> np.ndarray:
    """(frames, K, T)"""
    given = torch.from_numpy(np.asarray(tokens, np.float32)).requires_grad_()
    places = torch.from_numpy(np.asarray(coordinates, np.float32))
    with torch.enable_grad():
        outputs = network(given, places)
        columns = []
        for k in range(outputs.shape[1]):
            (gradient,) = torch.autograd.grad(outputs[:, k].sum(), given, retain_graph=k + 1 < outputs.shape[1])
            columns.append((gradient * scales).square().sum(dim=(2, 3)).sqrt())
    return torch.stack(columns, dim=1).detach().double().numpy()
