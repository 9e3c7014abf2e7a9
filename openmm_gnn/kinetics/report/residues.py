"""Saliency and attention of learned slow variables, over a sample of the frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from openmm_gnn.base.specs.tokens import ATTENTION_MIXERS
from openmm_gnn.kinetics.report.data import SlowData
from openmm_gnn.kinetics.report.learn import Learned
from openmm_gnn.kinetics.saliency import Saliency, saliency

SALIENCY_FRAMES = 2000
"""Evenly spaced over all runs; of each state at least LEAST_OF_STATE, where there are so many."""
LEAST_OF_STATE = 200
ATTENTION_FRAMES = 50
MOST_ATTENTION_TOKENS = 400
"""The matrix of weights is made explicitly, so its size is the square of this."""


def residue_saliency(learned: Learned, data: SlowData, states: Sequence[np.ndarray], num_states: int) -> Saliency:
    """Of every slow variable and token, over all frames and over those of each state.

    All frames are the evenly spaced ones; rare states are filled up from their own frames.
    """
    labels = np.concatenate(states)
    spaced = _evenly(len(labels), SALIENCY_FRAMES)
    chosen = [spaced]
    for state in range(num_states):
        inside = np.flatnonzero(labels == state)
        if (labels[spaced] == state).sum() < LEAST_OF_STATE:
            chosen.append(inside[_evenly(len(inside), LEAST_OF_STATE)])
    tokens, places = _frames(data, np.concatenate(chosen))
    whole = saliency(learned.network, tokens, places, data.runs[0].labels, labels[np.concatenate(chosen)], num_states)
    overall = saliency(learned.network, tokens[: len(spaced)], places[: len(spaced)], data.runs[0].labels)
    return Saliency(whole.labels, overall.overall, whole.by_state, overall.num_frames)


def residue_attention(learned: Learned, data: SlowData) -> np.ndarray | None:
    """(layers, tokens, tokens), mean over some frames and over heads; None where the network has none to show.

    Of a network that merges tokens there is one row per merged token, which figures per residue cannot show.
    """
    network = learned.cv_network
    if network is None or network.spec.mixer not in ATTENTION_MIXERS:
        return None
    num_tokens = network.spec.num_tokens
    if len(network.spec.merged_tokens) != num_tokens or num_tokens > MOST_ATTENTION_TOKENS:
        return None
    total = sum(len(trajectory) for trajectory in data.trajectories)
    tokens, places = _frames(data, _evenly(total, ATTENTION_FRAMES))
    with torch.no_grad():
        maps = network.attention_maps(torch.from_numpy(tokens), torch.from_numpy(places))
    # Learned and global tokens go first: what residues pay to them is left out of the picture.
    return np.stack([layer.mean(dim=0)[-num_tokens:, -num_tokens:].double().numpy() for layer in maps])


def _evenly(count: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)) if count else np.empty(0, int)


def _frames(data: SlowData, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and coordinates, float32, of frames counted through all runs."""
    borders = np.concatenate([[0], np.cumsum([len(trajectory) for trajectory in data.trajectories])])
    owners = np.searchsorted(borders, numbers, side="right") - 1
    first = data.trajectories[0]
    tokens = np.empty((len(numbers), *first.tokens.shape[1:]), np.float32)
    places = np.empty((len(numbers), *first.coordinates.shape[1:]), np.float32)
    for owner, trajectory in enumerate(data.trajectories):
        mine = np.flatnonzero(owners == owner)
        tokens[mine] = trajectory.tokens[numbers[mine] - borders[owner]]
        places[mine] = trajectory.coordinates[numbers[mine] - borders[owner]]
    return tokens, places
