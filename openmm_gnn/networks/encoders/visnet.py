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
from openmm_gnn.graph.filter_table import filter_places
from openmm_gnn.kernels.edge_rows import edge_attention_rows, edge_vector_rows
from openmm_gnn.kernels.encoder_messages import edge_layer, tabulated_filters
from openmm_gnn.networks.encoders.equivariant_blocks import (
    EdgeNetwork,
    Tabulated,
    VectorRange,
    cosine_cutoff,
    late_cutoff,
    sum_over_edges,
    unit_vectors,
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
        self.smooth = False
        self.norm = nn.LayerNorm(width)
        self.vector_norm = VectorRange(width)
        self.node = nn.Linear(width, 3 * width)
        self.mixing = nn.Linear(width, (3 if is_last else 5) * width, bias=False)
        self.edge = nn.Linear(width, (2 if is_last else 3) * width)
        self.spread = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, 3 * width)

    def forward(
        self,
        scalars: Tensor,
        vectors: Tensor,
        edges: Tensor,
        edge_index: Tensor,
        directions: Tensor,
        envelope: Tensor,
        fused: bool,
        rows: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Changes of the (N, H) scalars and (N, 3, H) vectors, and new (E, H) edges, which the last layer leaves alone.

        Args:
            directions: (E, 3) unit vectors from target to source.
            envelope: (E,) the cosine cutoff.
            fused: use the compiled form.
            rows: of the targets, for the compiled form on CUDA.
        """
        node = self.node(self.norm(scalars))
        vectors = self.vector_norm(vectors)
        mixed = self.mixing(vectors)
        if fused and rows is not None:
            filters = self.edge(edges)
            messages, scalar_sum = edge_attention_rows(rows, edge_index[0], envelope, node, filters, self.head_width)
            scales = self.spread(messages)
            vector_sum, changed = edge_vector_rows(
                rows, edge_index[0], directions, vectors, scales, mixed, filters, edges
            )
            if not self.is_last:
                edges = changed
        elif fused:
            filter_weight, spread_weight = self.edge.weight.t().contiguous(), self.spread.weight.t().contiguous()
            scalar_sum, vector_sum, changed = edge_layer(
                edge_index, directions, envelope, node, vectors, mixed, edges, filter_weight, self.edge.bias,
                spread_weight, self.spread.bias, self.head_width,
            )  # fmt: skip
            if not self.is_last:
                edges = changed
        else:
            filters = silu(self.edge(edges))
            messages, scalar_sum = self.attend(node, filters[:, : 2 * self.width], edge_index, envelope)
            scales = silu(self.spread(messages))
            if self.smooth:
                scales = scales * late_cutoff(envelope).unsqueeze(1)
            vector_sum = self.carry(vectors, scales, edge_index, directions)
            if not self.is_last:
                edges = edges + self.edge_change(mixed, filters[:, 2 * self.width :], edge_index, directions)

        first, second, third = mixed[:, :, : 3 * self.width].chunk(3, dim=2)
        gate, scale, shift = self.out(scalar_sum).chunk(3, dim=1)
        scalar_change = (first * second).sum(dim=1) * scale + shift
        return scalar_change, third * gate.unsqueeze(1) + vector_sum, edges

    def attend(self, node: Tensor, filters: Tensor, edge_index: Tensor, envelope: Tensor) -> tuple[Tensor, Tensor]:
        """Messages (E, H) and their sums (N, H) at the targets, of node (N, 3 H) and filters (E, 2 H)."""
        sources, targets, width = edge_index[0], edge_index[1], self.width
        query = node[:, :width].index_select(0, targets)
        key_and_value = node[:, width:].index_select(0, sources) * filters
        agreement = (query * key_and_value[:, :width]).view(-1, self.num_heads, self.head_width).sum(dim=2)
        attention = silu(agreement) * envelope.unsqueeze(1)
        messages = key_and_value[:, width:] * attention.repeat_interleave(self.head_width, dim=1)
        return messages, sum_over_edges(messages, targets, node.size(0))

    def carry(self, vectors: Tensor, scales: Tensor, edge_index: Tensor, directions: Tensor) -> Tensor:
        """Sums (N, 3, H) at the targets of the sources' vectors and of directions, by their scales (E, 2 H)."""
        carried = vectors.index_select(0, edge_index[0]) * scales[:, None, : self.width]
        carried = carried + directions.unsqueeze(-1) * scales[:, None, self.width :]
        return sum_over_edges(carried, edge_index[1], vectors.size(0))

    def edge_change(self, mixed: Tensor, gates: Tensor, edge_index: Tensor, directions: Tensor) -> Tensor:
        """(E, H) from what target's and source's mixed vectors (N, 3, 5 H) have in common across the edge."""
        of_target = across(mixed[:, :, 3 * self.width : 4 * self.width].index_select(0, edge_index[1]), directions)
        of_source = across(mixed[:, :, 4 * self.width :].index_select(0, edge_index[0]), directions)
        return gates * (of_target * of_source).sum(dim=1)


class DistanceFilters(Tabulated):
    """Filters of the neighbours' elements, then of the edges' first features: (E, 2 H)."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.linear = nn.Linear(spec.num_radial, 2 * spec.width)

    def filters_of(self, radial: Tensor, envelope: Tensor) -> Tensor:
        """(E, 2 H)."""
        return self.linear(radial)

    def forward(self, radial: Tensor, envelope: Tensor, fused: bool) -> Tensor:
        """(E, 2 H); of `radial`, (E, num_radial), or by the table of `filter_places`, (E,)."""
        return tabulated_filters(radial, self.table) if fused else self.filters_of(radial, envelope)


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
        self.vector_norm = VectorRange(width)

    def make_smooth(self) -> None:
        """From now on let the vectors' messages vanish at the cutoff too, and vectors begin from nothing.

        The compiled loops over edges do neither: what follows runs in plain PyTorch.
        """
        self.fits = self.fits_gpu = False
        self.vector_norm.make_smooth()
        for layer in self.layers:
            layer.smooth = True  # type: ignore[assignment]
            layer.vector_norm.make_smooth()  # type: ignore[operator, union-attr]

    def embed(
        self, atomic_numbers: Tensor, edge_index: Tensor, distances: Tensor, envelope: Tensor, fused: bool
    ) -> tuple[Tensor, Tensor]:
        """The first (N, H) scalars, of elements and of the neighbours' elements, and (E, H) features of edges."""
        sources, targets = edge_index[0], edge_index[1]
        radial = filter_places(distances, self.cutoff) if fused else self.basis(distances).to(envelope.dtype)
        filters = self.filters(radial, envelope, fused)
        # An atom is no neighbour of its own; in a small box its images are.
        factors = (envelope * (distances > 0).to(envelope.dtype)).unsqueeze(1)
        seen = self.neighbor_embedding(atomic_numbers).index_select(0, sources) * filters[:, : self.width] * factors
        neighbors = sum_over_edges(seen, targets, atomic_numbers.size(0))
        scalars = self.combine(torch.cat([self.embedding(atomic_numbers), neighbors], dim=1))
        both = scalars.index_select(0, targets) + scalars.index_select(0, sources)
        return scalars, both * filters[:, self.width :]

    def forward(
        self, atomic_numbers: Tensor, edge_index: Tensor, edge_vectors: Tensor, edge_distances: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(N, H) scalars and (N, 3, H) vectors; arguments as for `Encoder.encode`."""
        fused = self.is_fused(edge_vectors, self.norm.weight)
        dtype = self.norm.weight.dtype
        directions = unit_vectors(edge_vectors, edge_distances).to(dtype)
        envelope = cosine_cutoff(edge_distances, self.cutoff).to(dtype)
        tabulated = fused and not self.on_gpu(self.norm.weight)  # a GPU has the filters sooner by a matrix product
        scalars, edges = self.embed(atomic_numbers, edge_index, edge_distances, envelope, tabulated)
        rows = self.rows_of(edge_index[1], edge_distances, atomic_numbers.size(0), fused)
        vectors = torch.zeros((scalars.size(0), 3, scalars.size(1)), dtype=scalars.dtype, device=scalars.device)
        for layer in self.layers:
            scalar_change, vector_change, edges = layer(
                scalars, vectors, edges, edge_index, directions, envelope, fused, rows
            )
            scalars, vectors = scalars + scalar_change, vectors + vector_change
        return self.norm(scalars), self.vector_norm(vectors)
