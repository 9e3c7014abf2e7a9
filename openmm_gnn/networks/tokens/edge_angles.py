"""How the vectors of two tokens lie to each other: angles that need no coordinates, by which messages are weighed."""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from openmm_gnn.networks.encoders.equivariant_blocks import sum_over_edges

SOFTNESS = 0.1
"""Lengths below this count less and less. The published code divides by whatever length there is, above 1e-8: the
dihedral about a token whose last but one neighbour leaves would then swing from 1 to 0 within 1e-6 nm."""


def edge_angles(
    vectors: Tensor, tails: Tensor, heads: Tensor, weights: Tensor, chiral: bool, softness: float
) -> Tensor:
    """Cosine of an angle and of a dihedral for each edge and channel, and the sine of that dihedral.

    e = v_head - v_tail, made a unit vector, stands for the bond; u of a token is the weighted sum of its outgoing e.
    The angle is that of u_tail and e; the dihedral that of u_tail and u_head about e, whose sine changes sign in a
    mirror. All are a product over the lengths of its factors, sqrt(length^2 + softness^2).

    Args:
        vectors: (N, 3, C).
        tails, heads: (E,) int64.
        weights: (E,), so that an edge that ends at a cutoff goes out of the sums gently.
        chiral: whether the sine is wanted.
        softness: above 0, in the unit of the vectors and of the weights.
    Returns:
        (E, C, 2), or (E, C, 3) with the sine; between -1 and 1.
    Source: the local convolution of Pengmei et al., arXiv 2512.06520; the angles as in Wang et al., Nat. Commun. 15,
    313 (2024), arXiv 2210.16518.
    """
    bonds = vectors.index_select(0, heads) - vectors.index_select(0, tails)
    bonds = bonds / _divisors(bonds, softness).unsqueeze(1)
    sums = sum_over_edges(bonds * weights.unsqueeze(1).unsqueeze(2), tails, vectors.shape[0])
    at_tail, at_head = sums.index_select(0, tails), sums.index_select(0, heads)
    along_tail, along_head = (at_tail * bonds).sum(dim=1), (at_head * bonds).sum(dim=1)
    across_tail = at_tail - along_tail.unsqueeze(1) * bonds
    across_head = at_head - along_head.unsqueeze(1) * bonds
    product = _divisors(across_tail, softness) * _divisors(across_head, softness)
    found = [along_tail / _divisors(at_tail, softness), (across_tail * across_head).sum(dim=1) / product]
    if chiral:
        found.append((torch.linalg.cross(across_tail, across_head, dim=1) * bonds).sum(dim=1) / product)
    return torch.stack(found, dim=-1)


def _divisors(vectors: Tensor, softness: float) -> Tensor:
    """(N, C) softened lengths of (N, 3, C) vectors."""
    return torch.sqrt(vectors.square().sum(dim=1) + softness * softness)


class EdgeGates(nn.Module):
    """Two gates per edge and channel, from the angles of a few mixed vector channels."""

    def __init__(self, width: int, chiral: bool, channels: int = 16, hidden: int = 16) -> None:
        super().__init__()
        self.chiral = chiral
        self.softness = SOFTNESS
        self.reduced = nn.Linear(width, channels, bias=False)
        self.hidden = nn.ModuleList([nn.Linear(3 if chiral else 2, hidden) for _ in range(2)])
        self.out = nn.ModuleList([nn.Linear(hidden, 1) for _ in range(2)])
        self.expanded = nn.ModuleList([nn.Linear(channels, width) for _ in range(2)])

    def forward(self, vectors: Tensor, tails: Tensor, heads: Tensor, weights: Tensor) -> list[Tensor]:
        """(N, 3, width) and three of (E,) -> two of (E, width), between 0 and 1."""
        angles = edge_angles(self.reduced(vectors), tails, heads, weights, self.chiral, self.softness)
        gates: list[Tensor] = []
        for hidden, out, expanded in zip(self.hidden, self.out, self.expanded):  # noqa: B905  (TorchScript)
            gates.append(torch.sigmoid(expanded(out(silu(hidden(angles))).squeeze(-1))))
        return gates
