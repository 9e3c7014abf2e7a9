"""A VectorGAMD with its neighbour lists as one operator, for simulations; training takes the network."""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from openmm_gnn.graph.neighbor_list import NeighborList
from openmm_gnn.kernels.neighbor_pairs import available_threads
from openmm_gnn.kernels.network_forces import keeps_grid, spline_polynomials
from openmm_gnn.networks.pair_term import box_lengths, grid_sizes

ROOM_OF_KEPT_GRIDS = 1.1
"""How much longer box vectors a grid of charges is made for that is kept."""

if TYPE_CHECKING:
    from openmm_gnn.networks.vector_gamd import VectorGAMD


class VectorGAMDForces(nn.Module):
    """Energy and forces of a network bound to atoms. Scriptable.

    The neighbour lists are those of `VectorGAMD.lists`, with the kinds of the pairs that they store. The weights are a
    copy: changes of the network's do not reach them. On CUDA nothing waits for the device after the first call, so a
    step can be a CUDA graph; what goes wrong there is NaN in all results, as in `NeighborList`.
    """

    weights: Tensor
    species: Tensor
    partners: Tensor
    pair_table: Tensor
    charges: Tensor
    near_kinds: Tensor
    far_kinds: Tensor

    def __init__(self, model: "VectorGAMD", species: Tensor, partners: Tensor) -> None:
        """
        Args:
            model: of float32, on the CPU; the module can be moved.
            species: (N,) int64, indices into `model.spec.elements`.
            partners: (levels, N, most) int64 of `topology_tables.separation_table`.
        """
        super().__init__()
        spec = model.spec
        self.num_species, self.num_kinds = len(spec.elements), model.decoder.radial.size(0)
        self.width, self.num_layers, self.num_radial = spec.width, spec.num_layers, spec.num_radial
        self.start, self.conservative = float(spec.min_distance), spec.conservative
        self.scale = float(model.energy_scale if spec.conservative else spec.force_scale)
        near, far = model.lists()[0], model.lists()[-1]
        self.near = NeighborList(near.cutoff, near.skin, near.max_neighbors)
        self.far = NeighborList(far.cutoff, far.skin, far.max_neighbors)
        self.has_far, self.charge_width = spec.pair_cutoff > 0, float(spec.charge_width)
        self.size_a, self.size_b, self.size_c = 0, 0, 0
        self.room = ROOM_OF_KEPT_GRIDS  # TorchScript reads no global variable
        pair_table, charges = torch.zeros((0, 0, 4), dtype=torch.float64), torch.zeros(0)
        if model.pair_term is not None:
            pair_table = spline_polynomials(model.pair_term.table)
            if model.pair_term.charge_term is not None:
                charges = model.pair_term.charge_term.charges.clone()
        self.register_buffer("weights", model.packed_weights())
        self.register_buffer("species", species.clone())
        self.register_buffer("partners", partners.clone())
        self.register_buffer("pair_table", pair_table)
        self.register_buffer("charges", charges)
        # What a run has found, as the state of the lists.
        self.register_buffer("near_kinds", torch.zeros(0, dtype=torch.int32), persistent=False)
        self.register_buffer("far_kinds", torch.zeros(0, dtype=torch.int32), persistent=False)

    def forward(self, positions: Tensor, box_vectors: Tensor | None) -> tuple[Tensor, Tensor]:
        """Energy, 0-d, kJ/mol, and forces (N, 3), kJ/mol/nm, of the positions' dtype; arguments as `OpenMMModule`'s.

        Raises:
            ValueError: if there are charges and no box; torch.jit.Error once it is scripted.
            RuntimeError: as `NeighborList`.
        """
        box = positions.new_empty([0, 3]) if box_vectors is None else box_vectors
        if self.charge_width > 0 and (self.size_a == 0 or not keeps_grid(positions)):
            # On CUDA this waits for the device, once. The operator looks at the box at every step.
            room = self.room if keeps_grid(positions) else 1.0
            sizes = grid_sizes([room * length for length in box_lengths(box_vectors)], self.charge_width)
            self.size_a, self.size_b, self.size_c = sizes[0], sizes[1], sizes[2]
        near, far = self.near, self.far
        near._allocate(positions, box)
        if self.near_kinds.size(0) != near.stored_pairs.size(1):
            self.near_kinds = torch.zeros_like(near.stored_pairs[0])
        if self.has_far:
            far._allocate(positions, box)
            if self.far_kinds.size(0) != far.stored_pairs.size(1):
                self.far_kinds = torch.zeros_like(far.stored_pairs[0])
        return torch.ops.openmm_gnn.vector_gamd_forces(
            positions, box, self.species, self.partners, self.weights, self.num_species, self.num_kinds, self.width,
            self.num_layers, self.num_radial, self.start, self.scale, self.conservative, near.cutoff, near.skin,
            near.reference_positions, near.reference_box, near.stored_pairs, near.stored_shifts, self.near_kinds,
            near.status, far.cutoff, far.skin, far.reference_positions, far.reference_box, far.stored_pairs,
            far.stored_shifts, self.far_kinds, far.status, self.pair_table, self.charges, self.charge_width,
            self.size_a, self.size_b, self.size_c, available_threads(),
        )  # fmt: skip
