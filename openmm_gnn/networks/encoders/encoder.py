"""An encoder: a network that describes each atom's surroundings by scalars and vectors, and its pretrained weights
put to another use: more elements, other neighbours, weights that stay or learn."""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import dataclasses
import hashlib
import importlib
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.specs.codec import spec_to_json
from openmm_gnn.base.specs.encoder import EncoderSpec, NeighborRule
from openmm_gnn.graph.edges import encoder_edges
from openmm_gnn.networks.encoders.equivariant_blocks import DenoisingHead, EdgeNetwork


def network_of(spec: EncoderSpec) -> EdgeNetwork:
    """The network of a spec with fresh weights: `NETWORK` of the file that has the name of the architecture."""
    file = importlib.import_module(f"openmm_gnn.networks.encoders.{spec.architecture.value.replace('-', '_')}")
    network: EdgeNetwork = file.NETWORK(spec)
    return network


class Encoder(nn.Module):
    """Scalars and vectors of atoms, exactly covariant under rotation but by the rule index. Scriptable.

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
        self.register_load_state_dict_post_hook(_renew_tables)

    def train(self, mode: bool = True) -> "Encoder":
        """As for any module; in evaluation mode the network keeps tables of its weights, which are renewed here."""
        super().train(mode)
        self.network.set_tables(not mode)
        return self

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
        self, atomic_numbers: Tensor, positions: Tensor, batch: Tensor | None = None, box_vectors: Tensor | None = None
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
        self, atomic_numbers: Tensor, positions: Tensor, batch: Tensor | None = None, box_vectors: Tensor | None = None
    ) -> Tensor:
        """(N, 3) the displacements, in `spec.length_unit`, that the denoising head sees in the positions.

        Raises:
            RuntimeError: if the encoder has no such head.
        """
        if self.noise_head is None:
            raise RuntimeError("this encoder has no denoising head: load a checkpoint that kept it")
        scalars, vectors = self.forward(atomic_numbers, positions, batch, box_vectors)
        return self.noise_head(scalars, vectors) * self.noise_scale


def _renew_tables(encoder: Encoder, _: Any) -> None:
    """Tables of the old weights are renewed, also where the encoder is part of the module that loads its weights."""
    encoder.network.set_tables(not encoder.training)


def encoder_hash(encoder: Encoder) -> str:
    """SHA-256 of the spec and of the weights as float32, in the order of their names: who made a feature.

    Where the weights come from (spec.metadata) does not enter.
    """
    spec = json.loads(spec_to_json(encoder.spec))
    spec["spec"].pop("metadata")
    if not encoder.spec.smooth:
        spec["spec"].pop("smooth")  # older forms have no such field, and keep their hash
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def known_elements(spec: EncoderSpec) -> tuple[int, ...]:
    """Atomic numbers that an encoder has learned; all it has room for, where its training data are unknown."""
    return spec.elements or tuple(range(1, spec.max_atomic_number + 1))


def transferred_spec(
    spec: EncoderSpec, elements: Sequence[int], neighbor_rule: NeighborRule, smooth: bool
) -> EncoderSpec:
    """The spec of the same encoder with room for these elements too, without its denoising head."""
    every = sorted({*known_elements(spec), *elements})
    return dataclasses.replace(
        spec,
        elements=tuple(every),
        max_atomic_number=max(spec.max_atomic_number, *every),
        neighbor_rule=neighbor_rule,
        smooth=smooth,
        noise_scale=0.0,
        metadata={},
    )


def start_from(encoder: Encoder, pretrained: Encoder) -> tuple[int, ...]:
    """Give an encoder the weights of a pretrained one, and return the elements that are new to them.

    Embeddings of new elements are drawn from the normal distribution of the learned ones, channel by channel.

    Raises:
        SpecError: if `encoder` is not of a `transferred_spec` of the pretrained one.
    """
    spec = encoder.spec
    expected = transferred_spec(pretrained.spec, known_elements(spec), spec.neighbor_rule, spec.smooth)
    if encoder.spec != expected:
        raise SpecError(f"the pretrained encoder fits {expected}, but the network has {encoder.spec}: give its own")
    learned = list(known_elements(pretrained.spec))
    new = tuple(number for number in known_elements(encoder.spec) if number not in learned)
    tables = {f"{name}.weight" for name, module in encoder.named_modules() if isinstance(module, nn.Embedding)}
    weights = {name: x for name, x in pretrained.state_dict().items() if not name.startswith("noise_head.")}
    own = encoder.state_dict()
    for name in tables:
        table, rows = own[name].clone(), weights[name][learned]
        spread = rows.std(dim=0) if len(rows) > 1 else rows.abs().mean(dim=0)
        table[: len(weights[name])] = weights[name]
        for number in new:
            table[number] = rows.mean(dim=0) + spread * torch.randn_like(spread)
        weights[name] = table
    encoder.load_state_dict(weights)
    return new


def freeze(encoder: Encoder, except_elements: Sequence[int] = ()) -> None:
    """Let training change nothing of an encoder but the embeddings of these elements."""
    encoder.requires_grad_(False)
    if not except_elements:
        return
    for module in encoder.modules():
        if isinstance(module, nn.Embedding):
            learning = torch.zeros(len(module.weight), 1)
            learning[list(except_elements)] = 1.0
            module.weight.requires_grad_(True)
            module.weight.register_hook(partial(_times, learning))


def encoder_provenance(pretrained: Encoder, frozen: bool, random_weights: bool = False) -> dict[str, Any]:
    """What a trained network's metadata say about the encoder it began with."""
    return {
        "encoder": {
            "hash": encoder_hash(pretrained),
            "metadata": pretrained.spec.metadata,
            "frozen": frozen,
            "random_weights": random_weights,
        }
    }


def _times(factors: Tensor, gradient: Tensor) -> Tensor:
    return gradient * factors.to(gradient)
