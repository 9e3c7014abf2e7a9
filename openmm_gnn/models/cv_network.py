"""A CV network: from the tokens of a frame to a few slow variables, unchanged when the molecule turns or moves."""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import dataclasses
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from openmm_gnn.cv_spec import CVNetworkSpec, Mixer, Pooling, cv_spec_from_json, cv_spec_to_json
from openmm_gnn.errors import DataError, SpecError
from openmm_gnn.models.bundle import read_bundle, write_bundle
from openmm_gnn.models.equivariant_blocks import GatedVectors


class CVNetwork(nn.Module):
    """Tokens and their places -> outputs, invariant under rotation and translation. Scriptable.

    Buffers standardise what comes in and turn what goes out; both do nothing until they are set.
    """

    scalar_mean: Tensor
    scalar_scale: Tensor
    vector_scale: Tensor
    output_mean: Tensor
    output_matrix: Tensor

    def __init__(self, spec: CVNetworkSpec) -> None:
        super().__init__()
        if spec.mixer is not Mixer.MLP:
            raise SpecError(f"the mixer {spec.mixer.value!r} is not built yet")
        self.spec = spec
        self.num_tokens, self.input_width, self.width = spec.num_tokens, spec.input_width, spec.width
        self.pooling = spec.pooling.value
        self.softmax = spec.softmax
        per_token = (spec.num_tokens, spec.input_width)
        self.register_buffer("scalar_mean", torch.zeros(per_token))
        self.register_buffer("scalar_scale", torch.ones(per_token))
        self.register_buffer("vector_scale", torch.ones(per_token))
        self.register_buffer("output_mean", torch.zeros(spec.num_outputs))
        self.register_buffer("output_matrix", torch.eye(spec.num_outputs))
        self.first = GatedVectors(spec.input_width, spec.input_width, spec.input_width)
        self.second = GatedVectors(spec.input_width, spec.width, spec.width)
        pooled = spec.width * (spec.num_tokens if spec.pooling is Pooling.FLATTEN else 1)
        self.head = nn.Sequential(nn.Linear(pooled, spec.width), nn.SiLU(), nn.Linear(spec.width, spec.num_outputs))

    @property
    def num_outputs(self) -> int:
        """Of `forward`: after the output map, which may leave some away."""
        return int(self.output_matrix.shape[1])

    @torch.jit.unused
    def set_input_statistics(self, scalar_mean: Tensor, scalar_std: Tensor, vector_scale: Tensor) -> None:
        """Standardise: scalars become (s - mean) / std, vectors v / scale, the same for x, y and z.

        Args:
            scalar_mean, scalar_std, vector_scale: (num_tokens, input_width) or (input_width,); what has a deviation
                or scale of 0 never changes in the training data and is left at its own scale.
        Raises:
            SpecError: for other shapes, or what is not finite or negative.
        """
        given = {"scalar_mean": scalar_mean, "scalar_std": scalar_std, "vector_scale": vector_scale}
        shape = (self.num_tokens, self.input_width)
        for name, tensor in given.items():
            if tuple(tensor.shape) not in (shape, shape[1:]):
                raise SpecError(f"{name} has the shape {tuple(tensor.shape)}: give {shape} or {shape[1:]}")
            if not bool(torch.isfinite(tensor).all()) or (name != "scalar_mean" and bool((tensor < 0).any())):
                raise SpecError(f"{name} has entries that are not finite, or negative: look for NaN in the features")
        self.scalar_mean.copy_(scalar_mean)
        self.scalar_scale.copy_(torch.where(scalar_std > 0, scalar_std, torch.ones_like(scalar_std)))
        self.vector_scale.copy_(torch.where(vector_scale > 0, vector_scale, torch.ones_like(vector_scale)))

    @torch.jit.unused
    def set_output_map(self, mean: Tensor, matrix: Tensor) -> None:
        """From now on the outputs y are (y - mean) @ matrix.

        Args:
            mean: (K,), of the outputs of the head.
            matrix: (K, K'), for instance what whitens and turns the outputs into slow variables.
        Raises:
            SpecError: for other shapes, or what is not finite.
        """
        outputs = self.spec.num_outputs
        if tuple(mean.shape) != (outputs,) or matrix.ndim != 2 or len(matrix) != outputs or matrix.shape[1] < 1:
            raise SpecError(
                f"an output map of shapes {tuple(mean.shape)} and {tuple(matrix.shape)}: give ({outputs},) and "
                f"({outputs}, at least 1)"
            )
        if not bool(torch.isfinite(mean).all() and torch.isfinite(matrix).all()):
            raise SpecError("the output map is not finite: the outputs may not vary, or the training diverged")
        self.output_mean = mean.detach().to(self.output_mean).clone()
        self.output_matrix = matrix.detach().to(self.output_matrix).clone()

    def forward(self, tokens: Tensor, coordinates: Tensor) -> Tensor:
        """(B, K) outputs.

        Args:
            tokens: (B, num_tokens, 4, input_width), component 0 the scalars, 1..3 x, y, z of the vectors.
            coordinates: (B, num_tokens, 3), places of the tokens, nm.
        Raises:
            ValueError: for other shapes.
        """
        if tokens.dim() != 4 or list(tokens.shape[1:]) != [self.num_tokens, 4, self.input_width]:
            raise ValueError(
                f"tokens of shape {list(tokens.shape)}: give (frames, {self.num_tokens}, 4, {self.input_width})"
            )
        if coordinates.dim() != 3 or list(coordinates.shape) != [tokens.shape[0], self.num_tokens, 3]:
            raise ValueError(
                f"coordinates of shape {list(coordinates.shape)}: give ({tokens.shape[0]}, {self.num_tokens}, 3)"
            )
        scalars = (tokens[:, :, 0] - self.scalar_mean) / self.scalar_scale
        vectors = tokens[:, :, 1:] / self.vector_scale.unsqueeze(1)
        frames = tokens.shape[0]
        flat, flat_vectors = self.first(scalars.flatten(0, 1), vectors.flatten(0, 1))
        flat, _ = self.second(nn.functional.silu(flat), flat_vectors)
        scalars = flat.view(frames, self.num_tokens, self.width)
        if self.pooling == "mean":
            pooled = scalars.mean(dim=1)
        elif self.pooling == "sum":
            pooled = scalars.sum(dim=1)
        elif self.pooling == "token":
            pooled = scalars[:, -1]
        else:
            pooled = scalars.flatten(1)
        outputs = self.head(pooled)
        if self.softmax:
            outputs = torch.softmax(outputs, dim=-1)
        return (outputs - self.output_mean) @ self.output_matrix


def save_cv_network(network: CVNetwork, path: str | os.PathLike[str], metadata: dict[str, Any] | None = None) -> Path:
    """Write a network as a bundle, for `load_cv_network`; the file is complete or not there at all.

    Args:
        network: what to save.
        path: a name that ends in .safetensors.
        metadata: takes the place of the spec's own.
    """
    spec = network.spec if metadata is None else dataclasses.replace(network.spec, metadata=metadata)
    return write_bundle(network.state_dict(), cv_spec_to_json(spec), path)


def load_cv_network(path: str | os.PathLike[str]) -> CVNetwork:
    """The network of a bundle, on the CPU, in evaluation mode, with the dtype it was saved in.

    Raises:
        FileNotFoundError: if there is no such file.
        DataError: if the file is no bundle, or its weights do not fit its spec.
    """
    spec_json, weights = read_bundle(Path(path))
    return build_cv_network(cv_spec_from_json(spec_json), weights, str(path))


def build_cv_network(spec: CVNetworkSpec, weights: dict[str, Tensor], source: str) -> CVNetwork:
    """A network with these weights, in evaluation mode.

    Raises:
        DataError: naming `source`, if a weight is missing, unknown, of the wrong shape or not finite.
    """
    network = CVNetwork(spec)
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise DataError(f"weight {name} of {source} is not finite: the training diverged; train again")
    try:
        network.to(weights["output_mean"].dtype)
        network.set_output_map(weights["output_mean"], weights["output_matrix"])
        network.load_state_dict(weights)
    except (KeyError, RuntimeError, SpecError) as error:
        raise DataError(f"the weights of {source} do not fit its spec: {error}") from error
    return network.eval()
