"""The learning rate over a training: a linear rise, then half a cosine."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

LAST_FACTOR = 1e-4
"""Of the highest learning rate, at the end."""


def rise_and_cosine(optimizer: Optimizer, warmup_steps: int, num_steps: int) -> LambdaLR:
    """A schedule by step: up to the optimizer's learning rate in `warmup_steps`, and down by `num_steps`.

    Source: Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, arXiv 1608.03983,
    eq. (5), without restarts.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress))) + LAST_FACTOR

    return LambdaLR(optimizer, factor)
