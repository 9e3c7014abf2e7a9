"""Merging of tokens, and mixers of their scalars: SubFormer, SubMixer, and a perceptron that mixes nothing."""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, relu, silu

from openmm_gnn.kernels.attention import attend, attention_weights, join_heads, split_heads
from openmm_gnn.kernels.neighbor_pairs import safe_distances


class TokenMerger(nn.Module):
    """Gathers the members of each merged token, side by side; where one has fewer than others, zeros stand in.

    Source: the token merging module of Pengmei et al., arXiv 2512.06520. There the last scalar window is filled up with
    the tokens at the end once more; zeros treat scalars and vectors alike and serve windows that end with their chain.
    """

    members: Tensor
    sizes: Tensor

    def __init__(self, merged_tokens: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.largest = max(len(tokens) for tokens in merged_tokens)
        self.num_merged = len(merged_tokens)
        num_tokens = sum(len(tokens) for tokens in merged_tokens)
        rows = [[*tokens, *[num_tokens] * (self.largest - len(tokens))] for tokens in merged_tokens]
        # Both follow from the spec: they are not saved. The index num_tokens is a row of zeros.
        self.register_buffer("members", torch.tensor(rows), persistent=False)
        self.register_buffer("sizes", torch.tensor([len(tokens) for tokens in merged_tokens]), persistent=False)

    def gathered(self, tokens: Tensor) -> Tensor:
        """(B, T, ..., C) -> (B, num_merged, ..., largest * C)."""
        rows = torch.cat([tokens, torch.zeros_like(tokens[:, :1])], dim=1)
        found = rows.index_select(1, self.members.flatten()).unflatten(1, [self.num_merged, self.largest])
        return found.movedim(2, -2).flatten(-2)

    def coordinates(self, coordinates: Tensor) -> Tensor:
        """(B, T, 3) -> (B, num_merged, 3), the mean of the members."""
        found = self.gathered(coordinates).unflatten(2, [self.largest, 3])
        return found.sum(dim=2) / self.sizes.to(coordinates.dtype).unsqueeze(1)


class ScalarMerger(TokenMerger):
    """The members' scalars through a perceptron and a LayerNorm; the vectors end here."""

    def __init__(self, merged_tokens: Sequence[Sequence[int]], width: int) -> None:
        super().__init__(merged_tokens)
        self.hidden = nn.Linear(self.largest * width, width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, width) and (B, T, 3, width) -> (B, num_merged, width), and vectors that are zero."""
        merged = self.norm(relu(self.out(silu(self.hidden(self.gathered(scalars))))))
        shape = [merged.shape[0], merged.shape[1], 3, merged.shape[2]]
        return merged, torch.zeros([1], dtype=merged.dtype, device=merged.device).expand(shape)


class EquivariantMerger(TokenMerger):
    """One linear map of the members' scalars, one without bias of their vectors."""

    def __init__(self, merged_tokens: Sequence[Sequence[int]], width: int) -> None:
        super().__init__(merged_tokens)
        self.scalars = nn.Linear(self.largest * width, width)
        self.vectors = nn.Linear(self.largest * width, width, bias=False)

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, width) and (B, T, 3, width) -> (B, num_merged, width) and (B, num_merged, 3, width)."""
        return self.scalars(self.gathered(scalars)), self.vectors(self.gathered(vectors))


def position_encoding(num_tokens: int, width: int) -> Tensor:
    """(num_tokens, width): sines in the even columns and cosines in the odd, of the token's number.

    Source: Vaswani et al., NeurIPS 2017, sec. 3.5, arXiv 1706.03762.
    """
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(num_tokens).unsqueeze(1) * rates
    return torch.stack([torch.sin(angles), torch.cos(angles)], dim=2).flatten(1)


class GlobalToken(nn.Module):
    """One token made of the distances of all pairs of tokens.

    Source: the global token of Pengmei et al., J. Chem. Phys. 162 (2025), arXiv 2409.19838.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, num_tokens: int, width: int) -> None:
        super().__init__()
        rows, columns = torch.triu_indices(num_tokens, num_tokens, offset=1)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.hidden = nn.Linear(len(rows), width)
        self.out = nn.Linear(width, width)

    def forward(self, coordinates: Tensor) -> Tensor:
        """(B, T, 3) nm -> (B, 1, width)."""
        between = coordinates.index_select(1, self.rows) - coordinates.index_select(1, self.columns)
        return self.out(silu(self.hidden(safe_distances(between, 2)))).unsqueeze(1)


class TransformerLayer(nn.Module):
    """Self-attention, then a perceptron, each added to what came in and normalised.

    PyTorch's own layer keeps the whole matrix of attention weights in training, for its dropout; here dropout acts on
    what is added, and memory grows with the number of tokens (kernels/attention.py).

    Source: Vaswani et al., NeurIPS 2017, sec. 3, arXiv 1706.03762.
    """

    def __init__(self, width: int, num_heads: int, dropout: float, hidden: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = 1.0 / math.sqrt(width // num_heads)
        self.projections = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.widened = nn.Linear(width, hidden)
        self.narrowed = nn.Linear(hidden, width)
        self.perceptron_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, scalars: Tensor) -> Tensor:
        """(B, T, width) -> the same."""
        query, key, value = self._heads(scalars)
        received = self.out(join_heads(attend(query, key, value, self.scale)))
        scalars = self.attention_norm(scalars + self.dropout(received))
        own = self.narrowed(self.dropout(relu(self.widened(scalars))))
        return self.perceptron_norm(scalars + self.dropout(own))

    @torch.jit.unused
    def weights(self, scalars: Tensor) -> Tensor:
        """(B, T, T) attention of each token (row) to each other (column), mean over the heads."""
        query, key, _ = self._heads(scalars)
        return attention_weights(query, key, self.scale).mean(dim=1)

    def _heads(self, scalars: Tensor) -> list[Tensor]:
        parts = self.projections(scalars).chunk(3, dim=2)
        return [
            split_heads(parts[0], self.num_heads),
            split_heads(parts[1], self.num_heads),
            split_heads(parts[2], self.num_heads),
        ]


class SubFormer(nn.Module):
    """A transformer of the tokens; with `own_token` a learned one goes first, for others to be read out from.

    Source: Pengmei et al., "Transformers are efficient hierarchical chemical graph learners", arXiv 2310.01704; as a
    mixer: J. Chem. Phys. 162 (2025), arXiv 2409.19838.
    """

    def __init__(
        self, width: int, num_layers: int, num_heads: int, dropout: float, own_token: bool, expansion: int = 2
    ) -> None:
        super().__init__()
        self.own_token = nn.Parameter(torch.randn(1, 1, width)) if own_token else None
        self.layers = nn.ModuleList(
            [TransformerLayer(width, num_heads, dropout, expansion * width) for _ in range(num_layers)]
        )

    def forward(self, scalars: Tensor) -> Tensor:
        """(B, T, width) -> (B, T, width), or (B, 1 + T, width) with the own token first."""
        scalars = self._with_own_token(scalars)
        for layer in self.layers:
            scalars = layer(scalars)
        return scalars

    @torch.jit.unused
    def attention_maps(self, scalars: Tensor) -> list[Tensor]:
        """For each layer (B, T, T) or (B, 1 + T, 1 + T): as `TransformerLayer.weights`."""
        scalars, maps = self._with_own_token(scalars), []
        for layer in self.layers:
            assert isinstance(layer, TransformerLayer)
            maps.append(layer.weights(scalars))
            scalars = layer(scalars)
        return maps

    def _with_own_token(self, scalars: Tensor) -> Tensor:
        if self.own_token is None:
            return scalars
        return torch.cat([self.own_token.expand(scalars.shape[0], -1, -1), scalars], dim=1)


class MixerLayer(nn.Module):
    """A perceptron along the tokens, channel by channel; then one along the channels, token by token.

    Source: Tolstikhin et al., "MLP-Mixer", NeurIPS 2021, eq. 1, arXiv 2105.01601.
    """

    def __init__(self, num_tokens: int, width: int, token_hidden: int, dropout: float) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(width)
        self.token_widened = nn.Linear(num_tokens, token_hidden)
        self.token_narrowed = nn.Linear(token_hidden, num_tokens)
        self.channel_norm = nn.LayerNorm(width)
        self.channel_widened = nn.Linear(width, 2 * width)
        self.channel_narrowed = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, scalars: Tensor) -> Tensor:
        """(B, T, width) -> the same."""
        along = self.dropout(gelu(self.token_widened(self.token_norm(scalars).transpose(1, 2))))
        scalars = scalars + self.dropout(self.token_narrowed(along)).transpose(1, 2)
        across = self.dropout(gelu(self.channel_widened(self.channel_norm(scalars))))
        return scalars + self.dropout(self.channel_narrowed(across))


MOST_TOKEN_HIDDEN = 512
"""Largest hidden width of the perceptron along the tokens where none is given; the published one is mostly twice the
number of tokens."""


class SubMixer(nn.Module):
    """MLP-Mixer of the tokens.

    Source: Pengmei et al., J. Chem. Phys. 162 (2025), arXiv 2409.19838.
    """

    def __init__(
        self, num_tokens: int, width: int, num_layers: int, dropout: float, token_hidden: int | None = None
    ) -> None:
        super().__init__()
        hidden = min(2 * num_tokens, MOST_TOKEN_HIDDEN) if token_hidden is None else token_hidden
        self.layers = nn.ModuleList([MixerLayer(num_tokens, width, hidden, dropout) for _ in range(num_layers)])

    def forward(self, scalars: Tensor) -> Tensor:
        """(B, T, width) -> the same."""
        for layer in self.layers:
            scalars = layer(scalars)
        return scalars


class TokenPerceptron(nn.Module):
    """Each token through a residual perceptron of its own channels: no token receives anything from another."""

    def __init__(self, width: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(num_layers)])
        self.widened = nn.ModuleList([nn.Linear(width, 2 * width) for _ in range(num_layers)])
        self.narrowed = nn.ModuleList([nn.Linear(2 * width, width) for _ in range(num_layers)])
        self.dropout = nn.Dropout(dropout)

    def forward(self, scalars: Tensor) -> Tensor:
        """(B, T, width) -> the same."""
        for norm, widened, narrowed in zip(self.norms, self.widened, self.narrowed):  # noqa: B905  (TorchScript)
            scalars = scalars + self.dropout(narrowed(self.dropout(silu(widened(norm(scalars))))))
        return scalars
