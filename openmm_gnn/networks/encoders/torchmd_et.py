"""TorchMD-ET: attention over neighbours, weighted by the distance, that carries scalars and vectors.

Source: Tholke and De Fabritiis, "Equivariant transformers for neural network based molecular potentials", ICLR 2022,
arXiv 2202.02541. Departure, as in the published checkpoints: atoms start from their element alone, without the
paper's neighbour embedding.
"""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.kernels.encoder_messages import (
    EdgePlan,
    activated_table,
    attention_messages,
    attention_network,
    has_cpu_operators,
)
from openmm_gnn.kernels.network_forces import in_panels
from openmm_gnn.networks.encoders.equivariant_blocks import EdgeNetwork, Tabulated, late_cutoff, sum_over_edges


class AttentionLayer(Tabulated):
    """One round of messages. `node` gives query, key and three values; `radial` their filters, without the query's."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        width = spec.width
        self.width, self.num_heads, self.head_width = width, spec.num_heads, width // spec.num_heads
        self.smooth = spec.smooth
        self.norm = nn.LayerNorm(width)
        self.node = nn.Linear(width, 5 * width)
        self.mixing = nn.Linear(width, 3 * width, bias=False)
        self.radial = nn.Linear(spec.num_radial, 4 * width)
        self.out = nn.Linear(width, 3 * width)

    def messages(self, plan: EdgePlan, node: Tensor, vectors: Tensor, filters: Tensor) -> tuple[Tensor, Tensor]:
        """`attention_messages` in plain PyTorch: (N, H) and (N, 3, H).

        Args:
            node: (N, 5 H), query, key and values of each atom.
            filters: (E, 4 H), the key's and the values'.
        """
        width = self.width
        sources, targets = plan.edges[0], plan.edges[1]
        query = node[:, :width].index_select(0, targets)
        key_and_values = node[:, width:].index_select(0, sources) * filters
        agreement = (query * key_and_values[:, :width]).view(-1, self.num_heads, self.head_width).sum(dim=2)
        attention = silu(agreement) * plan.envelope.unsqueeze(1)
        per_channel = attention.repeat_interleave(self.head_width, dim=1)
        scalars = key_and_values[:, width : 2 * width] * per_channel
        carried = vectors.index_select(0, sources) * key_and_values[:, None, 2 * width : 3 * width]
        along = plan.directions.unsqueeze(-1) * key_and_values[:, None, 3 * width :]
        num_atoms = node.size(0)
        return sum_over_edges(scalars, targets, num_atoms), sum_over_edges(carried + along, targets, num_atoms)

    def filters_of(self, radial: Tensor, envelope: Tensor) -> Tensor:
        """(E, 4 H)."""
        filters = silu(self.radial(radial))
        if not self.smooth:
            return filters
        late = late_cutoff(envelope).unsqueeze(1)
        return torch.cat([filters[:, : 2 * self.width], filters[:, 2 * self.width :] * late], dim=1)

    @torch.jit.unused
    def table_of(self, knots: Tensor) -> Tensor:
        """The same as of any `Tabulated`; forward differentiation would take as long as the messages of 2000 edges."""
        if self.smooth:
            return super().table_of(knots)
        rows = linear(knots.flatten(0, 1)[:, :-1], self.radial.weight)
        return activated_table(rows.unflatten(0, (-1, 2)), self.radial.bias)

    @torch.jit.unused
    def packed_weights(self) -> Tensor:
        """(22 H^2 + 10 H,) what `attention_network` needs beside the table; matrices by input, then by output.

        Of each matrix 16 columns stand one behind the other, in the order in which a product reads them.
        """
        matrices = [self.node.weight, self.mixing.weight, self.out.weight]
        node, mixing, out = (in_panels(matrix.T) for matrix in matrices)
        parts = [self.norm.weight, self.norm.bias, node, self.node.bias, mixing, out, self.out.bias]
        return torch.cat([*parts, *(in_panels(matrix) for matrix in matrices)]).detach().float()

    def forward(self, scalars: Tensor, vectors: Tensor, plan: EdgePlan) -> tuple[Tensor, Tensor]:
        """Changes of the (N, H) scalars and (N, 3, H) vectors."""
        node = self.node(self.norm(scalars))
        if plan.compiled:
            sums = attention_messages(plan, node, vectors, self.table_for(plan), self.head_width)
        else:
            sums = self.messages(plan, node, vectors, self.filters_of(plan.radial, plan.envelope))
        first, second, third = self.mixing(vectors).chunk(3, dim=2)
        gate, scale, shift = self.out(sums[0]).chunk(3, dim=1)
        return (first * second).sum(dim=1) * scale + shift, third * gate.unsqueeze(1) + sums[1]


class TorchMDET(EdgeNetwork):
    """Scalars and vectors of atoms from their elements and edges; lengths in the unit of the spec. Scriptable.

    With weights that are not trained, what is differentiated by the edges runs on the CPU as one operator,
    `attention_network`, and on CUDA with one for each layer.
    """

    packed: Tensor
    tables: Tensor

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__(spec, spec.width // spec.num_heads, differentiable=True, edge_gradients=True)
        self.embedding = nn.Embedding(spec.max_atomic_number + 1, spec.width)
        self.layers = nn.ModuleList([AttentionLayer(spec) for _ in range(spec.num_layers)])
        self.norm = nn.LayerNorm(spec.width)
        self.register_buffer("packed", torch.zeros(0, 0), persistent=False)
        self.register_buffer("tables", torch.zeros(0, 0, 2, 0), persistent=False)

    def set_tables(self, wanted: bool) -> None:
        """Make the tables and, of weights that are not trained, what `attention_network` takes; or forget both."""
        super().set_tables(wanted)
        layers = [layer for layer in self.layers if isinstance(layer, AttentionLayer)]
        device = self.norm.weight.device
        if not (self.tabulated and self.frozen):
            self.packed = torch.zeros(0, 0, device=device)
            self.tables = torch.zeros(0, 0, 2, 0, device=device)
            return
        self.packed = torch.stack([layer.packed_weights() for layer in layers])
        self.tables = torch.stack([layer.table for layer in layers])
        for layer, table in zip(layers, self.tables, strict=True):
            layer.table = table  # the same memory

    def forward(
        self, atomic_numbers: Tensor, edge_index: Tensor, edge_vectors: Tensor, edge_distances: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(N, H) scalars and (N, 3, H) vectors; arguments as for `Encoder.encode`."""
        scalars = self.embedding(atomic_numbers)
        differentiated = torch.is_grad_enabled() and edge_vectors.requires_grad
        differentiated = differentiated and self.is_fused(edge_vectors, self.norm.weight)
        if differentiated and self.packed.size(0) > 0 and has_cpu_operators(edge_vectors):
            norm = torch.stack([self.norm.weight, self.norm.bias])
            return attention_network(
                edge_index, edge_vectors, edge_distances, scalars, self.packed, self.tables, norm, self.cutoff,
                self.head_width,
            )  # fmt: skip
        num_atoms, width = scalars.size(0), scalars.size(1)
        plan = self.plan(num_atoms, edge_index, edge_vectors, edge_distances, self.norm.weight)
        vectors = torch.zeros((num_atoms, 3, width), dtype=scalars.dtype, device=scalars.device)
        for layer in self.layers:
            changes = layer(scalars, vectors, plan)
            scalars, vectors = scalars + changes[0], vectors + changes[1]
        return self.norm(scalars), vectors


NETWORK = TorchMDET
