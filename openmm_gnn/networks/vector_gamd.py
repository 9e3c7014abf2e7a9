"""VectorGAMD: GAMD whose atoms also carry vectors, so that direction travels along with the messages.

The messages and the pair decoder of GAMD (networks/gamd.py) stay; an atom has `width` scalars and `width` vectors, and
what a message depends on gains the vectors' projections on the pair. So a network sees angles, the orientation of a
molecule and the field at an atom, and is exactly covariant under rotation all the same. Edge features are splines of
the distance, which the compiled operators evaluate on the fly (kernels/vector_network.py).

Source: Li et al., J. Chem. Phys. 156, 144103 (2022), for messages and decoder; Schuett, Unke, Gastegger,
"Equivariant message passing for the prediction of tensorial properties and molecular spectra", ICML 2021,
arXiv 2102.03150, for scalars and vectors side by side.
"""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from openmm_gnn.base.specs.force import NeighborSpec, VectorGAMDSpec
from openmm_gnn.graph.topology_tables import SEPARATIONS
from openmm_gnn.kernels.neighbor_pairs import safe_distances
from openmm_gnn.kernels.network_forces import packed_linear
from openmm_gnn.kernels.pair_rows import PairGraph, fits_operators, pair_graph
from openmm_gnn.kernels.radial_pairs import scatter_pair_forces
from openmm_gnn.kernels.vector_network import pair_strengths, vector_messages
from openmm_gnn.networks.force_model import ForceModel, PairList
from openmm_gnn.networks.pair_term import PairTerm
from openmm_gnn.networks.vector_gamd_forces import VectorGAMDForces

MESSAGE_SCALE = 0.2
"""About 1 / sqrt(number of neighbours): keeps sums of messages near the size of one."""
WIDEST_ON_CUDA = 256
"""Channels that the kernels have threads for, as in `kernels.pair_rows.fits_operators`."""
ENERGY_LENGTH = 0.05
"""nm; times the force scale it is the unit of a pair's energy: energies change by it over such lengths."""


class VectorMessageLayer(nn.Module):
    """One round of messages between atoms; the first one makes the vectors."""

    def __init__(self, spec: VectorGAMDSpec, num_types: int, has_vectors: bool) -> None:
        super().__init__()
        width = spec.width
        self.width, self.has_vectors, self.message_scale = width, has_vectors, MESSAGE_SCALE
        self.norm = nn.LayerNorm(width)
        self.source = nn.Linear(width, 3 * width, bias=False)
        self.target = nn.Linear(width, 3 * width)
        self.value = nn.Linear(width, width)
        self.radial = nn.Parameter(0.5 * torch.randn(num_types, spec.num_radial, 3 * width))
        if has_vectors:
            self.mixing = nn.Parameter(0.5 * torch.randn(3, 3 * width))
        else:
            self.register_buffer("mixing", torch.zeros(3, 3 * width))
        self.probe = nn.Linear(width, width, bias=False) if has_vectors else None
        self.carried = nn.Linear(width, width, bias=False) if has_vectors else None
        self.update_self = nn.Linear(width, width)
        self.update_sum = nn.Linear(width, width, bias=False)
        self.update_length = nn.Linear(width, width, bias=False)
        self.update_out = nn.Linear(width, 2 * width)
        self.vector_length = nn.Linear(width, width, bias=False)
        self.vector_out = nn.Linear(width, width, bias=False)

    def forward(self, scalars: Tensor, vectors: Tensor, graph: PairGraph) -> tuple[Tensor, Tensor]:
        """New (N, width) scalars and (N, 3, width) vectors."""
        hidden = self.norm(scalars)
        probe, carried = vectors, vectors
        if self.probe is not None and self.carried is not None:
            probe, carried = self.probe(vectors), self.carried(vectors)
        scalar_sum, vector_sum = vector_messages(
            graph,
            self.source(hidden),
            self.target(hidden),
            self.value(hidden),
            probe,
            carried,
            self.radial,
            self.mixing,
        )
        vector_sum = self.message_scale * vector_sum
        length = torch.sqrt(self.vector_length(vector_sum).square().sum(dim=1) + 1e-2)
        update = (
            self.update_self(hidden) + self.update_sum(self.message_scale * scalar_sum) + self.update_length(length)
        )
        change = self.update_out(nn.functional.silu(update))
        vector_change = self.vector_out(vector_sum) * (1.0 + change[:, None, self.width :])
        return scalars + change[:, : self.width], vectors + vector_change if self.has_vectors else vector_change

    @torch.jit.unused
    def packed_weights(self) -> list[Tensor]:
        """Weights in the order of `LayerWeights` in csrc/vector_gamd/network_weights.h."""
        parts: list[Tensor] = [self.norm.weight, self.norm.bias]
        for linear in (self.source, self.target, self.value, self.update_self, self.probe, self.carried):
            parts += [] if linear is None else packed_linear(linear.weight, linear.bias)
        for linear in (self.vector_length, self.vector_out, self.update_sum):
            parts += packed_linear(linear.weight, linear.bias, self.message_scale)
        for linear in (self.update_length, self.update_out):
            parts += packed_linear(linear.weight, linear.bias)
        return [*parts, self.radial, self.mixing]


class VectorPairDecoder(nn.Module):
    """f_i = sum_j s_ij r_ij / |r_ij| with s_ij = s_ji, as GAMD's pair decoder; or the energy sum of all s_ij."""

    def __init__(self, spec: VectorGAMDSpec, num_types: int) -> None:
        super().__init__()
        width = spec.width
        self.norm = nn.LayerNorm(width)
        self.total = nn.Linear(width, width, bias=False)
        self.left = nn.Linear(width, width, bias=False)
        self.probe = nn.Linear(width, width, bias=False)
        self.radial = nn.Parameter(0.5 * torch.randn(num_types, spec.num_radial, width))
        self.mixing = nn.Parameter(0.5 * torch.randn(3, width))
        self.readout = nn.Parameter(torch.randn(width) / width**0.5)

    def forward(self, scalars: Tensor, vectors: Tensor, graph: PairGraph) -> Tensor:
        """(P,) strengths, in units of the force scale."""
        hidden = self.norm(scalars)
        return pair_strengths(
            graph, self.total(hidden), self.left(hidden), self.probe(vectors), self.radial, self.mixing, self.readout
        )

    @torch.jit.unused
    def packed_weights(self) -> list[Tensor]:
        """Weights in the order of `DecoderWeights` in csrc/vector_gamd/network_weights.h."""
        parts: list[Tensor] = [self.norm.weight, self.norm.bias]
        for linear in (self.total, self.left, self.probe):
            parts += packed_linear(linear.weight, linear.bias)
        return [*parts, self.radial, self.mixing, self.readout]


class VectorGAMD(ForceModel):
    """Forces, or an energy, by a network with scalar and vector features; a pair term may reach beyond its cutoff."""

    if TYPE_CHECKING:
        spec: VectorGAMDSpec

    def __init__(self, spec: VectorGAMDSpec) -> None:
        super().__init__(spec)
        self.energy_scale = ENERGY_LENGTH * spec.force_scale
        self.num_species = len(spec.elements)
        self.start, self.cutoff, self.width = float(spec.min_distance), float(spec.neighbors.cutoff), spec.width
        num_types = num_pair_types(self.num_species)
        if spec.pair_cutoff > 0:
            self.pair_term = PairTerm(
                num_types, spec.pair_radial, spec.min_distance, spec.pair_cutoff, spec.charge_width, self.num_species
            )
        self.embedding = nn.Embedding(self.num_species, spec.width)
        self.layers = nn.ModuleList([VectorMessageLayer(spec, num_types, k > 0) for k in range(spec.num_layers)])
        self.decoder = VectorPairDecoder(spec, num_types)

    def lists(self) -> list[NeighborSpec]:
        """That of the network, and that of the pair term, skin and capacity in proportion."""
        near, reach = self.spec.neighbors, self.spec.pair_cutoff
        if reach == 0:
            return [near]
        ratio = (reach + near.skin) / (near.cutoff + near.skin)
        return [near, NeighborSpec(reach, near.skin, math.ceil(near.max_neighbors * max(1.0, ratio) ** 3))]

    def strengths(
        self, species: Tensor, pairs: Tensor, types: Tensor, vectors: Tensor, distances: Tensor, fused: bool
    ) -> Tensor:
        """(P,) of the decoder, in units of the force scale: force along each pair, or its energy."""
        scalars = self.embedding(species)
        features = torch.zeros((0, 3, scalars.size(1)), dtype=scalars.dtype, device=scalars.device)
        graph = pair_graph(pairs, types, vectors, distances, species.size(0), self.start, self.cutoff, fused)
        for layer in self.layers:
            scalars, features = layer(scalars, features, graph)
        return self.decoder(scalars, features, graph)

    def energy_and_forces(
        self, species: Tensor, lists: list[PairList], positions: Tensor, box: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """As `ForceModel.energy_and_forces`: network and pair term together."""
        energy, forces = self.network_energy_and_forces(species, lists[0])
        if self.pair_term is not None:
            pair_energy, pair_forces = self.pair_term.energy_and_forces(species, lists[1], positions, box)
            forces = forces + pair_forces
            if self.conservative:
                energy = energy + pair_energy
        return energy, forces

    def network_energy_and_forces(
        self, species: Tensor, near: PairList, batch: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `ForceModel.network_energy_and_forces`: without the pair term's, frame by frame through the pairs alone.

        Raises:
            ValueError: if the types of the pairs are not given; torch.jit.Error once it is scripted.
        """
        types, vectors, distances = near.types, near.vectors, near.distances
        if types is None:
            raise ValueError("this model needs the types of its pairs: give `types`, (P,), of kernels.pair_types")
        if self.conservative:
            return self.differentiated(species, near)
        strengths = self.strengths(species, near.pairs, types, vectors, distances, self.is_fused(vectors))
        units = vectors / distances.clamp(min=1e-6).unsqueeze(-1)
        forces = scatter_pair_forces(self.force_scale * strengths.unsqueeze(-1) * units, near.pairs, species.size(0))
        return torch.zeros([1], dtype=forces.dtype, device=forces.device), forces

    def energy(self, species: Tensor, pairs: Tensor, types: Tensor | None, vectors: Tensor, once: bool) -> Tensor:
        """As `ForceModel.energy`."""
        assert types is not None
        fused = once and self.is_fused(vectors)
        distances = safe_distances(vectors)
        if fused:
            distances = distances.detach()
        return self.energy_scale * self.strengths(species, pairs, types, vectors, distances, fused).sum()

    def matches_energies(self, vectors: Tensor) -> bool:
        """True for an energy model on the compiled operators, which have one derivative."""
        return self.conservative and self.is_fused(vectors)

    @torch.jit.unused
    def has_operator(self) -> bool:
        """For weights of float32 on the CPU, which are copied for it."""
        weight = self.embedding.weight
        return weight.dtype == torch.float32 and weight.is_cpu

    @torch.jit.unused
    def compiled(self, species: Tensor, partners: Tensor) -> nn.Module | None:
        """As `ForceModel.compiled`."""
        return VectorGAMDForces(self, species, partners) if self.has_operator() else None

    @torch.jit.unused
    def compiled_for_cuda(self) -> bool:
        """As `ForceModel.compiled_for_cuda`: a block of threads has one for each channel."""
        return self.has_operator() and self.width <= WIDEST_ON_CUDA

    @torch.jit.unused
    def packed_weights(self) -> Tensor:
        """All weights but the pair term's, one behind the other, in the order of csrc/vector_gamd/network_weights.h."""
        parts: list[Tensor] = [self.embedding.weight]
        for layer in self.layers:
            assert isinstance(layer, VectorMessageLayer)
            parts += layer.packed_weights()
        parts += self.decoder.packed_weights()
        return torch.cat([part.detach().flatten() for part in parts])

    def is_fused(self, vectors: Tensor) -> bool:
        """Whether the compiled operators can be used."""
        return fits_operators(vectors, self.width)


def num_pair_types(num_species: int) -> int:
    """How many kinds of pairs there are: unordered species, and how far apart in bonds."""
    return SEPARATIONS * num_species * (num_species + 1) // 2


NETWORK = VectorGAMD
