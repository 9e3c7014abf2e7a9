"""Forces from an encoder: a pretrained network with a head, as an alternative to GAMD.

The head reads the forces off the vectors of the atoms, covariant under rotation because they are; or it sums energies
of atoms, whose gradient is taken. An encoder that was pretrained on noise has seen what forces are near the minima of
the energy (Zaidi et al., ICLR 2023, arXiv 2206.00133).
"""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from openmm_gnn.base.specs.encoder import EncoderSpec, NeighborRule
from openmm_gnn.base.specs.force import EncoderForceSpec
from openmm_gnn.kernels.neighbor_pairs import safe_distances
from openmm_gnn.networks.encoders.encoder import Encoder, freeze, start_from, transferred_spec
from openmm_gnn.networks.encoders.equivariant_blocks import AtomHead
from openmm_gnn.networks.force_model import ForceModel, PairList, mean_per_frame
from openmm_gnn.networks.vector_gamd import ENERGY_LENGTH


def encoder_force_spec(pretrained: EncoderSpec, elements: tuple[int, ...], **fields: Any) -> EncoderForceSpec:
    """The spec of forces from a pretrained encoder, with a head of the shape of a denoising head.

    Args:
        pretrained: spec of the encoder; elements that it has not met become new rows of its embedding.
        elements: atomic numbers of the labelled atoms.
        fields: other fields of `EncoderForceSpec`.
    """
    encoder = transferred_spec(pretrained, elements, NeighborRule.FULL, smooth=True)
    return EncoderForceSpec(encoder, elements, **{"head_width": pretrained.width // 2, **fields})


class EncoderForce(ForceModel):
    """Forces, or an energy, by an encoder and a head.

    Lengths come in nm, forces leave in kJ/mol/nm; inside, lengths are in the encoder's unit. All messages vanish at the
    cutoff (`EncoderSpec.smooth`).
    """

    atomic_numbers: Tensor

    if TYPE_CHECKING:
        spec: EncoderForceSpec

    def __init__(self, spec: EncoderForceSpec) -> None:
        super().__init__(spec)
        self.remove_net_force = spec.remove_net_force
        self.energy_scale = ENERGY_LENGTH * spec.force_scale
        self.per_nm = spec.encoder.per_nm
        self.encoder = Encoder(spec.encoder)
        # An energy model that only predicts may use compiled loops, which have one derivative; the weights of an
        # exported module need no gradient.
        self.encoder.network.predicts_frozen = spec.conservative
        self.head = AtomHead(spec.encoder.width, spec.head_width, spec.head_layers)
        self.register_buffer("atomic_numbers", torch.tensor(spec.elements, dtype=torch.int64), persistent=False)

    @torch.jit.unused
    def start_from(self, pretrained: Encoder, frozen: bool = False) -> tuple[int, ...]:
        """Begin with a pretrained encoder, and with its denoising head if the forces are direct and the head fits.

        Args and returns: as `ForceModel.start_from`.
        """
        new = start_from(self.encoder, pretrained)
        if frozen:
            freeze(self.encoder, except_elements=new)
        if pretrained.noise_head is not None and not self.conservative:
            self.head.start_from(pretrained.noise_head)
        self.train(self.training)
        return new

    def network_energy_and_forces(
        self, species: Tensor, near: PairList, batch: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `ForceModel.network_energy_and_forces`; the network knows no bonds, and so no types."""
        if self.conservative:
            return self.differentiated(species, near)
        forces = self._outputs(species, near.pairs, near.vectors, near.distances)[1]
        if self.remove_net_force:
            forces = forces - mean_per_frame(forces, batch)
        forces = self.force_scale * forces
        return torch.zeros([1], dtype=forces.dtype, device=forces.device), forces

    def energy(self, species: Tensor, pairs: Tensor, types: Tensor | None, vectors: Tensor, once: bool) -> Tensor:
        """As `ForceModel.energy`; in training it can be differentiated twice by the vectors."""
        distances = safe_distances(vectors)
        return self.energy_scale * self._outputs(species, pairs, vectors, distances)[0].sum()

    def _outputs(self, species: Tensor, pairs: Tensor, vectors: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) and (N, 3) of the head; each pair is an edge to either atom, and each atom has an edge to itself."""
        own = torch.arange(species.size(0), device=species.device)
        i, j = pairs[0].clamp(min=0), pairs[1].clamp(min=0)
        edge_index = torch.stack([torch.cat([own, j, i]), torch.cat([own, i, j])])
        x, d = vectors * self.per_nm, distances * self.per_nm
        edge_vectors = torch.cat([torch.zeros([own.size(0), 3], dtype=x.dtype, device=x.device), x, -x])
        edge_distances = torch.cat([torch.zeros([own.size(0)], dtype=d.dtype, device=d.device), d, d])
        numbers = self.atomic_numbers.index_select(0, species)
        scalars, features = self.encoder.network(numbers, edge_index, edge_vectors, edge_distances)
        return self.head(scalars, features)


NETWORK = EncoderForce
