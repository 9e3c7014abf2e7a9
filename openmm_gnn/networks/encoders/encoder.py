"""An encoder: a pretrained network that describes each atom's surroundings by scalars and vectors."""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import hashlib
import importlib
import json
from typing import Any

import torch
from torch import Tensor, nn

from openmm_gnn.base.specs.codec import spec_to_json
from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.graph.edges import encoder_edges
from openmm_gnn.networks.encoders.equivariant_blocks import DenoisingHead, EdgeNetwork


def network_of(spec: EncoderSpec) -> EdgeNetwork:
    """The network of a spec with fresh weights: `NETWORK` of the file that has the name of the architecture."""
    file = importlib.import_module(f"openmm_gnn.networks.encoders.{spec.architecture.value.replace('-', '_')}")
    network: EdgeNetwork = file.NETWORK(spec)
    return network


class Encoder(nn.Module):
    """Scalars and vectors of atoms, exactly covariant under rotation by the rules nearest and full. Scriptable.

    In float32 the loops over edges run compiled, with tables of the filters: on the CPU in evaluation mode, in training
    (TorchMD-ET and TensorNet) and for gradients by positions of frozen weights (TorchMD-ET), on CUDA in evaluation mode
    and for the latter; `EdgeNetwork.is_fused` decides. Weights that are changed in place need `eval()` once more.
    All lengths are in `spec.length_unit`. The results have the dtype of the weights; positions and edges are float32 or
    float64, also where the weights are bfloat16.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.cutoff = spec.cutoff
        self.neighbor_rule = spec.neighbor_rule.value
        self.max_neighbors = spec.max_neighbors
        self.max_atomic_number = spec.max_atomic_number
        self.noise_scale = spec.noise_scale
        self.network: EdgeNetwork = network_of(spec)
        # The published TensorNet sums over the edges that leave an atom: of capped edges those are not its own choice.
        self.receives_at_source = self.network.receiving == 0
        self.noise_head = DenoisingHead(spec.width) if spec.noise_scale > 0 else None

    def train(self, mode: bool = True) -> "Encoder":
        """As for any module; in evaluation mode the network keeps tables of its weights, which are renewed here."""
        super().train(mode)
        self.network.set_tables(not mode)
        return self

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        """As for any module; tables of the old weights are renewed."""
        result = super().load_state_dict(*arguments, **options)
        self.network.set_tables(not self.training)
        return result

    @torch.jit.export
    def edges(
        self, positions: Tensor, batch: Tensor | None = None, box_vectors: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Edges for `encode`: index (2, E), vectors (E, 3) from target to source, and distances (E,).

        Arguments as for `forward`. Where the network sums at row 0 instead of row 1, the edges are turned about, so
        that each atom receives from its own nearest neighbours; by the rule index they stay what they are upstream.
        """
        index, vectors, distances = encoder_edges(
            positions, self.cutoff, self.neighbor_rule, self.max_neighbors, batch, box_vectors
        )
        if self.receives_at_source and self.neighbor_rule != "index":
            return index.flip(0), -vectors, distances
        return index, vectors, distances

    @torch.jit.export
    def encode(
        self, atomic_numbers: Tensor, edge_index: Tensor, edge_vectors: Tensor, edge_distances: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scalars (N, H) and vectors (N, 3, H) of atoms whose edges are known.

        Args:
            atomic_numbers: (N,) int64.
            edge_index: (2, E) int64, row 0 the source j, row 1 the target i, an edge of every atom with itself among
                them.
            edge_vectors: (E, 3) r_j - r_i; zero on an atom's own edge.
            edge_distances: (E,).
        """
        # On a GPU the question would stop the host until the device has answered; featurizers and learned CVs have
        # compared the topology's elements before.
        if atomic_numbers.numel() > 0 and atomic_numbers.is_cpu:
            largest, least = int(atomic_numbers.max()), int(atomic_numbers.min())
            if largest > self.max_atomic_number or least < 1:
                wrong = least if least < 1 else largest
                raise ValueError(f"an atomic number is {wrong}: the encoder knows 1 to {self.max_atomic_number}")
        return self.network(atomic_numbers, edge_index.contiguous(), edge_vectors, edge_distances)

    def forward(
        self,
        atomic_numbers: Tensor,
        positions: Tensor,
        batch: Tensor | None = None,
        box_vectors: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Scalars (N, H) and vectors (N, 3, H).

        Args:
            atomic_numbers: (N,) int64.
            positions: (N, 3), `spec.length_unit`.
            batch: (N,) int64, the frame of each atom, non-decreasing; None: one frame.
            box_vectors: (3, 3), or (number of frames, 3, 3), rows a, b, c; None: open boundary.
        Raises:
            ValueError: for an atomic number beyond the encoder's (on the CPU), or a batch that decreases.
        """
        index, vectors, distances = self.edges(positions, batch, box_vectors)
        return self.encode(atomic_numbers, index, vectors, distances)

    @torch.jit.export
    def predicted_noise(
        self,
        atomic_numbers: Tensor,
        positions: Tensor,
        batch: Tensor | None = None,
        box_vectors: Tensor | None = None,
    ) -> Tensor:
        """(N, 3) the displacements, in `spec.length_unit`, that the denoising head sees in the positions.

        Raises:
            RuntimeError: if the encoder has no such head.
        """
        if self.noise_head is None:
            raise RuntimeError("this encoder has no denoising head: load a checkpoint that kept it")
        scalars, vectors = self.forward(atomic_numbers, positions, batch, box_vectors)
        return self.noise_head(scalars, vectors) * self.noise_scale


def encoder_hash(encoder: Encoder) -> str:
    """SHA-256 of the spec and of the weights as float32, in the order of their names: who made a feature.

    Where the weights come from (spec.metadata) does not enter.
    """
    spec = json.loads(spec_to_json(encoder.spec))
    spec["spec"].pop("metadata")
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()
