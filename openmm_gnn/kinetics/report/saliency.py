"""Saliency and attention of residues: how much each slow variable depends on their features.

The gradient of each variable is taken with respect to each channel of each token, multiplied by the channel's standard
deviation over the frames, so that channels of different size can be compared, and the norm over a token's channels is
averaged over frames. A saliency of 1 means: one standard deviation in this token's features moves the variable by 1.
Source: Simonyan, Vedaldi, Zisserman, arXiv 1312.6034; the scaling is ours, because features have no common unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.specs.tokens import ATTENTION_MIXERS
from openmm_gnn.kinetics.data import AnalysisData
from openmm_gnn.kinetics.methods.interface import Learned
from openmm_gnn.kinetics.token_trajectories import CHUNK_BYTES, evenly_spaced, frames_at, frames_in

BATCH_FRAMES = 256
SALIENCY_FRAMES = 2000
"""Frames of the saliency, evenly spaced over all runs; each state has at least LEAST_OF_STATE, where it has so many."""
LEAST_OF_STATE = 200
SALIENCY_BYTES = 2**28
"""Memory of the features of those frames: of the evenly spaced ones, and of those for states."""
ATTENTION_FRAMES = 50
MOST_ATTENTION_TOKENS = 400
"""Tokens above which no attention is shown: the matrix of weights is made explicitly, and is the square of this."""

SlowNetwork = Callable[[Tensor, Tensor], Tensor]
"""(B, T, 4, H) tokens and (B, T, 3) coordinates in nm -> (B, K)."""


@dataclass(frozen=True)
class Saliency:
    """The saliency of each token for each slow variable."""

    labels: list[str]
    """Names of the tokens."""
    overall: np.ndarray
    """(K, tokens) means over all frames."""
    by_state: np.ndarray
    """(states, K, tokens) means over the frames of each state; NaN for a state without frames."""
    num_frames: int


def residue_saliency(learned: Learned, data: AnalysisData, states: Sequence[np.ndarray], num_states: int) -> Saliency:
    """The saliency over evenly spaced frames, and over those of each state.

    Rare states are filled up from their own frames.
    """
    labels, tokens = np.concatenate(states), data.trajectories[0].tokens
    spaced = evenly_spaced(len(labels), frames_in(SALIENCY_BYTES, tokens, SALIENCY_FRAMES))
    least = frames_in(SALIENCY_BYTES // max(1, num_states), tokens, LEAST_OF_STATE)
    chosen = [spaced]
    for state in range(num_states):
        inside = np.flatnonzero(labels == state)
        if (labels[spaced] == state).sum() < least:
            chosen.append(inside[evenly_spaced(len(inside), least)])
    rows, names = np.concatenate(chosen), data.runs[0].labels
    frames, coordinates = (part.numpy() for part in frames_at(data.trajectories, rows))
    whole = saliency(learned.network, frames, coordinates, names, labels[rows], num_states)
    overall = saliency(learned.network, frames[: len(spaced)], coordinates[: len(spaced)], names)
    return Saliency(whole.labels, overall.overall, whole.by_state, overall.num_frames)


def residue_attention(learned: Learned, data: AnalysisData) -> np.ndarray | None:
    """(layers, tokens, tokens) attention, mean over some frames and over heads; None where there is none per residue.

    A network that merges tokens has one row per merged token, which figures per residue cannot show.
    """
    network = learned.cv_network
    if network is None or network.spec.mixer not in ATTENTION_MIXERS:
        return None
    num_tokens = network.spec.num_tokens
    if len(network.spec.merged_tokens) != num_tokens or num_tokens > MOST_ATTENTION_TOKENS:
        return None
    total = sum(len(trajectory) for trajectory in data.trajectories)
    tokens, coordinates = frames_at(data.trajectories, evenly_spaced(total, ATTENTION_FRAMES))
    with torch.no_grad():
        maps = network.attention_maps(tokens, coordinates)
    # Learned and global tokens come first: attention to them is left out of the picture.
    return np.stack([layer.mean(dim=0)[-num_tokens:, -num_tokens:].double().numpy() for layer in maps])


def feature_scales(tokens: np.ndarray) -> np.ndarray:
    """The standard deviation of each channel of each token over frames.

    A vector turns with the molecule, so its components share one scale, the root mean square of their deviations from
    the mean, which does not depend on the orientation of the molecule.

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
    """The saliency of a network over some frames.

    Args:
        network: in evaluation mode, differentiable.
        tokens: (frames, T, 4, H).
        coordinates: (frames, T, 3) nm.
        states: (frames,) integers, -1 for none.
    Raises:
        DataError: without frames, or where a gradient is not finite.
    """
    if not len(tokens):
        raise DataError("no frames for a saliency: give longer runs")
    scales = torch.from_numpy(feature_scales(tokens)).float()
    parts, portion = [], frames_in(CHUNK_BYTES, tokens, BATCH_FRAMES)
    for start in range(0, len(tokens), portion):
        rows = slice(start, start + portion)
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
    located = torch.from_numpy(np.asarray(coordinates, np.float32))
    with torch.enable_grad():
        outputs = network(given, located)
        columns = []
        for k in range(outputs.shape[1]):
            (gradient,) = torch.autograd.grad(outputs[:, k].sum(), given, retain_graph=k + 1 < outputs.shape[1])
            columns.append((gradient * scales).square().sum(dim=(2, 3)).sqrt())
    return torch.stack(columns, dim=1).detach().double().numpy()
