"""GAMD: a graph network that predicts forces directly.

Source: Li, Meidani, Yadav, Barati Farimani, "Graph neural networks accelerated molecular dynamics",
J. Chem. Phys. 156, 144103 (2022), arXiv 2112.03383; equation numbers below are the paper's.
Departures, each for a reason: raw distances in the radial basis, no self-edges and a smooth envelope (forces are
continuous); projections per node before the gather (same result, fewer operations); a pair decoder beside the paper's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openmm_gnn.base.specs.force import Decoder, GAMDSpec
from openmm_gnn.graph.radial_basis import CutoffEnvelope, GaussianBasis
from openmm_gnn.graph.topology_tables import SEPARATIONS
from openmm_gnn.kernels.gamd_tiles import (
    TileGraph,
    fits_tiles,
    gamd_edges,
    gamd_messages,
    gamd_strengths,
    tile_graph,
)
from openmm_gnn.kernels.radial_pairs import scatter_pair_forces
from openmm_gnn.networks.force_model import ForceModel, PairList, mean_per_frame


class MessageLayer(nn.Module):
    """One round of messages, equations (2) to (5), pre-normalised: v <- v + Theta(LN(v), sum_j Phi_ij * LN(v)_j)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.source = nn.Linear(width, width, bias=False)
        self.target = nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)
        self.update_self = nn.Linear(width, width)
        self.update_sum = nn.Linear(width, width, bias=False)
        self.update_out = nn.Linear(width, width)
        self.activation = nn.SiLU()

    def forward(
        self, nodes: Tensor, forward_edges: Tensor, backward_edges: Tensor, i: Tensor, j: Tensor, envelope: Tensor
    ) -> Tensor:
        """New node features.

        Args:
            nodes: (N, width).
            forward_edges, backward_edges: (P, width), features of the edges i -> j and j -> i; each pair comes once.
            i, j: (P,) int64.
            envelope: (P, 1), zero on padded pairs.
        """
        hidden = self.norm(nodes)
        source, target = self.source(hidden), self.target(hidden)
        edge_ij = self.edge(forward_edges)
        edge_ji = edge_ij if backward_edges is forward_edges else self.edge(backward_edges)
        to_j = self.activation(source.index_select(0, i) + target.index_select(0, j) + edge_ij)
        to_i = self.activation(source.index_select(0, j) + target.index_select(0, i) + edge_ji)
        message_to_j = self.gate(to_j) * envelope * hidden.index_select(0, i)
        message_to_i = self.gate(to_i) * envelope * hidden.index_select(0, j)
        sums = torch.zeros_like(hidden).index_add(0, j, message_to_j).index_add(0, i, message_to_i)
        return self.updated(nodes, hidden, sums)

    def tiled(self, nodes: Tensor, graph: TileGraph, edges: tuple[Tensor, Tensor]) -> Tensor:
        """What `forward` gives, by the operators of CUDA; edges are those of both directions."""
        hidden = self.norm(nodes)
        edge, gate = (self.edge.weight, self.edge.bias), (self.gate.weight, self.gate.bias)
        sums = gamd_messages(graph, edges, self.source(hidden), self.target(hidden), hidden, edge, gate)
        return self.updated(nodes, hidden, sums)

    def updated(self, nodes: Tensor, hidden: Tensor, sums: Tensor) -> Tensor:
        """New node features from the sums of messages."""
        return nodes + self.update_out(self.activation(self.update_self(hidden) + self.update_sum(sums)))


class NodeDecoder(nn.Module):
    """The paper's decoder: an MLP from the features of an atom to its force."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 3))

    def forward(self, nodes: Tensor) -> Tensor:
        """(N, width) -> (N, 3), in units of the force scale."""
        return self.mlp(nodes)


class PairDecoder(nn.Module):
    """f_i = sum_j s_ij r_ij / |r_ij| with s_ij = s_ji from rotation-invariant features.

    Rotating the positions rotates the forces exactly; the forces of a pair cancel and act along their line, so net
    force and net torque are zero to rounding. Departure from the paper, whose decoder has none of this.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.node_sum = nn.Linear(width, width, bias=False)
        self.node_left = nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(width, width)
        self.hidden = nn.Linear(width, width)
        self.strength = nn.Linear(width, 1)
        self.activation = nn.SiLU()

    def forward(
        self, nodes: Tensor, edges: Tensor, i: Tensor, j: Tensor, unit_vectors: Tensor, envelope: Tensor
    ) -> Tensor:
        """(N, 3) forces in units of the force scale; unit vectors point from i to j."""
        hidden = self.norm(nodes)
        total, left = self.node_sum(hidden), self.node_left(hidden)
        both = total.index_select(0, i) + total.index_select(0, j)
        product = left.index_select(0, i) * left.index_select(0, j)
        strength = self.strength(self.activation(self.hidden(self.activation(both + product + self.edge(edges)))))
        pair_forces = strength * envelope * unit_vectors
        forces = torch.zeros((nodes.size(0), 3), dtype=pair_forces.dtype, device=pair_forces.device)
        return forces.index_add(0, i, pair_forces).index_add(0, j, -pair_forces)

    def tiled(self, nodes: Tensor, edges: Tensor, graph: TileGraph, unit_vectors: Tensor) -> Tensor:
        """What `forward` gives, by the operators of CUDA."""
        normed = self.norm(nodes)
        edge, hidden = (self.edge.weight, self.edge.bias), (self.hidden.weight, self.hidden.bias)
        readout = (self.strength.weight, self.strength.bias)
        strengths = gamd_strengths(graph, edges, self.node_sum(normed), self.node_left(normed), edge, hidden, readout)
        return scatter_pair_forces(strengths.unsqueeze(-1) * unit_vectors, graph.pairs, nodes.size(0))


class GAMD(ForceModel):
    """Forces predicted directly by a network of messages between atoms."""

    def __init__(self, spec: GAMDSpec) -> None:
        super().__init__(spec)
        self.is_pair = spec.decoder is Decoder.PAIR
        self.use_bonds = spec.use_bonds
        self.remove_net_force = spec.remove_net_force
        self.width, self.num_radial = spec.width, spec.num_radial
        self.cutoff = spec.neighbors.cutoff
        self.num_kinds = len(spec.elements) * (len(spec.elements) + 1) // 2
        width = spec.width
        self.radial_basis = GaussianBasis(spec.min_distance, spec.neighbors.cutoff, spec.num_radial)
        self.envelope = CutoffEnvelope(spec.neighbors.cutoff, spec.envelope_exponent)
        self.node_embedding = nn.Embedding(len(spec.elements), width)
        self.edge_radial = nn.Linear(spec.num_radial, width)
        self.edge_direction = None if self.is_pair else nn.Linear(3, width, bias=False)
        self.edge_bonded = nn.Embedding(SEPARATIONS, width) if spec.use_bonds else None
        self.edge_out = nn.Sequential(nn.SiLU(), nn.Linear(width, width))
        self.layers = nn.ModuleList([MessageLayer(width) for _ in range(spec.num_layers)])
        self.pair_decoder = PairDecoder(width) if self.is_pair else None
        self.node_decoder = None if self.is_pair else NodeDecoder(width)

    def network_energy_and_forces(
        self, species: Tensor, near: PairList, batch: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `ForceModel.network_energy_and_forces`; the energy is zero, as forces are predicted directly."""
        pairs, vectors, distances = near.pairs, near.vectors, near.distances
        zero = torch.zeros([1], dtype=vectors.dtype, device=vectors.device)
        if fits_tiles(vectors, self.width, self.num_radial):
            return zero, self.tiled_forces(species, near, batch)
        i, j = pairs[0].clamp(min=0), pairs[1].clamp(min=0)
        envelope = self.envelope(distances).unsqueeze(-1)
        unit_vectors = vectors / distances.clamp(min=1e-12).unsqueeze(-1)
        radial = self.edge_radial(self.radial_basis(distances))
        if self.edge_bonded is not None:
            radial = radial + self.edge_bonded(self._separations(near))
        if self.edge_direction is not None:
            direction = self.edge_direction(unit_vectors)
            forward_edges = self.edge_out(radial + direction)
            backward_edges = self.edge_out(radial - direction)
        else:
            forward_edges = self.edge_out(radial)
            backward_edges = forward_edges
        nodes = self.node_embedding(species)
        for layer in self.layers:
            nodes = layer(nodes, forward_edges, backward_edges, i, j, envelope)
        if self.pair_decoder is not None:
            forces = self.pair_decoder(nodes, forward_edges, i, j, unit_vectors, envelope)
        else:
            assert self.node_decoder is not None
            forces = self.node_decoder(nodes)
            if self.remove_net_force:
                forces = forces - mean_per_frame(forces, batch)
        return zero.to(forces.dtype), forces * self.force_scale

    def tiled_forces(self, species: Tensor, near: PairList, batch: Tensor | None) -> Tensor:
        """What `forward` gives in float32 without gradients, by the operators of CUDA (kernels/gamd_tiles.py)."""
        pairs, vectors, distances = near.pairs, near.vectors, near.distances
        graph = tile_graph(pairs, distances, self.envelope(distances), species.size(0), self.cutoff)
        none = torch.zeros([0, 0], dtype=vectors.dtype, device=vectors.device)
        bonded, direction, separations = none, none, pairs[0]
        if self.edge_bonded is not None:
            bonded, separations = self.edge_bonded.weight, self._separations(near)
        if self.edge_direction is not None:
            direction = self.edge_direction.weight
        edges = gamd_edges(
            graph, vectors, separations, (self.radial_basis.centers, self.radial_basis.scale),
            (self.edge_radial.weight, self.edge_radial.bias), bonded, direction,
            (self.edge_out[1].weight, self.edge_out[1].bias),  # type: ignore[arg-type]
        )  # fmt: skip
        nodes = self.node_embedding(species)
        for layer in self.layers:
            nodes = layer.tiled(nodes, graph, edges)  # type: ignore[operator]
        if self.pair_decoder is not None:
            units = vectors / distances.clamp(min=1e-12).unsqueeze(-1)
            forces = self.pair_decoder.tiled(nodes, edges[0], graph, units)
        else:
            assert self.node_decoder is not None
            forces = self.node_decoder(nodes)
            if self.remove_net_force:
                forces = forces - mean_per_frame(forces, batch)
        # A list that is invalid says so by distances of NaN, and has no pairs to carry them to the atoms. Chosen, not
        # added as zero times a distance, which a compiler that fuses operations may leave out.
        invalid = distances[:1].isnan().any()
        return torch.where(invalid, torch.full_like(forces, float("nan")), forces * self.force_scale)

    def _separations(self, near: PairList) -> Tensor:
        """(P,) how far apart in bonds, from the kinds of the pairs."""
        types = near.types
        if types is None:
            raise ValueError("this model uses bonds: give `types`, (P,), of kernels.pair_types")
        return types // self.num_kinds


NETWORK = GAMD
