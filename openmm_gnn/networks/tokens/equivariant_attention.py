"""Equivariant self-attention: one softmax weighs the scalars and the vectors of the tokens alike."""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from openmm_gnn.kernels.attention import attend, attention_weights, join_heads, split_heads
from openmm_gnn.kernels.neighbor_pairs import safe_distances
from openmm_gnn.networks.encoders.equivariant_blocks import sum_over_edges
from openmm_gnn.networks.tokens.edge_angles import EdgeGates
from openmm_gnn.networks.tokens.equivariant_layers import (
    EquivariantDropout,
    EquivariantNorm,
    GatedFeedForward,
)

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
