"""The pair term, fitted to labelled forces by linear least squares before a network learns what is left.

Source: Izvekov and Voth, J. Phys. Chem. B 109, 2469 (2005), 10.1021/jp044629q: force matching of pair splines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from openmm_gnn.base.errors import DataError
from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs
from openmm_gnn.kernels.particle_mesh import particle_mesh
from openmm_gnn.kernels.radial_pairs import pair_types, spline_slopes
from openmm_gnn.kernels.vector_network import spline_weights
from openmm_gnn.networks.pair_term import ChargeTerm, PairTerm, box_lengths, grid_sizes

WALL_GROWTH = 2.5e6
"""kJ/mol/nm^3, force over squared depth: 300 K reach 0.014 nm into a wall where nothing else pulls or pushes."""
STEEPEST_PULL = 5e4
"""kJ/mol/nm^2: an attraction that seems to grow faster towards small distances than this is not continued."""
SLOPE_KNOTS = 2
"""The slope of the force is taken over so many spacings outside the wall."""
POINTS_PER_KNOT = 8
SMOOTHNESS = 1e-6
"""Weight of the coefficients' third differences beside the mean of the normal matrix's diagonal."""
RIDGE = 1e-9
"""The same for the coefficients themselves: decides about kinds of pairs that never come."""
END_KNOTS = 3
"""Coefficients at the cutoff that stay zero, so that energy, force and its slope vanish there."""
FEW_PAIRS = 10
"""So many pairs of a kind may be closer than where its wall begins: too few to say what the force is there."""


def put_up_walls(term: PairTerm, shortest: Tensor) -> None:
    """Replace the splines below the shortest known distances, in place.

    Least squares says nothing about pairs closer than the closest ones it saw. A simulation may start with such pairs,
    or a wrong force there may pull atoms together until nothing holds them. So the force of every kind of pair that no
    bonds connect continues inwards with the last known value and slope, and a repulsion that grows with the square of
    the depth.

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


class PairFit:
    """Normal equations of a pair term, frame by frame.

    The forces of charges are linear in the products of two species' charges: these are unknowns beside the table. The
    product matrix nearest to them that belongs to charges, neutral on the whole, gives their ratios; then table and
    size of the charges are solved for together.

    Args:
        term: whose table, and charges if it has any, `solve` fills.
        num_species: of the network.
    """

    def __init__(self, term: PairTerm, num_species: int) -> None:
        self.term = term
        self.num_species = num_species
        self.num_types, self.num_knots = term.table.shape
        self.products = [(a, b) for a in range(num_species) for b in range(a + 1)] if term.charge_term else []
        self.composition = torch.zeros(num_species, dtype=torch.float64)
        self.closest = torch.full((num_species * (num_species + 1) // 2, FEW_PAIRS), torch.inf, dtype=torch.float64)
        size = self.num_types * self.num_knots + len(self.products)
        self.matrix = torch.zeros((size, size), dtype=torch.float64)
        self.target = torch.zeros(size, dtype=torch.float64)

    def add(self, positions: Tensor, box: Tensor | None, forces: Tensor, species: Tensor, partners: Tensor) -> None:
        """One frame: (N, 3) float64 in nm and kJ/mol/nm, box vectors or None, and the tables of its topology."""
        term = self.term
        pairs, vectors, distances = neighbor_pairs(positions, term.cutoff, box, full=False)
        types = pair_types(pairs, species, partners, self.num_species)
        knots, _ = spline_weights(distances, term.start, term.cutoff, self.num_knots)
        slopes = spline_slopes(distances, term.start, term.cutoff, self.num_knots)
        columns = (types * self.num_knots + knots).unsqueeze(1) + torch.arange(4)
        used, columns = torch.unique(columns, return_inverse=True)
        for kind, known in enumerate(self.closest):
            known.copy_(torch.cat([known, distances[types == kind]]).topk(FEW_PAIRS, largest=False).values)
        units = vectors / distances.clamp(min=1e-6).unsqueeze(-1)
        features = torch.zeros(positions.size(0) * 3 * len(used), dtype=torch.float64)
        for axis in range(3):
            values = (slopes * units[:, axis : axis + 1]).reshape(-1)
            for sign, atoms in ((1.0, pairs[0]), (-1.0, pairs[1])):
                places = ((atoms * 3 + axis) * len(used)).unsqueeze(1) + columns
                features.index_add_(0, places.reshape(-1), sign * values)
        matrix = features.view(-1, len(used))
        if term.charge_term is not None:
            matrix = torch.cat([matrix, self._charge_features(positions, box, species)], dim=1)
            used = torch.cat([used, torch.arange(len(self.target) - len(self.products), len(self.target))])
            self.composition += torch.bincount(species, minlength=self.num_species)
        self.matrix[used.unsqueeze(1), used] += matrix.T @ matrix
        self.target[used] += matrix.T @ forces.reshape(-1)

    def solve(self) -> None:
        """Write the best coefficients into the pair term, and walls where there were no pairs.

        Raises:
            DataError: if there should be charges, and none explain the forces.
        """
        num_products = len(self.products)
        num_table = len(self.target) - num_products
        scale = float(self.matrix.diagonal()[:num_table].mean())
        differences = torch.zeros((self.num_knots - 3, self.num_knots), dtype=torch.float64)
        for offset, weight in enumerate((-1.0, 3.0, -3.0, 1.0)):
            differences.diagonal(offset).fill_(weight)
        penalty = scale * (SMOOTHNESS * differences.T @ differences + RIDGE * torch.eye(self.num_knots))
        matrix = self.matrix.clone()
        matrix[:num_table, :num_table] += torch.block_diag(*[penalty] * self.num_types)
        free = (torch.arange(self.num_knots) < self.num_knots - END_KNOTS).repeat(self.num_types)
        choose = torch.eye(num_table, dtype=torch.float64)[:, free]  # coefficients from those that are free
        if self.term.charge_term is not None:
            products = _solve(matrix, self.target, torch.block_diag(choose, torch.eye(num_products)))[num_table:]
            ratios = self._neutral_charges(products)
            column = torch.stack([ratios[a] * ratios[b] for a, b in self.products]).unsqueeze(1)
            choose = torch.block_diag(choose, column)
        solution = _solve(matrix, self.target, choose)
        self.term.table.copy_(solution[:num_table].view(self.num_types, self.num_knots))
        if self.term.charge_term is not None:
            largest = int(column.abs().argmax())
            square = float(solution[num_table + largest] / column[largest, 0])
            if square <= 0:
                raise DataError(
                    f"no charges explain these forces (their square came out as {square:.3g} kJ/mol nm): leave charges "
                    "out (--charge-width 0)"
                )
            self.term.charge_term.charges.copy_(square**0.5 * ratios)
        put_up_walls(self.term, self.closest.amax(dim=1))

    def _charge_features(self, positions: Tensor, box: Tensor | None, species: Tensor) -> Tensor:
        """(3 N, products): what each product of two species' charges does to the forces."""
        charge_term = self.term.charge_term
        assert charge_term is not None
        sizes = grid_sizes(box_lengths(box), charge_term.width)

        def forces(kinds: tuple[int, ...]) -> Tensor:
            charges = sum((species == kind).to(torch.float64) for kind in set(kinds))
            assert isinstance(charges, Tensor) and box is not None
            return particle_mesh(positions, charges, box, charge_term.width, sizes)[0].reshape(-1)

        alone = {a: forces((a,)) for a in range(self.num_species)}
        return torch.stack(
            [alone[a] if a == b else forces((a, b)) - alone[a] - alone[b] for a, b in self.products], dim=1
        )

    def _neutral_charges(self, products: Tensor) -> Tensor:
        """(num_species,) up to a factor: charges whose products come nearest, without the part that charges a box."""
        matrix = torch.zeros((self.num_species, self.num_species), dtype=torch.float64)
        for (a, b), value in zip(self.products, products, strict=True):
            matrix[a, b] = matrix[b, a] = value
        direction = self.composition / self.composition.norm()
        neutral = torch.eye(self.num_species, dtype=torch.float64) - torch.outer(direction, direction)
        charges = torch.linalg.eigh(neutral @ matrix @ neutral)[1][:, -1]
        return charges if float(charges[0]) >= 0 else -charges


def _solve(matrix: Tensor, target: Tensor, choose: Tensor) -> Tensor:
    """The least-squares solution among choose @ y."""
    return choose @ torch.linalg.solve(choose.T @ matrix @ choose, choose.T @ target)


def evenly(count: int, wanted: int) -> Sequence[int]:
    """At most `wanted` of `count` indices, evenly spread."""
    return range(0, count, max(1, -(-count // wanted)))
