"""The interface of force models: what the modules of OpenMM's forces and the training ask of a network."""

# No `from __future__ import annotations` here: TorchScript reads the types of functions.
import copy
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.specs.force import ForceSpec, NeighborSpec
from openmm_gnn.kernels.radial_pairs import scatter_pair_forces

if TYPE_CHECKING:
    from openmm_gnn.networks.encoders.encoder import Encoder
    from openmm_gnn.networks.pair_term import PairTerm


class PairList(NamedTuple):
    """Neighbour pairs within one of the cutoffs that a model asks for, each pair once."""

    pairs: Tensor
    """(2, P) int64, atoms i and j, as `NeighborList(full=False)` gives them; -1 is padding."""
    vectors: Tensor
    """(P, 3) from i to j, nm."""
    distances: Tensor
    """(P,), nm; at or beyond the cutoff on padding."""
    types: Tensor | None = None
    """(P,) int64 of `pair_types`; None if the model does not use them."""


class ForceModel(nn.Module):
    """Forces of a set of atoms from their neighbour pairs. Lengths nm, energies kJ/mol, forces kJ/mol/nm. Scriptable.

    One module serves any number of atoms and any box. A subclass gives `network_energy_and_forces`, and what differs
    from the rest here; its spec says whether it is conservative and whether it uses the types of pairs.
    """

    if TYPE_CHECKING:  # TorchScript reads the annotations of a class too, and cannot read these
        spec: ForceSpec
        pair_term: PairTerm | None
        written: nn.Module | None

    def __init__(self, spec: ForceSpec) -> None:
        super().__init__()
        self.spec = spec
        self.conservative = spec.conservative
        self.force_scale = spec.force_scale
        self.pair_term = None
        self.written = None
        """What `differentiated` computes, in an exported module of an energy model; see `with_written_gradient`."""

    def lists(self) -> list[NeighborSpec]:
        """The neighbour lists that `energy_and_forces` takes, in this order."""
        return [self.spec.neighbors]

    def energy_and_forces(
        self, species: Tensor, lists: list[PairList], positions: Tensor, box: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Energy (1,), zero if the forces are predicted directly, and forces (N, 3).

        Args:
            species: (N,) int64, indices into `spec.elements`.
            lists: the pairs of each of `lists()`.
            positions: (N, 3), wrapped or not, for what has no neighbour list.
            box: (3, 3), rows a, b, c; None: open boundaries.
        """
        return self.network_energy_and_forces(species, lists[0])

    @torch.jit.unused
    def has_operator(self) -> bool:
        """Whether `compiled` gives something."""
        return False

    @torch.jit.unused
    def compiled(self, species: Tensor, partners: Tensor) -> nn.Module | None:
        """All of `energy_and_forces` with its neighbour lists as one operator, for weights as they are now.

        Args:
            species: (N,) int64, indices into `spec.elements`.
            partners: (levels, N, most) int64 of `topology_tables`.

        Returns:
            A scriptable module, (positions, box vectors or None) -> (energy, 0-d, and forces (N, 3)); None: the model
            has none.
        """
        return None

    @torch.jit.unused
    def compiled_for_cuda(self) -> bool:
        """Whether that operator can serve on CUDA too."""
        return False

    def network_energy_and_forces(
        self, species: Tensor, near: PairList, batch: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the network alone contributes to `energy_and_forces`.

        Args:
            species: (N,) int64, indices into `spec.elements`.
            near: pairs of the first list.
            batch: (N,) int64, the frame of each atom, for models that remove a frame's net force; None: one frame.
        """
        raise NotImplementedError

    def forward(self, species: Tensor, near: PairList, batch: Tensor | None = None) -> Tensor:
        """(N, 3) forces of the network alone, for training; arguments as for `network_energy_and_forces`."""
        return self.network_energy_and_forces(species, near, batch)[1]

    def matches_energies(self, vectors: Tensor) -> bool:
        """Whether training on pairs with these vectors takes differences of energies, see `energy_matching_loss`."""
        return False

    def energy(self, species: Tensor, pairs: Tensor, types: Tensor | None, vectors: Tensor, once: bool) -> Tensor:
        """0-d energy of an energy model, kJ/mol.

        Args:
            once: it is differentiated once at most, for which the compiled operators serve.
        """
        raise NotImplementedError

    def differentiated(self, species: Tensor, near: PairList) -> tuple[Tensor, Tensor]:
        """The energy, and its gradient by the vectors as forces; to be differentiated again in training."""
        energy, gradient = self.energy_and_gradient(species, near)
        return energy, scatter_pair_forces(gradient, near.pairs, species.size(0))

    def energy_and_gradient(self, species: Tensor, near: PairList) -> tuple[Tensor, Tensor]:
        """Energy (1,) of an energy model without its pair term, and its gradient (P, 3) by the vectors."""
        if self.written is not None and near.vectors.is_cpu:
            types = near.types
            kinds = near.pairs[0] if types is None else types
            return self.written(species, near.pairs, kinds, near.vectors, near.distances)
        again = self.training
        before = torch.is_grad_enabled()
        torch.set_grad_enabled(True)  # TorchScript knows no enable_grad()
        x = near.vectors.detach().requires_grad_()
        energy = self.energy(species, near.pairs, near.types, x, not again)
        gradient = torch.autograd.grad([energy], [x], create_graph=again)[0]
        torch.set_grad_enabled(before)
        if gradient is None:
            gradient = torch.zeros_like(x)
        if not again:
            energy = energy.detach()
        return energy.reshape(1), gradient

    def strained(
        self, species: Tensor, lists: list[PairList], positions: Tensor, box: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Energy (1,) and forces (N, 3) of an energy model, and the derivative (3, 3) of the energy by a strain.

        A strain e moves positions and box vectors r to r (1 + e); arguments as for `energy_and_forces`.
        """
        near = lists[0]
        energy, gradient = self.energy_and_gradient(species, near)
        forces = scatter_pair_forces(gradient, near.pairs, species.size(0))
        strain = near.vectors.T @ gradient
        if self.pair_term is not None:
            more = self.pair_term.strained(species, lists[1], positions, box)
            energy, forces, strain = energy + more[0], forces + more[1], strain + more[2]
        return energy, forces, strain

    def start_from(self, pretrained: "Encoder", frozen: bool = False) -> tuple[int, ...]:
        """Begin with a pretrained encoder.

        Args:
            frozen: keep the encoder as it is, but for the embeddings of elements that it has not met.

        Returns:
            Elements that the encoder has not met, whose embeddings are new.
        Raises:
            SpecError: if the model is not made of that encoder.
        """
        raise SpecError(f"{type(self).__name__} is not made of an encoder: train it without one")


def with_written_gradient(model: ForceModel, num_atoms: int, by_pairs: bool = False) -> ForceModel:
    """An energy model of the same weights whose gradient on the CPU is written out, for a module that is exported.

    Any other model has no gradient there: it is given back.

    Args:
        num_atoms: number of atoms that the module sees.
        by_pairs: write out the gradient of a model that is an operator as a whole too, for `strained`.
    """
    if not model.conservative or (model.has_operator() and not by_pairs):
        return model
    from openmm_gnn.kernels.written_gradients import OPEN_SIZE, scripted, written_out

    fixed = copy.deepcopy(model).requires_grad_(False).eval()

    def energy_and_gradient(
        species: Tensor, pairs: Tensor, types: Tensor, vectors: Tensor, distances: Tensor
    ) -> tuple[Tensor, Tensor]:
        near = PairList(pairs, vectors, distances, types if model.spec.uses_types else None)
        return fixed.energy_and_gradient(species, near)

    vectors = torch.ones((OPEN_SIZE, 3), dtype=next(model.parameters()).dtype)
    pairs = torch.zeros((2, OPEN_SIZE), dtype=torch.int64)
    examples = (torch.zeros(num_atoms, dtype=torch.int64), pairs, pairs[0], vectors, vectors[:, 0])
    fixed.written = scripted(written_out(energy_and_gradient, examples))
    return fixed


def mean_per_frame(values: Tensor, batch: Tensor | None) -> Tensor:
    """(N, 3): the mean over each atom's frame."""
    if batch is None:
        return values.mean(dim=0, keepdim=True)
    num_frames = int(batch.max()) + 1
    sums = values.new_zeros((num_frames, 3)).index_add(0, batch, values)
    counts = values.new_zeros((num_frames,)).index_add(0, batch, values.new_ones((values.size(0),)))
    return (sums / counts.unsqueeze(-1)).index_select(0, batch)
