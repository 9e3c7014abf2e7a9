"""Geometric vector perceptrons, and messages made by them between tokens that are near in space: SubGVP."""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import torch
from torch import Tensor, nn

from openmm_gnn.networks.encoders.equivariant_blocks import sum_over_edges
from openmm_gnn.networks.tokens.equivariant_layers import EquivariantDropout, EquivariantNorm
from openmm_gnn.networks.tokens.residue_graph import TokenEdges

NORM_EPSILON = 1e-8
"""The published norm has no more than this under its root."""


class GeometricPerceptron(nn.Module):
    """Scalars from scalars and the lengths of mixed vectors; vectors from vectors, scaled by a gate.

    Source: Jing et al., "Learning from protein structure with geometric vector perceptrons", ICLR 2021, algorithm 1,
    arXiv 2009.01411; gates made of the scalars: Jing et al., arXiv 2106.03843, sec. 3.
    """

    def __init__(
        self, channels_in: tuple[int, int], channels_out: tuple[int, int], activate: bool = True, gated: bool = True
    ) -> None:
        """
        Args:
            channels_in, channels_out: scalars and vectors.
            activate: with ReLU and sigmoid; without, the last of several maps is linear in the scalars.
            gated: vectors are scaled by the scalars; else by the sigmoid of their own lengths.
        """
        super().__init__()
        self.activate = activate
        hidden = max(channels_in[1], channels_out[1])
        self.mixed = nn.Linear(channels_in[1], hidden, bias=False)
        self.scalars = nn.Linear(hidden + channels_in[0], channels_out[0])
        self.vectors = nn.Linear(hidden, channels_out[1], bias=False)
        self.gate = nn.Linear(channels_out[0], channels_out[1]) if gated else None

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(N, scalars in) and (N, 3, vectors in) -> (N, scalars out) and (N, 3, vectors out)."""
        mixed = self.mixed(vectors)
        made = self.scalars(torch.cat([scalars, soft_lengths(mixed)], dim=1))
        turned = self.vectors(mixed)
        if self.gate is not None:
            gates = self.gate(torch.sigmoid(made) if self.activate else made)
            turned = turned * torch.sigmoid(gates).unsqueeze(1)
        elif self.activate:
            turned = turned * torch.sigmoid(soft_lengths(turned)).unsqueeze(1)
        return torch.relu(made) if self.activate else made, turned


def soft_lengths(vectors: Tensor) -> Tensor:
    """(N, C) lengths of (N, 3, C) vectors; 1e-8 under the root, for the gradient of a vector without length."""
    return torch.sqrt(vectors.square().sum(dim=1) + 1e-8)


class PerceptronLayer(nn.Module):
    """Each token takes the mean of its neighbours' messages, then goes through perceptrons; norms after both.

    Source: Jing et al., arXiv 2009.01411, eqs. 3 and 4. Edges that have weights give a weighted mean; where the weights
    add up to less than 1 they give the weighted sum, so that the last neighbour leaves gently.
    """

    def __init__(self, width: int, dropout: float, gated: bool = True) -> None:
        super().__init__()
        one, two = (width, width), (2 * width, 2 * width)
        wide = (4 * width, 2 * width)
        self.messages = nn.ModuleList(
            [
                GeometricPerceptron(two, one, gated=gated),
                GeometricPerceptron(one, one, gated=gated),
                GeometricPerceptron(one, one, activate=False, gated=gated),
            ]
        )
        self.widened = GeometricPerceptron(one, wide, gated=gated)
        self.narrowed = GeometricPerceptron(wide, one, activate=False, gated=gated)
        self.heard_norm = EquivariantNorm(width, NORM_EPSILON)  # after messages received; the name is in stored weights
        self.own_norm = EquivariantNorm(width, NORM_EPSILON)
        self.dropout = EquivariantDropout(dropout)

    def forward(
        self, scalars: Tensor, vectors: Tensor, sources: Tensor, targets: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(N, width) and (N, 3, width) of the tokens of all frames, edges as of `TokenEdges` -> the same."""
        news = torch.cat([scalars.index_select(0, sources), scalars.index_select(0, targets)], dim=1)
        pushes = torch.cat([vectors.index_select(0, sources), vectors.index_select(0, targets)], dim=2)
        for message in self.messages:
            news, pushes = message(news, pushes)
        num_tokens = scalars.shape[0]
        totals = sum_over_edges(weights, targets, num_tokens).clamp(min=1.0).unsqueeze(1)
        received = sum_over_edges(news * weights.unsqueeze(1), targets, num_tokens) / totals
        received_vectors = sum_over_edges(pushes * weights.unsqueeze(1).unsqueeze(2), targets, num_tokens)
        received_vectors = received_vectors / totals.unsqueeze(2)
        received, received_vectors = self.dropout(received, received_vectors)
        scalars, vectors = self.heard_norm(scalars + received, vectors + received_vectors)
        own, own_vectors = self.widened(scalars, vectors)
        own, own_vectors = self.narrowed(own, own_vectors)
        own, own_vectors = self.dropout(own, own_vectors)
        return self.own_norm(scalars + own, vectors + own_vectors)


class SubGVP(nn.Module):
    """Message passing between tokens nearer than the cutoff.

    Source: Pengmei et al., "geom2vec", J. Chem. Phys. 162 (2025), arXiv 2409.19838.
    """

    def __init__(
        self, width: int, num_layers: int, cutoff: float, dropout: float, gated: bool = True, smooth: bool = True
    ) -> None:
        """
        Args:
            cutoff: nm.
            gated: see `GeometricPerceptron`.
            smooth: see `TokenEdges`.
        """
        super().__init__()
        self.edges = TokenEdges(cutoff, smooth)
        self.first = GeometricPerceptron((width, width), (width, width), gated=gated)
        self.norm = EquivariantNorm(width, NORM_EPSILON)
        self.layers = nn.ModuleList([PerceptronLayer(width, dropout, gated) for _ in range(num_layers)])

    def forward(self, scalars: Tensor, vectors: Tensor, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, width) and (B, T, 3, width), coordinates (B, T, 3) nm -> the same."""
        leading = [scalars.shape[0], scalars.shape[1]]
        sources, targets, weights = self.edges(coordinates)
        flat, flat_vectors = self.first(scalars.flatten(0, 1), vectors.flatten(0, 1))
        flat, flat_vectors = self.norm(flat, flat_vectors)
        for layer in self.layers:
            flat, flat_vectors = layer(flat, flat_vectors, sources, targets, weights)
        return flat.unflatten(0, leading), flat_vectors.unflatten(0, leading)
