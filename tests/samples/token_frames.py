"""Frames of random tokens, how they turn, and a training that moves every weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from openmm_gnn.learning.training.frames import random_rotation

TRAINING_STEPS = 40


def random_tokens(frames: int, num_tokens: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Tokens (frames, num_tokens, 4, width) and places (frames, num_tokens, 3), nm, on a random walk; float64."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(frames, num_tokens, 4, width, generator=generator, dtype=torch.float64)
    steps = torch.randn(frames, num_tokens, 3, generator=generator, dtype=torch.float64)
    return tokens, (0.25 * steps).cumsum(dim=1)


def rotation(seed: int = 2) -> Tensor:
    return torch.from_numpy(random_rotation(np.random.default_rng(seed)))


MIRROR = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))


def turned(tokens: Tensor, matrix: Tensor) -> Tensor:
    """Tokens of a turned molecule: vectors turn, scalars stay."""
    return torch.cat([tokens[:, :, :1], torch.einsum("xy,btyc->btxc", matrix, tokens[:, :, 1:])], dim=2)


def train(parameters: Iterable[nn.Parameter], loss: Callable[[], Tensor], steps: int = TRAINING_STEPS) -> list[float]:
    """Adam, long strides; returns the losses."""
    optimizer = torch.optim.Adam(parameters, lr=5e-3)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    return losses
