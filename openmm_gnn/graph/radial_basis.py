"""Distances as smooth features: Gaussians on the raw distance, from a first centre to the cutoff."""

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
