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

import torch
from torch import Tensor, nn

from openmm_gnn.base.specs.force import VectorGAMDSpec
from openmm_gnn.graph.topology_tables import SEPARATIONS
from openmm_gnn.kernels.pair_rows import pair_rows
from openmm_gnn.kernels.radial_pairs import scatter_pair_forces
from openmm_gnn.kernels.vector_network import pair_strengths, vector_messages
from openmm_gnn.networks.pair_term import PairTerm

MESSAGE_SCALE = 0.2
"""About 1 / sqrt(number of neighbours): keeps sums of messages near the size of one."""
ENERGY_LENGTH = 0.05
"""nm; times the force scale it is the unit of a pair's energy: energies change by it over such lengths."""


class VectorMessageLayer(nn.Module):
    """One round of messages between atoms; the first one makes the vectors."""

    def __init__(self, spec: VectorGAMDSpec, num_types: int, has_vectors: bool) -> None:
        super().__init__()
        width = spec.width
        self.start, self.cutoff = spec.min_distance, spec.neighbors.cutoff
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

    def forward(
        self,
        scalars: Tensor,
        vectors: Tensor,
        pairs: Tensor,
        types: Tensor,
        pair_vectors: Tensor,
        distances: Tensor,
        fused: bool,
        rows: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """New (N, width) scalars and (N, 3, width) vectors; the other arguments as for `vector_messages`."""
        hidden = self.norm(scalars)
        probe, carried = vectors, vectors
        if self.probe is not None and self.carried is not None:
            probe, carried = self.probe(vectors), self.carried(vectors)
        scalar_sum, vector_sum = vector_messages(
            pairs, types, pair_vectors, distances, self.source(hidden), self.target(hidden), self.value(hidden), probe,
            carried, self.radial, self.mixing, self.start, self.cutoff, fused, rows,
        )  # fmt: skip
        vector_sum = self.message_scale * vector_sum
        length = torch.sqrt(self.vector_length(vector_sum).square().sum(dim=1) + 1e-2)
        update = (
            self.update_self(hidden) + self.update_sum(self.message_scale * scalar_sum) + self.update_length(length)
        )
        change = self.update_out(nn.functional.silu(update))
        vector_change = self.vector_out(vector_sum) * (1.0 + change[:, None, self.width :])
        return scalars + change[:, : self.width], vectors + vector_change if self.has_vectors else vector_change


class VectorPairDecoder(nn.Module):
    """f_i = sum_j s_ij r_ij / |r_ij| with s_ij = s_ji, as GAMD's pair decoder; or the energy sum of all s_ij."""

    def __init__(self, spec: VectorGAMDSpec, num_types: int) -> None:
        super().__init__()
        width = spec.width
        self.start, self.cutoff = spec.min_distance, spec.neighbors.cutoff
        self.norm = nn.LayerNorm(width)
        self.total = nn.Linear(width, width, bias=False)
        self.left = nn.Linear(width, width, bias=False)
        self.probe = nn.Linear(width, width, bias=False)
        self.radial = nn.Parameter(0.5 * torch.randn(num_types, spec.num_radial, width))
        self.mixing = nn.Parameter(0.5 * torch.randn(3, width))
        self.readout = nn.Parameter(torch.randn(width) / width**0.5)

    def forward(
        self,
        scalars: Tensor,
        vectors: Tensor,
        pairs: Tensor,
        types: Tensor,
        pair_vectors: Tensor,
        distances: Tensor,
        fused: bool,
        rows: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """(P,) strengths, in units of the force scale."""
        hidden = self.norm(scalars)
        return pair_strengths(
            pairs, types, pair_vectors, distances, self.total(hidden), self.left(hidden), self.probe(vectors),
            self.radial, self.mixing, self.readout, self.start, self.cutoff, fused, rows,
        )  # fmt: skip


class VectorGAMD(nn.Module):
    """Forces of a set of atoms from their neighbour pairs, by a network with scalar and vector features.

    One module for any number of atoms and any box. All lengths nm, forces kJ/mol/nm. Scriptable.
    """

    def __init__(self, spec: VectorGAMDSpec) -> None:
        super().__init__()
        self.spec = spec
        self.conservative = spec.conservative
        self.force_scale = spec.force_scale
        self.energy_scale = ENERGY_LENGTH * spec.force_scale
        self.num_species = len(spec.elements)
        self.cutoff, self.width = spec.neighbors.cutoff, spec.width
        num_types = num_pair_types(self.num_species)
        self.pair_term: PairTerm | None = None
        if spec.pair_cutoff > 0:
            self.pair_term = PairTerm(
                num_types, spec.pair_radial, spec.min_distance, spec.pair_cutoff, spec.charge_width, self.num_species
            )
        self.embedding = nn.Embedding(self.num_species, spec.width)
        self.layers = nn.ModuleList([VectorMessageLayer(spec, num_types, k > 0) for k in range(spec.num_layers)])
        self.decoder = VectorPairDecoder(spec, num_types)

    def strengths(
        self, species: Tensor, pairs: Tensor, types: Tensor, vectors: Tensor, distances: Tensor, fused: bool
    ) -> Tensor:
        """(P,) of the decoder, in units of the force scale: force along each pair, or its energy."""
        scalars = self.embedding(species)
        features = torch.zeros((0, 3, scalars.size(1)), dtype=scalars.dtype, device=scalars.device)
        rows: tuple[Tensor, Tensor] | None = None
        if fused and vectors.is_cuda:
            rows = pair_rows(pairs, distances, self.cutoff, species.size(0))
        for layer in self.layers:
            scalars, features = layer(scalars, features, pairs, types, vectors, distances, fused, rows)
        return self.decoder(scalars, features, pairs, types, vectors, distances, fused, rows)

    def forward(
        self,
        species: Tensor,
        pairs: Tensor,
        vectors: Tensor,
        distances: Tensor,
        types: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> Tensor:
        """Forces on the atoms, without those of the pair term.

        Args:
            species: (N,) int64, indices into `spec.elements`.
            pairs: (2, P) int64, each pair of neighbours once, as `NeighborList(full=False)` gives them; -1 is padding.
            vectors: (P, 3) from i to j, nm.
            distances: (P,), nm; at or beyond the cutoff on padding.
            types: (P,) int64 of `pair_types`.
            batch: not needed: what happens in a frame depends on its pairs alone.
        Returns:
            (N, 3) in kJ/mol/nm.
        Raises:
            ValueError: as `energy_and_forces`.
        """
        return self.energy_and_forces(species, pairs, vectors, distances, types)[1]

    def energy_and_forces(
        self, species: Tensor, pairs: Tensor, vectors: Tensor, distances: Tensor, types: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Energy (1,) in kJ/mol, zero if the forces are predicted directly, and the forces of `forward`.

        Raises:
            ValueError: if the kinds of the pairs are not given; torch.jit.Error once it is scripted.
        """
        if types is None:
            raise ValueError("this model needs the kinds of its pairs: give `types`, (P,), of kernels.pair_types")
        if self.conservative:
            return self._differentiate(species, pairs, vectors, types)
        strengths = self.strengths(species, pairs, types, vectors, distances, self.is_fused(vectors))
        units = vectors / distances.clamp(min=1e-6).unsqueeze(-1)
        forces = scatter_pair_forces(self.force_scale * strengths.unsqueeze(-1) * units, pairs, species.size(0))
        return torch.zeros([1], dtype=forces.dtype, device=forces.device), forces

    def energy(self, species: Tensor, pairs: Tensor, types: Tensor, vectors: Tensor, fused: bool) -> Tensor:
        """0-d energy of an energy model, kJ/mol; by the compiled operators it can be differentiated once."""
        distances = (vectors.square().sum(1) + 1e-24).sqrt()
        if fused:
            distances = distances.detach()
        return self.energy_scale * self.strengths(species, pairs, types, vectors, distances, fused).sum()

    def _differentiate(self, species: Tensor, pairs: Tensor, vectors: Tensor, types: Tensor) -> tuple[Tensor, Tensor]:
        """The energy, and its gradient by the vectors as forces; to be differentiated again in training."""
        again = self.training
        before = torch.is_grad_enabled()
        torch.set_grad_enabled(True)  # TorchScript knows no enable_grad()
        x = vectors.detach().requires_grad_()
        energy = self.energy(species, pairs, types, x, self.is_fused(x) and not again)
        gradient = torch.autograd.grad([energy], [x], create_graph=again)[0]
        torch.set_grad_enabled(before)
        if gradient is None:
            gradient = torch.zeros_like(vectors)
        return energy.reshape(1), scatter_pair_forces(gradient, pairs, species.size(0))

    def is_fused(self, vectors: Tensor) -> bool:
        """Whether the compiled operators can be used; 256 is `kernels.pair_rows.MOST_CHANNELS`."""
        return vectors.dtype == torch.float32 and (not vectors.is_cuda or self.width <= 256)


def num_pair_types(num_species: int) -> int:
    """How many kinds of pairs there are: unordered species, and how far apart in bonds."""
    return SEPARATIONS * num_species * (num_species + 1) // 2
