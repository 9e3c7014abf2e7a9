"""Tokens that are near in space: the edges between them, and a convolution over these before tokens are merged."""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import torch
from torch import Tensor, nn

from openmm_gnn.graph.edges import encoder_edges
from openmm_gnn.networks.encoders.equivariant_blocks import cosine_cutoff, sum_over_edges
from openmm_gnn.networks.tokens.edge_angles import EdgeGates
from openmm_gnn.networks.tokens.equivariant_layers import EquivariantLinear


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
        pushes = self.neighbor_vectors(flat_vectors).index_select(0, sources) * weights.unsqueeze(1).unsqueeze(2)
        if self.gates is not None:
            gates = self.gates(flat_vectors, sources, targets, weights)
            messages, pushes = messages * gates[0], pushes * gates[1].unsqueeze(1)
        own, own_vectors = self.own(flat, flat_vectors)
        new = own + sum_over_edges(messages, targets, flat.shape[0])
        new_vectors = own_vectors + sum_over_edges(pushes, targets, flat.shape[0])
        return new.unflatten(0, leading), new_vectors.unflatten(0, leading)
