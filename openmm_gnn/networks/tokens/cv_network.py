"""A CV network: from the tokens of a frame to a few slow variables, unchanged when the molecule turns or moves."""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.specs.tokens import (
    GRAPH_MIXERS,
    CVNetworkSpec,
    GraphConvolution,
    LocalAttention,
    Merging,
    Mixer,
    Pooling,
)
from openmm_gnn.networks.tokens.equivariant_layers import (
    Chirality,
    EquivariantLinear,
    EquivariantTransformer,
    GatedProjection,
    LinearQueryKey,
    LocalQueryKey,
)
from openmm_gnn.networks.tokens.residue_graph import ResidueGraphConvolution, SubGVP
from openmm_gnn.networks.tokens.token_mixers import (
    EquivariantMerger,
    GlobalToken,
    ScalarMerger,
    SubFormer,
    SubMixer,
    TokenPerceptron,
    position_encoding,
)


class CVNetwork(nn.Module):
    """Tokens and their coordinates -> outputs, invariant under rotation and translation. Scriptable.

    Projection, chirality, graph convolution, merging, messages in space, global token, mixer, pooling, perceptron;
    what the spec does not ask for is left out. Buffers standardise what comes in and turn what goes out; both do
    nothing until they are set.

    Source: the lobes of Pengmei et al., J. Chem. Phys. 162 (2025), arXiv 2409.19838, and arXiv 2512.06520.
    """

    scalar_mean: Tensor
    scalar_scale: Tensor
    vector_scale: Tensor
    positions: Tensor
    output_mean: Tensor
    output_matrix: Tensor

    def __init__(self, spec: CVNetworkSpec) -> None:
        super().__init__()
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

        width, merged = spec.width, spec.merged_tokens
        equivariant = spec.mixer is Mixer.EQUIVARIANT_ATTENTION
        self.projection = (EquivariantLinear if equivariant else GatedProjection)(spec.input_width, width)
        self.chirality = Chirality(width) if spec.chiral else None
        self.convolution = _convolution(spec)
        self.merger = _merger(spec)
        self.messages = None
        if spec.mixer in GRAPH_MIXERS:
            self.messages = SubGVP(width, spec.num_layers, spec.graph_cutoff, spec.dropout)
        self.register_buffer("positions", position_encoding(len(merged), width), persistent=False)
        self.global_token = GlobalToken(len(merged), width) if spec.global_token else None
        num_mixed = len(merged) + int(spec.global_token)
        self.scalar_mixer = _scalar_mixer(spec, num_mixed)
        self.equivariant_mixer = _equivariant_mixer(spec) if equivariant else None
        widths = [width * (num_mixed if spec.pooling is Pooling.FLATTEN else 1), *[width] * (spec.head_layers - 1)]
        self.head = nn.ModuleList(
            [nn.Linear(*ends) for ends in zip(widths, [*widths[1:], spec.num_outputs], strict=True)]
        )

    @property
    def num_outputs(self) -> int:
        """The number of outputs of `forward`: after the output map, which may leave some away."""
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
            coordinates: (B, num_tokens, 3), of the tokens, nm.
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
        scalars = self._mixed(tokens, coordinates)
        if self.pooling == "mean":
            pooled = scalars.mean(dim=1)
        elif self.pooling == "sum":
            pooled = scalars.sum(dim=1)
        elif self.pooling == "token":
            pooled = scalars[:, 0]
        else:
            pooled = scalars.flatten(1)
        last = len(self.head) - 1
        for number, linear in enumerate(self.head):
            pooled = linear(pooled) if number == last else silu(linear(pooled))
        if self.softmax:
            pooled = torch.softmax(pooled, dim=1)
        return (pooled - self.output_mean) @ self.output_matrix

    def _mixed(self, tokens: Tensor, coordinates: Tensor) -> Tensor:
        """Scalars (B, mixed tokens, width), to be pooled; the learned or the global token first."""
        scalars, vectors = self._before_mixer(tokens, coordinates)
        if self.scalar_mixer is not None:
            scalars = self.scalar_mixer(scalars)
        if self.equivariant_mixer is not None:
            scalars, _ = self.equivariant_mixer(scalars, vectors)
        return scalars

    def _before_mixer(self, tokens: Tensor, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        scalars = (tokens[:, :, 0] - self.scalar_mean) / self.scalar_scale
        vectors = tokens[:, :, 1:] / self.vector_scale.unsqueeze(1)
        scalars, vectors = self.projection(scalars, vectors)
        if self.chirality is not None:
            scalars = self.chirality(scalars, vectors)
        if self.convolution is not None:
            scalars, vectors = self.convolution(scalars, vectors, coordinates)
        if self.merger is not None:
            scalars, vectors = self.merger(scalars, vectors)
            coordinates = self.merger.coordinates(coordinates)
        if self.messages is not None:
            scalars, vectors = self.messages(scalars, vectors, coordinates)
        scalars = scalars + self.positions
        if self.global_token is not None:
            scalars = torch.cat([self.global_token(coordinates), scalars], dim=1)
            vectors = torch.cat([torch.zeros_like(vectors[:, :1]), vectors], dim=1)
        return scalars, vectors

    @torch.jit.unused
    def attention_maps(self, tokens: Tensor, coordinates: Tensor) -> list[Tensor]:
        """For each layer (B, n, n), attention of each of n tokens (row) to each (column), mean over the heads.

        First the learned or the global token where there is one, then the tokens after merging. In evaluation mode
        this is what `forward` uses, which never makes the matrix.

        Raises:
            SpecError: if the mixer has no attention.
        """
        scalars, vectors = self._before_mixer(tokens, coordinates)
        if self.equivariant_mixer is not None:
            return self.equivariant_mixer.attention_maps(scalars, vectors)
        if isinstance(self.scalar_mixer, SubFormer):
            return self.scalar_mixer.attention_maps(scalars)
        raise SpecError(f"the mixer {self.spec.mixer.value!r} has no attention to show")


def _convolution(spec: CVNetworkSpec) -> ResidueGraphConvolution | None:
    if spec.graph_convolution is GraphConvolution.NONE:
        return None
    gated = spec.graph_convolution is not GraphConvolution.PLAIN
    chiral = spec.graph_convolution is GraphConvolution.CHIRAL
    return ResidueGraphConvolution(spec.width, spec.graph_cutoff, gated, chiral)


def _merger(spec: CVNetworkSpec) -> ScalarMerger | EquivariantMerger | None:
    if spec.merging is Merging.NONE:
        return None
    return (ScalarMerger if spec.merging is Merging.SCALAR else EquivariantMerger)(spec.merged_tokens, spec.width)


def _scalar_mixer(spec: CVNetworkSpec, num_tokens: int) -> SubFormer | SubMixer | TokenPerceptron | None:
    if spec.mixer in (Mixer.SUBFORMER, Mixer.SUBFORMER_GVP):
        own_token = spec.pooling is Pooling.TOKEN
        return SubFormer(spec.width, spec.num_layers, spec.num_heads, spec.dropout, own_token)
    if spec.mixer in (Mixer.SUBMIXER, Mixer.SUBMIXER_GVP):
        return SubMixer(num_tokens, spec.width, spec.num_layers, spec.dropout, spec.token_hidden)
    if spec.mixer is Mixer.MLP:
        return TokenPerceptron(spec.width, spec.num_layers, spec.dropout)
    return None


def _equivariant_mixer(spec: CVNetworkSpec) -> EquivariantTransformer:
    chains = spec.chains or (0,) * spec.num_tokens
    # The global token stands apart: it belongs to no chain.
    merged = [*([-1] if spec.global_token else []), *[chains[tokens[0]] for tokens in spec.merged_tokens]]
    query_keys: list[nn.Module] = []
    for _ in range(spec.num_layers):
        if spec.local_attention is LocalAttention.LINEAR:
            query_keys.append(LinearQueryKey(spec.width))
        else:
            query_keys.append(LocalQueryKey(spec.width, merged, spec.local_attention is LocalAttention.CHIRAL))
    return EquivariantTransformer(spec.width, query_keys, spec.num_heads, spec.dropout)


def cv_network_for(spec: CVNetworkSpec, weights: dict[str, Tensor]) -> CVNetwork:
    """A fresh network that takes these weights: with an output map of their shape, and of their dtype."""
    network = CVNetwork(spec).to(weights["output_mean"].dtype)
    network.set_output_map(weights["output_mean"], weights["output_matrix"])
    return network
