"""Token merging: a window, chain or group of tokens becomes one, so that the mixer has fewer of them to deal with."""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, silu


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
