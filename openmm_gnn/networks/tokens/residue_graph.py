"""Messages between tokens that are near in space: a convolution before tokens are merged, and SubGVP."""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import torch
from torch import Tensor, nn

from openmm_gnn.graph.edges import encoder_edges
from openmm_gnn.networks.encoders.equivariant_blocks import cosine_cutoff, sum_over_edges
from openmm_gnn.networks.tokens.equivariant_layers import (
    EdgeGates,
    EquivariantDropout,
    EquivariantLinear,
    EquivariantNorm,
    soft_lengths,
)


class TokenEdges(nn.Module):
    """Edges between tokens nearer than the cutoff, frame by frame, with weights that fall to zero at the cutoff.

    The published graphs let each neighbour count fully up to the cutoff. As a collective variable that jumps when a
    residue crosses it, and a bias along it pulls nowhere: hence the weights (`smooth`), and with them a gradient in
    the coordinates.
    """

    def __init__(self, cutoff: float, smooth: bool = True) -> None:
        super().__init__()
        self.cutoff, self.smooth = cutoff, smooth

    def forward(self, coordinates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sources (E,) and targets (E,), rows of the flattened tokens, no token its own neighbour; and weights (E,).

        Args:
            coordinates: (B, T, 3), nm.
        """
        frames, num_tokens = coordinates.shape[0], coordinates.shape[1]
        positions = coordinates.flatten(0, 1)
        if positions.dtype != torch.float64:
            positions = positions.to(torch.float32)
        batch = torch.arange(frames, device=positions.device).repeat_interleave(num_tokens)
        index, _, distances = encoder_edges(positions, self.cutoff, "full", 0, batch)
        # Each token has one edge with itself: how many others there are needs no answer of a device.
        num_others = index.shape[1] - positions.shape[0]
        others = torch.nonzero_static(index[0] != index[1], size=num_others).squeeze(1)
        index, distances = index.index_select(1, others), distances.index_select(0, others)
        weights = cosine_cutoff(distances, self.cutoff) if self.smooth else torch.ones_like(distances)
        return index[0], index[1], weights.to(coordinates.dtype)


class ResidueGraphConvolution(nn.Module):
    """A linear map of a token and the sum of another one of its neighbours, for scalars and for vectors.

    With `gated`, messages are weighed channel by channel by the angles between the vectors of the two; `chiral` adds
    one that changes sign in a mirror.

    Source: Morris et al., AAAI 2019, eq. 5, arXiv 1810.02244, taken to vectors as in Pengmei et al., arXiv 2512.06520.
    """

    def __init__(self, width: int, cutoff: float, gated: bool = False, chiral: bool = False) -> None:
        super().__init__()
        self.edges = TokenEdges(cutoff)
        self.own = EquivariantLinear(width, width)
        self.neighbor_scalars = nn.Linear(width, width, bias=False)
        self.neighbor_vectors = nn.Linear(width, width, bias=False)
        self.gates = EdgeGates(width, chiral) if gated else None

    def forward(self, scalars: Tensor, vectors: Tensor, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, width) and (B, T, 3, width), coordinates (B, T, 3) nm -> the same."""
        leading = [scalars.shape[0], scalars.shape[1]]
        sources, targets, weights = self.edges(coordinates)
        flat, flat_vectors = scalars.flatten(0, 1), vectors.flatten(0, 1)
        messages = self.neighbor_scalars(flat).index_select(0, sources) * weights.unsqueeze(1)
        sent_vectors = self.neighbor_vectors(flat_vectors).index_select(0, sources) * weights.unsqueeze(1).unsqueeze(2)
        if self.gates is not None:
            gates = self.gates(flat_vectors, sources, targets, weights)
            messages, sent_vectors = messages * gates[0], sent_vectors * gates[1].unsqueeze(1)
        own, own_vectors = self.own(flat, flat_vectors)
        new = own + sum_over_edges(messages, targets, flat.shape[0])
        new_vectors = own_vectors + sum_over_edges(sent_vectors, targets, flat.shape[0])
        return new.unflatten(0, leading), new_vectors.unflatten(0, leading)


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
        made = self.scalars(torch.cat([scalars, soft_lengths(mixed, 1e-4)], dim=1))
        turned = self.vectors(mixed)
        if self.gate is not None:
            gates = self.gate(torch.sigmoid(made) if self.activate else made)
            turned = turned * torch.sigmoid(gates).unsqueeze(1)
        elif self.activate:
            turned = turned * torch.sigmoid(soft_lengths(turned, 1e-4)).unsqueeze(1)
        return torch.relu(made) if self.activate else made, turned


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
        sent = torch.cat([scalars.index_select(0, sources), scalars.index_select(0, targets)], dim=1)
        sent_vectors = torch.cat([vectors.index_select(0, sources), vectors.index_select(0, targets)], dim=2)
        for message in self.messages:
            sent, sent_vectors = message(sent, sent_vectors)
        num_tokens = scalars.shape[0]
        totals = sum_over_edges(weights, targets, num_tokens).clamp(min=1.0).unsqueeze(1)
        received = sum_over_edges(sent * weights.unsqueeze(1), targets, num_tokens) / totals
        received_vectors = sum_over_edges(sent_vectors * weights.unsqueeze(1).unsqueeze(2), targets, num_tokens)
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
