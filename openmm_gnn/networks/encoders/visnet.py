"""ViSNet: attention over neighbours with features of edges, which see angles by what is left of vectors across them.

Source: Wang et al., "Enhancing geometric representations for molecules with equivariant vector-scalar interactive
message passing", Nat. Commun. 15, 313 (2024), arXiv 2210.16518; here with vectors (degree 1) only, as in the published
checkpoints.
"""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.kernels.encoder_messages import EdgePlan, edge_layer, tabulated_filters
from openmm_gnn.networks.encoders.equivariant_blocks import (
    EdgeNetwork,
    Tabulated,
    VectorRange,
    late_cutoff,
    sum_over_edges,
)


class EdgeAttentionLayer(nn.Module):
    """One round of messages, and of the edges' features unless it is the last.

    `node` gives query, key and value; `edge` the filters of key and value and, unless last, the gate of the edge's own
    change; `mixing` three kinds of vectors for the atom itself and, unless last, one for the target's and one for the
    source's part in that change; `spread` turns a message into the scales of the vectors it carries.
    """

    def __init__(self, spec: EncoderSpec, is_last: bool) -> None:
        super().__init__()
        width = spec.width
        self.width, self.num_heads, self.is_last = width, spec.num_heads, is_last
        self.head_width = width // spec.num_heads
        self.smooth = spec.smooth
        self.norm = nn.LayerNorm(width)
        self.vector_norm = VectorRange(width, spec.smooth)
        self.node = nn.Linear(width, 3 * width)
        self.mixing = nn.Linear(width, (3 if is_last else 5) * width, bias=False)
        self.edge = nn.Linear(width, (2 if is_last else 3) * width)
        self.spread = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, 3 * width)

    def forward(self, scalars: Tensor, vectors: Tensor, edges: Tensor, plan: EdgePlan) -> tuple[Tensor, Tensor, Tensor]:
        """Changes of the (N, H) scalars and (N, 3, H) vectors, and the new (E, H) edges; the last layer keeps them."""
        node = self.node(self.norm(scalars))
        vectors = self.vector_norm(vectors)
        mixed = self.mixing(vectors)
        if plan.compiled:
            scalar_sum, vector_sum, changed = edge_layer(
                plan, node, vectors, mixed, edges, self.edge.weight, self.edge.bias, self.spread.weight,
                self.spread.bias, self.head_width, self.smooth,
            )  # fmt: skip
            if not self.is_last:
                edges = changed
        else:
            filters = silu(self.edge(edges))
            messages, scalar_sum = self.attend(plan, node, filters[:, : 2 * self.width])
            scales = silu(self.spread(messages))
            if self.smooth:
                scales = scales * late_cutoff(plan.envelope).unsqueeze(1)
            vector_sum = self.carry(plan, vectors, scales)
            if not self.is_last:
                edges = edges + self.edge_change(plan, mixed, filters[:, 2 * self.width :])

        first, second, third = mixed[:, :, : 3 * self.width].chunk(3, dim=2)
        gate, scale, shift = self.out(scalar_sum).chunk(3, dim=1)
        scalar_change = (first * second).sum(dim=1) * scale + shift
        return scalar_change, third * gate.unsqueeze(1) + vector_sum, edges

    def attend(self, plan: EdgePlan, node: Tensor, filters: Tensor) -> tuple[Tensor, Tensor]:
        """Messages (E, H) and their sums (N, H) at the targets, of node (N, 3 H) and filters (E, 2 H)."""
        sources, targets, width = plan.edges[0], plan.edges[1], self.width
        query = node[:, :width].index_select(0, targets)
        key_and_value = node[:, width:].index_select(0, sources) * filters
        agreement = (query * key_and_value[:, :width]).view(-1, self.num_heads, self.head_width).sum(dim=2)
        attention = silu(agreement) * plan.envelope.unsqueeze(1)
        messages = key_and_value[:, width:] * attention.repeat_interleave(self.head_width, dim=1)
        return messages, sum_over_edges(messages, targets, node.size(0))

    def carry(self, plan: EdgePlan, vectors: Tensor, scales: Tensor) -> Tensor:
        """Sums (N, 3, H) at the targets of the sources' vectors and of directions, by their scales (E, 2 H)."""
        carried = vectors.index_select(0, plan.edges[0]) * scales[:, None, : self.width]
        carried = carried + plan.directions.unsqueeze(-1) * scales[:, None, self.width :]
        return sum_over_edges(carried, plan.edges[1], vectors.size(0))

    def edge_change(self, plan: EdgePlan, mixed: Tensor, gates: Tensor) -> Tensor:
        """(E, H) from what target's and source's mixed vectors (N, 3, 5 H) have in common across the edge."""
        sources, targets, width = plan.edges[0], plan.edges[1], self.width
        of_target = across(mixed[:, :, 3 * width : 4 * width].index_select(0, targets), plan.directions)
        of_source = across(mixed[:, :, 4 * width :].index_select(0, sources), plan.directions)
        return gates * (of_target * of_source).sum(dim=1)


class DistanceFilters(Tabulated):
    """Filters of the neighbours' elements, then of the edges' first features: (E, 2 H)."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.num_radial, 2 * spec.width)

    def filters_of(self, radial: Tensor, envelope: Tensor) -> Tensor:
        """(E, 2 H)."""
        return self.linear(radial)

    def forward(self, plan: EdgePlan) -> Tensor:
        """(E, 2 H)."""
        if plan.compiled:
            return tabulated_filters(plan.in_knots, self.table)
        return self.filters_of(plan.radial, plan.envelope)


def across(vectors: Tensor, directions: Tensor) -> Tensor:
    """(E, 3, H) what is left of vectors when their part along the (E, 3) unit directions is taken away."""
    u = directions.unsqueeze(-1)
    return vectors - (vectors * u).sum(dim=1, keepdim=True) * u


class ViSNet(EdgeNetwork):
    """Scalars and vectors of atoms from their elements and edges; lengths in the unit of the spec. Scriptable."""

    def __init__(self, spec: EncoderSpec) -> None:
        width = spec.width
        super().__init__(spec, width // spec.num_heads)
        self.embedding = nn.Embedding(spec.max_atomic_number + 1, width)
        self.neighbor_embedding = nn.Embedding(spec.max_atomic_number + 1, width)
        self.filters = DistanceFilters(spec)
        self.combine = nn.Linear(2 * width, width)
        last = spec.num_layers - 1
        self.layers = nn.ModuleList([EdgeAttentionLayer(spec, k == last) for k in range(spec.num_layers)])
        self.norm = nn.LayerNorm(width)
        self.vector_norm = VectorRange(width, spec.smooth)

    def embed(self, atomic_numbers: Tensor, distances: Tensor, plan: EdgePlan) -> tuple[Tensor, Tensor]:
        """The first (N, H) scalars, of elements and of the neighbours' elements, and (E, H) features of edges."""
        sources, targets = plan.edges[0], plan.edges[1]
        filters = self.filters(plan)
        # An atom is no neighbour of its own; in a small box its images are.
        factors = (plan.envelope * (distances > 0).to(plan.envelope.dtype)).unsqueeze(1)
        seen = self.neighbor_embedding(atomic_numbers).index_select(0, sources) * filters[:, : self.width] * factors
        neighbors = sum_over_edges(seen, targets, atomic_numbers.size(0))
        scalars = self.combine(torch.cat([self.embedding(atomic_numbers), neighbors], dim=1))
        both = scalars.index_select(0, targets) + scalars.index_select(0, sources)
        return scalars, both * filters[:, self.width :]

    def forward(
        self, atomic_numbers: Tensor, edge_index: Tensor, edge_vectors: Tensor, edge_distances: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(N, H) scalars and (N, 3, H) vectors; arguments as for `Encoder.encode`."""
        num_atoms = atomic_numbers.size(0)
        plan = self.plan(num_atoms, edge_index, edge_vectors, edge_distances, self.norm.weight)
        scalars, edges = self.embed(atomic_numbers, edge_distances, plan)
        vectors = torch.zeros((num_atoms, 3, scalars.size(1)), dtype=scalars.dtype, device=scalars.device)
        for layer in self.layers:
            scalar_change, vector_change, edges = layer(scalars, vectors, edges, plan)
            scalars, vectors = scalars + scalar_change, vectors + vector_change
        return self.norm(scalars), self.vector_norm(vectors)


NETWORK = ViSNet
