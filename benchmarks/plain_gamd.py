"""GAMD as one writes it down first: full edges, every projection per edge, no kernels of ours. The benchmarks' peer.

Source: Li et al., J. Chem. Phys. 156, 144103 (2022), equations (2) to (5).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn


def full_edges(positions: np.ndarray, edge: float, cutoff: float) -> tuple[Tensor, Tensor]:
    """(2, E) atoms i, j of every ordered pair in a cube, and the (E, 3) vectors from i to j, by SciPy's k-d tree."""
    wrapped = positions % edge
    pairs = cKDTree(wrapped, boxsize=edge).query_pairs(cutoff, output_type="ndarray")
    vectors = wrapped[pairs[:, 1]] - wrapped[pairs[:, 0]]
    vectors -= edge * np.round(vectors / edge)
    both = np.concatenate([pairs, pairs[:, ::-1]]).T.astype(np.int64)
    return torch.from_numpy(both), torch.from_numpy(np.concatenate([vectors, -vectors]).astype(np.float32))


class PlainGAMD(nn.Module):
    """The paper's network for water: 128 wide, 4 layers, forces from each atom's features."""

    def __init__(self, cutoff: float, width: int = 128, num_layers: int = 4, num_radial: int = 48) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.linspace(0, cutoff, num_radial), requires_grad=False)
        self.gamma = (num_radial / cutoff) ** 2

        def mlp(first: int, last: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(first, width), nn.SiLU(), nn.Linear(width, last))

        self.embedding = nn.Embedding(2, width)
        self.edge = mlp(num_radial + 3, width)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(num_layers)])
        self.messages = nn.ModuleList([mlp(3 * width, width) for _ in range(num_layers)])
        self.updates = nn.ModuleList([mlp(2 * width, width) for _ in range(num_layers)])
        self.decoder = mlp(width, 3)

    def forward(self, species: Tensor, edges: Tensor, vectors: Tensor) -> Tensor:
        """(N, 3) forces, in no particular unit: the weights are random, the operations are the published ones."""
        i, j = edges
        distances = vectors.norm(dim=1, keepdim=True)
        features = self.edge(torch.cat([torch.exp(-self.gamma * (distances - self.centers) ** 2), vectors], dim=1))
        nodes = self.embedding(species)
        for norm, message, update in zip(self.norms, self.messages, self.updates, strict=True):
            hidden = norm(nodes)
            sent = message(torch.cat([hidden[i], hidden[j], features], dim=1)) * hidden[j]
            sums = torch.zeros_like(hidden).index_add(0, i, sent)
            nodes = nodes + update(torch.cat([hidden, sums], dim=1))
        return self.decoder(nodes)
