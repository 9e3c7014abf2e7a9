"""A factor that takes every message to zero at the cutoff, so that forces do not jump when a neighbour enters."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CutoffEnvelope(nn.Module):
    """Polynomial that is 1 at distance 0 and falls to 0 at the cutoff with zero slope and curvature.

    u(x) = 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2),  x = distance / cutoff; 0 from the cutoff on.
    A larger exponent p keeps the factor near 1 for longer.

    Source: Gasteiger, Gross, Guennemann, "Directional message passing for molecular graphs", ICLR 2020,
    eq. 8, arXiv 2003.03123.
    """

    def __init__(self, cutoff: float, exponent: int) -> None:
        super().__init__()
        self.cutoff = float(cutoff)
        self.exponent = int(exponent)

    def forward(self, distances: Tensor) -> Tensor:
        """Factors of the shape of `distances` (any shape, unit of the cutoff)."""
        x = (distances / self.cutoff).clamp(max=1.0)
        p = float(self.exponent)
        polynomial = (p + 1) * (p + 2) / 2 - x * (p * (p + 2) - x * (p * (p + 1) / 2))
        return 1.0 - torch.pow(x, self.exponent) * polynomial
