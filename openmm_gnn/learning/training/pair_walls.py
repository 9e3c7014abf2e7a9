"""What a fitted pair term does at distances that the labels never showed: it repels.

Least squares says nothing about pairs closer than the closest ones it saw. A simulation may start with such pairs, or a
wrong force there may pull atoms together until nothing holds them. So the force of every kind of pair that no bonds
connect goes on inwards with the last known value and slope, and a repulsion that grows with the square of the depth.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from openmm_gnn.kernels.radial_pairs import spline_slopes
from openmm_gnn.networks.pair_term import ChargeTerm, PairTerm

WALL_GROWTH = 2.5e6
"""kJ/mol/nm^3, force over squared depth: 300 K reach 0.014 nm into a wall where nothing else pulls or pushes."""
STEEPEST_PULL = 5e4
"""kJ/mol/nm^2: an attraction that seems to grow faster towards small distances than this is not continued."""
SLOPE_KNOTS = 2
"""The slope of the force is taken over so many spacings outside the wall."""
POINTS_PER_KNOT = 8


def put_up_walls(term: PairTerm, shortest: Tensor) -> None:
    """Replace the splines below the shortest known distances, in place.

    Args:
        term: fitted, with its charges if it has any: the force of both together goes on.
        shortest: (kinds,) nm, for the unordered pairs of species in the order of `pair_types`; infinite where no such
            pair was seen, and nothing is replaced.
    """
    num_knots = term.table.shape[1]
    spacing = (term.cutoff - term.start) / (num_knots - 3)
    for kind, distance in enumerate(shortest.tolist()):
        count = int((distance - term.start) / spacing) if math.isfinite(distance) else 0
        if count < 1:
            continue
        coefficients = term.table[kind].to(torch.float64)
        wall = term.start + count * spacing
        reach = count + SLOPE_KNOTS
        r = term.start + spacing * torch.linspace(0, reach, reach * POINTS_PER_KNOT + 1, dtype=torch.float64)
        slopes = torch.zeros((len(r), num_knots), dtype=torch.float64)
        knots = ((r - term.start) / spacing).to(torch.int64).clamp(max=num_knots - 4)
        columns = knots.unsqueeze(1) + torch.arange(4)
        slopes.scatter_(1, columns, spline_slopes(r, term.start, term.cutoff, num_knots))
        of_charges = charge_slopes(term.charge_term, kind, r)
        edge = count * POINTS_PER_KNOT
        total = slopes @ coefficients + of_charges
        steepness = ((total[-1] - total[edge]) / (r[-1] - r[edge])).clamp(min=-STEEPEST_PULL)
        depth = wall - r[: edge + 1]
        wanted = total[edge] - steepness * depth - WALL_GROWTH * depth.square() - of_charges[: edge + 1]
        known = slopes[: edge + 1, count:] @ coefficients[count:]
        inner = torch.linalg.lstsq(slopes[: edge + 1, :count], (wanted - known).unsqueeze(1)).solution.squeeze(1)
        term.table[kind, :count] = inner.to(term.table.dtype)


def charge_slopes(charge_term: ChargeTerm | None, kind: int, distances: Tensor) -> Tensor:
    """(P,) dU/dr, kJ/mol/nm, of two Gaussian charges, of the species that make this kind of pair."""
    if charge_term is None:
        return torch.zeros_like(distances)
    high = (math.isqrt(8 * kind + 1) - 1) // 2
    product = float(charge_term.charges[high]) * float(charge_term.charges[kind - high * (high + 1) // 2])
    distances = distances.clamp(min=1e-3 * charge_term.width)
    x = distances / charge_term.width
    gaussian = math.sqrt(2 / math.pi) * torch.exp(-x.square() / 2) / (charge_term.width * distances)
    return product * (gaussian - torch.erf(x / math.sqrt(2)) / distances.square())
