"""Smooth functions of distance: a basis of Gaussians, the factor that ends messages at the cutoff, and tables of both.

What a network computes of a distance alone need not be computed for each edge: it is in a table. Between two knots a
function is the cubic that has its values and slopes there (Hermite). Knots lie where the radial basis of the encoders
is sharp: evenly in a mixture of exp(-5 d / cutoff) and d, 770 in all, less than 0.004 cutoffs apart. Values and slopes
are computed in float64; interpolation changes the basis of the public checkpoints, where atoms can be, by less than
4e-7.
"""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import functools
import math
from collections.abc import Callable

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


def distances_in_knots(distances: Tensor, cutoff: float, decaying: float = 513.0, even: float = 256.0) -> Tensor:
    """(E,) float64, where distances lie among the knots of a table, from 0 to `decaying` + `even` at the cutoff."""
    distances = distances.to(torch.float64)
    fallen = (1.0 - torch.exp((-5.0 / cutoff) * distances)) * (decaying / (1.0 - math.exp(-5.0)))
    return fallen + distances * (even / cutoff)


def filter_table(function: Callable[[Tensor], Tensor], cutoff: float) -> Tensor:
    """(770, 2, C) float32: values of a function of distance at the knots, and its slopes per knot.

    Args:
        function: (K,) float64 distances -> (K, C), differentiable, each row of its own distance alone.
        cutoff: where the last knot lies.
    """
    knots, lengths_per_knot = _knots(cutoff)
    with torch.inference_mode(False), torch.enable_grad():
        distances = knots.clone().requires_grad_()
        values = function(distances)
        # Of all columns at once: the gradient of a sum with any weights, and of that the gradient by the weights.
        # Forward differentiation says the same, but its first use in a process takes PyTorch three seconds of imports;
        # so do gradients of what is no single number, one second.
        weights = torch.zeros_like(values, requires_grad=True)
        (gradient,) = torch.autograd.grad((values * weights).sum(), distances, create_graph=True)
        (slopes,) = torch.autograd.grad((gradient * lengths_per_knot).sum(), weights)
    return torch.stack([values.detach(), slopes], dim=1).to(torch.float32).contiguous()


@functools.cache
def _knots(cutoff: float) -> tuple[Tensor, Tensor]:
    """(770,) float64 each: the distances at the knots, and how far apart knots lie there."""
    with torch.inference_mode(False), torch.enable_grad():
        whole = int(distances_in_knots(torch.tensor([cutoff], dtype=torch.float64), cutoff).round())
        knots = torch.arange(whole + 1, dtype=torch.float64)
        low, high = torch.zeros_like(knots), torch.full_like(knots, cutoff)
        for _ in range(60):  # bisection: they grow with distance
            middle = 0.5 * (low + high)
            below = distances_in_knots(middle, cutoff) < knots
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        high[0] = 0.0
        distances = high.clone().requires_grad_()
        (knots_per_length,) = torch.autograd.grad(distances_in_knots(distances, cutoff).sum(), distances)
        return high, 1.0 / knots_per_length


def used_knots(in_knots: Tensor, num_knots: int) -> tuple[Tensor, Tensor]:
    """The knots that interpolation at some distances reads, and where these lie in a table of these knots alone.

    Atoms are far apart in units of knots: of a molecule's 770 about half are read.

    Args:
        in_knots: (E,) of `distances_in_knots`.
    Returns:
        (K,) int64, rising, K at least 2, and (E,) float64.
    """
    in_knots = in_knots.detach().clamp(0, num_knots - 1)
    below = in_knots.to(torch.int64).clamp(max=num_knots - 2)
    used = torch.zeros(num_knots, dtype=torch.bool)
    used[:2] = True
    used[below] = True
    used[below + 1] = True
    rank = torch.cumsum(used, 0) - 1
    return used.nonzero().squeeze(1), rank.index_select(0, below) + (in_knots - below)
