"""Layers on scalars (..., C) and vectors (..., 3, C) of tokens that turn as the molecule turns, trained or not.

Channels are mixed, x, y and z never: each layer does to all three the same.
"""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, silu

from openmm_gnn.networks.encoders.equivariant_blocks import GatedVectors


class EquivariantLinear(nn.Module):
    """One linear map of the scalars; one of the vectors, without the bias that would point somewhere."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.scalars = nn.Linear(channels_in, channels_out)
        self.vectors = nn.Linear(channels_in, channels_out, bias=False)

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(..., channels_in) and (..., 3, channels_in) -> the same with channels_out."""
        return self.scalars(scalars), self.vectors(vectors)


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
