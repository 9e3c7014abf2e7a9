"""Smooth functions of distance: a basis of Gaussians, and the factor that takes every message to zero at the cutoff."""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import torch
from torch import Tensor, nn


class GaussianBasis(nn.Module):
    """Equally spaced Gaussians exp(-(d - c_k)^2 / (2 w^2)) whose width w is their spacing.

    Departure from the published GAMD: the raw distance goes in, not the z-scored one, so the basis covers the whole
    range up to the cutoff.

    Source: Schuett et al., "SchNet", NeurIPS 2017, eq. 3, arXiv 1706.08566.
    """

    centers: Tensor

    def __init__(self, start: float, cutoff: float, num_radial: int) -> None:
        super().__init__()
        self.register_buffer("centers", torch.linspace(start, cutoff, num_radial), persistent=False)
        spacing = (cutoff - start) / (num_radial - 1)
        self.scale = -0.5 / spacing**2

    def forward(self, distances: Tensor) -> Tensor:
        """(P,) distances -> (P, num_radial) features, in [0, 1]."""
        exponents = self.scale * (distances.unsqueeze(-1) - self.centers).square()
        return torch.exp(exponents.clamp(min=-40.0))  # below lie denormal numbers, which cost a CPU 20 times more


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
