"""Layers on scalars (..., C) and vectors (..., 3, C) of tokens that turn as the molecule turns, trained or not.

Channels are mixed, x, y and z never: each layer does to all three the same. `edge_angles` are numbers that need no
coordinates; in the attention one softmax weighs the scalars and the vectors of the tokens alike.
"""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, silu

from openmm_gnn.kernels.attention import attend, attention_weights, join_heads, split_heads
from openmm_gnn.kernels.neighbor_pairs import safe_distances
from openmm_gnn.networks.encoders.equivariant_blocks import GatedVectors, sum_over_edges


class EquivariantLinear(nn.Module):
    """One linear map of the scalars; one of the vectors, without the bias that would point somewhere."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.scalars = nn.Linear(channels_in, channels_out)
        self.vectors = nn.Linear(channels_in, channels_out, bias=False)

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(..., channels_in) and (..., 3, channels_in) -> the same with channels_out."""
        return self.scalars(scalars), self.vectors(vectors)


class Chirality(nn.Module):
    """Adds to scalars a linear map of triple products of vectors, which change sign in a mirror. Scriptable.

    The channels c, c + 1 and c + 2 make one: a . (b x c) / sqrt((1 + a^2) (1 + b^2) (1 + c^2)), smooth and below 1.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, bias=False)

    def forward(self, scalars: Tensor, vectors: Tensor) -> Tensor:
        """(B, tokens, width) scalars.

        Args:
            scalars: (B, tokens, width).
            vectors: (B, tokens, 3, width).
        """
        vectors = vectors / torch.sqrt(1.0 + vectors.square().sum(dim=2, keepdim=True))
        ax, ay, az = vectors[:, :, 0], vectors[:, :, 1], vectors[:, :, 2]
        second, third = torch.roll(vectors, 1, dims=[3]), torch.roll(vectors, 2, dims=[3])
        bx, by, bz = second[:, :, 0], second[:, :, 1], second[:, :, 2]
        cx, cy, cz = third[:, :, 0], third[:, :, 1], third[:, :, 2]
        triple = ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
        return scalars + self.linear(triple)


class GatedProjection(nn.Module):
    """Two gated blocks, by which the lengths of the vectors come into the scalars.

    Source: Pengmei et al., "geom2vec", J. Chem. Phys. 162 (2025), arXiv 2409.19838; the blocks: see `GatedVectors`.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = GatedVectors(channels_in, channels_in, channels_in)
        self.second = GatedVectors(channels_in, channels_out, channels_out)

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, channels_in) and (B, T, 3, channels_in) -> the same with channels_out."""
        leading = [scalars.shape[0], scalars.shape[1]]
        flat, flat_vectors = self.first(scalars.flatten(0, 1), vectors.flatten(0, 1))
        flat, flat_vectors = self.second(silu(flat), flat_vectors)
        return flat.unflatten(0, leading), flat_vectors.unflatten(0, leading)


class EquivariantNorm(nn.Module):
    """LayerNorm of each token's scalars; its vectors over the root mean square of their lengths, times a weight each.

    A token's norm depends on that token alone, so a frame has the same outputs in any batch; the published norm takes
    the mean over batch and tokens and has a weight for each of x, y and z, which breaks the equivariance once trained.

    Source: Ba, Kiros, Hinton, arXiv 1607.06450; of vectors: Jing et al., ICLR 2021, sec. 3, arXiv 2009.01411.
    """

    def __init__(self, channels: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.scalars = nn.LayerNorm(channels)
        self.vector_weight = nn.Parameter(torch.ones(channels))

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(..., C) and (..., 3, C) -> the same."""
        mean_square = vectors.square().sum(dim=-2, keepdim=True).mean(dim=-1, keepdim=True)
        return self.scalars(scalars), vectors * torch.rsqrt(mean_square + self.epsilon) * self.vector_weight


class EquivariantDropout(nn.Module):
    """Dropout of scalars, and of whole vectors: of none the x alone."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(..., C) and (..., 3, C) -> the same."""
        if not self.training or self.probability == 0.0:
            return scalars, vectors
        kept = dropout(torch.ones_like(vectors.narrow(-2, 0, 1)), self.probability, True)
        return dropout(scalars, self.probability, True), vectors * kept


class GatedFeedForward(nn.Module):
    """Two linear maps of scalars and of vectors; between them the scalars gate the vectors.

    Source: Pengmei et al., arXiv 2512.06520; the gate: Schuett, Unke, Gastegger, ICML 2021, arXiv 2102.03150.
    """

    def __init__(self, channels: int, probability: float) -> None:
        super().__init__()
        self.channels = channels
        self.scalars_in = nn.Linear(channels, 2 * channels)
        self.vectors_in = nn.Linear(channels, channels, bias=False)
        self.dropout = EquivariantDropout(probability)
        self.out = EquivariantLinear(channels, channels)

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(..., C) and (..., 3, C) -> the same."""
        both = self.scalars_in(scalars)
        gates, hidden = both[..., : self.channels], both[..., self.channels :]
        hidden, inner = self.dropout(silu(hidden), torch.sigmoid(gates).unsqueeze(-2) * self.vectors_in(vectors))
        return self.out(hidden, inner)


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
    bonds = bonds / soft_lengths(bonds, softness).unsqueeze(1)
    sums = sum_over_edges(bonds * weights.unsqueeze(1).unsqueeze(2), tails, vectors.shape[0])
    at_tail, at_head = sums.index_select(0, tails), sums.index_select(0, heads)
    along_tail, along_head = (at_tail * bonds).sum(dim=1), (at_head * bonds).sum(dim=1)
    across_tail = at_tail - along_tail.unsqueeze(1) * bonds
    across_head = at_head - along_head.unsqueeze(1) * bonds
    product = soft_lengths(across_tail, softness) * soft_lengths(across_head, softness)
    found = [along_tail / soft_lengths(at_tail, softness), (across_tail * across_head).sum(dim=1) / product]
    if chiral:
        found.append((torch.linalg.cross(across_tail, across_head, dim=1) * bonds).sum(dim=1) / product)
    return torch.stack(found, dim=-1)


def soft_lengths(vectors: Tensor, softness: float) -> Tensor:
    """(N, C) lengths sqrt(length^2 + softness^2) of (N, 3, C) vectors, differentiable where a vector has no length."""
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


LOCAL_REACH = 4
"""Neighbours along the sequence, on either side, that a local query and key are made of."""


class LinearQueryKey(nn.Module):
    """Queries and keys from the scalars of the token itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, width) and (B, T, 3, width) -> two of (B, T, width)."""
        return self.query(scalars), self.key(scalars)


class LocalQueryKey(nn.Module):
    """Queries and keys from the scalars of the neighbours along the chain, weighed by the angles of the vectors.

    Source: the local query-key convolution of Pengmei et al., arXiv 2512.06520.
    """

    tails: Tensor
    heads: Tensor

    def __init__(self, width: int, chains: Sequence[int], chiral: bool, reach: int = LOCAL_REACH) -> None:
        """
        Args:
            chains: (T,) the chain of each token; neighbours are of one chain.
            chiral: see `edge_angles`.
            reach: neighbours along the chain, on either side.
        """
        super().__init__()
        self.gates = EdgeGates(width, chiral)
        edges = [
            (tail, head)
            for tail, chain in enumerate(chains)
            for head in range(max(0, tail - reach), min(len(chains), tail + reach + 1))
            if head != tail and chains[head] == chain
        ]
        tails, heads = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).unbind(1)
        self.register_buffer("tails", tails.contiguous(), persistent=False)
        self.register_buffer("heads", heads.contiguous(), persistent=False)

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, width) and (B, T, 3, width) -> two of (B, T, width)."""
        leading = [scalars.shape[0], scalars.shape[1]]
        starts = leading[1] * torch.arange(leading[0], device=scalars.device).unsqueeze(1)
        tails, heads = (starts + self.tails).flatten(), (starts + self.heads).flatten()
        weights = torch.ones([tails.shape[0]], dtype=scalars.dtype, device=scalars.device)
        gates = self.gates(vectors.flatten(0, 1), tails, heads, weights)
        found = scalars.flatten(0, 1).index_select(0, heads)
        query = sum_over_edges(gates[0] * found, tails, leading[0] * leading[1])
        key = sum_over_edges(gates[1] * found, tails, leading[0] * leading[1])
        return query.unflatten(0, leading), key.unflatten(0, leading)


class EquivariantSelfAttention(nn.Module):
    """softmax(q k / sqrt(d)) of the scalars shared by the scalar values and the vectors, then a gated update.

    Scalars and the three components of the vectors are the values of one call, d + 3 d of them per head.

    Source: Pengmei et al., arXiv 2512.06520; the update from v1 . v2: Schuett, Unke, Gastegger, arXiv 2102.03150.
    """

    def __init__(self, width: int, num_heads: int, query_key: nn.Module) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.width = width
        self.scale = 1.0 / math.sqrt(width // num_heads)
        self.query_key = query_key
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, 3 * width)
        self.products = nn.Linear(width, 2 * width, bias=False)
        self.product_weight = nn.Parameter(torch.ones(()))
        self.length_weight = nn.Parameter(torch.ones(()))
        self.gate = nn.Linear(2 * width, width)

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, width) and (B, T, 3, width) -> the same."""
        query, key = self.query_key(scalars, vectors)
        query, key = split_heads(query, self.num_heads), split_heads(key, self.num_heads)
        values = [split_heads(self.value(scalars), self.num_heads)]
        for component in vectors.unbind(2):
            values.append(split_heads(component, self.num_heads))
        received = attend(query, key, torch.cat(values, dim=3), self.scale).chunk(4, dim=3)
        turned = torch.stack([join_heads(received[1]), join_heads(received[2]), join_heads(received[3])], dim=2)

        first, second = self.products(vectors).chunk(2, dim=3)
        product, length = (first * second).sum(dim=2), safe_distances(vectors, 2)
        gate = self.gate(torch.cat([self.product_weight * product, self.length_weight * length], dim=2))
        of_product, of_length, own = self.out(join_heads(received[0])).chunk(3, dim=2)
        return product * of_product + length * of_length + own, torch.sigmoid(gate).unsqueeze(2) * turned + vectors

    @torch.jit.unused
    def weights(self, scalars: Tensor, vectors: Tensor) -> Tensor:
        """(B, T, T) attention of each token (row) to each other (column), mean over the heads."""
        query, key = self.query_key(scalars, vectors)
        query, key = split_heads(query, self.num_heads), split_heads(key, self.num_heads)
        return attention_weights(query, key, self.scale).mean(dim=1)


class EquivariantAttentionLayer(nn.Module):
    """Norm and attention, norm and gated perceptron, each added to what came in."""

    def __init__(self, width: int, num_heads: int, dropout: float, query_key: nn.Module) -> None:
        super().__init__()
        self.attention_norm = EquivariantNorm(width)
        self.attention = EquivariantSelfAttention(width, num_heads, query_key)
        self.perceptron_norm = EquivariantNorm(width)
        self.perceptron = GatedFeedForward(width, dropout)
        self.dropout = EquivariantDropout(dropout)

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, width) and (B, T, 3, width) -> the same."""
        quiet, quiet_vectors = self.attention_norm(scalars, vectors)
        received, turned = self.attention(quiet, quiet_vectors)
        received, turned = self.dropout(received, turned)
        scalars, vectors = scalars + received, vectors + turned
        quiet, quiet_vectors = self.perceptron_norm(scalars, vectors)
        own, own_vectors = self.perceptron(quiet, quiet_vectors)
        own, own_vectors = self.dropout(own, own_vectors)
        return scalars + own, vectors + own_vectors


class EquivariantTransformer(nn.Module):
    """A stack of equivariant attention layers."""

    def __init__(self, width: int, query_keys: Sequence[nn.Module], num_heads: int, dropout: float) -> None:
        """
        Args:
            query_keys: the module that makes the queries and keys of each layer.
        """
        super().__init__()
        self.layers = nn.ModuleList(
            [EquivariantAttentionLayer(width, num_heads, dropout, query_key) for query_key in query_keys]
        )

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, width) and (B, T, 3, width) -> the same."""
        for layer in self.layers:
            scalars, vectors = layer(scalars, vectors)
        return scalars, vectors

    @torch.jit.unused
    def attention_maps(self, scalars: Tensor, vectors: Tensor) -> list[Tensor]:
        """For each layer (B, T, T), the attention of each token (row) to each other (column), mean over the heads."""
        maps = []
        for layer in self.layers:
            assert isinstance(layer, EquivariantAttentionLayer)
            maps.append(layer.attention.weights(*layer.attention_norm(scalars, vectors)))
            scalars, vectors = layer(scalars, vectors)
        return maps
