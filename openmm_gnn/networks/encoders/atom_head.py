"""The head of an encoder: one scalar and one vector for each atom."""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from openmm_gnn.networks.encoders.equivariant_blocks import DenoisingHead, GatedVectors


class AtomHead(nn.Module):
    """Gated blocks from the features of atoms to a scalar, which no rotation changes, and a vector, which turns along.

    Args:
        width_in: of the encoder.
        width: between the blocks.
        num_layers: blocks.

    Source: Schuett, Unke, Gastegger, ICML 2021, fig. 3, arXiv 2102.03150.
    """

    def __init__(self, width_in: int, width: int, num_layers: int) -> None:
        super().__init__()
        ends = [width_in, *[width] * (num_layers - 1), 1]
        self.blocks = nn.ModuleList([GatedVectors(first, last, last) for first, last in pairwise(ends)])

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(N, H) and (N, 3, H) -> (N,) and (N, 3)."""
        for number, block in enumerate(self.blocks):
            scalars, vectors = block(scalars if number == 0 else silu(scalars), vectors)
        return scalars.squeeze(1), vectors.squeeze(2)

    @torch.jit.unused
    def start_from(self, head: DenoisingHead) -> bool:
        """Begin with a denoising head, its vectors turned about, where the shapes are the same; whether they are.

        Noise leads away from where the energy is low, forces lead back: Zaidi et al., ICLR 2023, arXiv 2206.00133.
        """
        blocks = [head.first, head.second]
        weights = {f"blocks.{k}.{name}": x for k, block in enumerate(blocks) for name, x in block.state_dict().items()}
        own = self.state_dict()
        if own.keys() != weights.keys() or any(own[name].shape != x.shape for name, x in weights.items()):
            return False
        weights["blocks.1.kept.weight"] = -weights["blocks.1.kept.weight"]
        self.load_state_dict(weights)
        return True
