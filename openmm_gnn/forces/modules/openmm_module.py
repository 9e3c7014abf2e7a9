"""The border between OpenMM and a network: positions in nm come in, forces in kJ/mol/nm go out, in OpenMM's dtype.

The checks say whether an exported module computes what the network computes, before a long run trusts it.
"""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import io
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import OpenMMGNNError, TopologyError
from openmm_gnn.base.specs.codec import spec_to_json
from openmm_gnn.base.version_rules import torchscript_words
from openmm_gnn.graph.neighbor_list import NeighborList
from openmm_gnn.graph.topology_tables import no_partners, real_atoms, separation_table, species_table
from openmm_gnn.kernels.radial_pairs import pair_types
from openmm_gnn.networks.force_model import ForceModel, PairList


class OpenMMModule(nn.Module):
    """A network bound to one topology, with the signature that TorchForce and PythonForce call.

    Particles without an element (virtual sites), or not among the chosen atoms, are not seen and get no force.
    The spec travels as the string attribute `spec_json`, which survives freezing and serialisation.
    """

    species: Tensor
    atoms: Tensor
    partners: Tensor
    known_box: Tensor

    def __init__(
        self, model: ForceModel, topology: Any, atoms: Sequence[int] | None = None, watches_box: bool = False
    ) -> None:
        """
        Args:
            topology: openmm.app.Topology of the System.
            atoms: indices of those that the network sees; None: all.
            watches_box: warn once if the box of two calls differs, which a barostat may have done; on the CPU alone,
                as a device would have to be waited for.
        Raises:
            TopologyError: if an atom is named twice or does not exist, or is of an element the model does not know.
        """
        super().__init__()
        spec = model.spec
        chosen = topology if atoms is None else subset_topology(topology, atoms)
        indices = range(topology.getNumAtoms()) if atoms is None else sorted(atoms)
        seen = [int(indices[row]) for row in real_atoms(chosen)]
        self.spec_json = spec_to_json(spec)
        self.num_particles = topology.getNumAtoms()
        self.sees_all = seen == list(range(self.num_particles))
        self.watches_box = watches_box
        self.register_buffer("known_box", torch.zeros((0, 3)), persistent=False)
        self.num_species = len(spec.elements)
        self.uses_types = spec.uses_types
        self.model = model
        self.dtype = next(model.parameters()).dtype
        self.neighbor_lists = nn.ModuleList(
            [NeighborList(one.cutoff, one.skin, one.max_neighbors) for one in model.lists()]
        )
        self.register_buffer("species", species_table(chosen, spec.elements))
        self.register_buffer("atoms", torch.tensor(seen, dtype=torch.int64))
        self.register_buffer("partners", separation_table(chosen) if spec.use_bonds else no_partners(len(seen)))
        self.compiled = model.compiled(self.species, self.partners)
        self.compiled_for_cuda = model.compiled_for_cuda()

    def forward(self, positions: Tensor, box_vectors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy and forces.

        Args:
            positions: (num_particles, 3), nm, float32 or float64, wrapped or not.
            box_vectors: (3, 3), nm, rows a, b, c; open boundaries if absent.
        Returns:
            energy: 0-d, kJ/mol; zero where forces are predicted directly, which have none.
            forces: (num_particles, 3), kJ/mol/nm, contiguous, of the dtype and device of `positions`.
        Raises:
            ValueError: if positions of another number of particles come in; torch.jit.Error once it is scripted.
        """
        check_num_positions(positions, self.num_particles)
        if self.watches_box and box_vectors is not None and box_vectors.is_cpu:
            self.watch(box_vectors)
        with torch.no_grad():
            x = positions if self.sees_all else positions.index_select(0, self.atoms)
            energy, forces = self.evaluate(x, box_vectors)
            forces = forces.to(positions.dtype)
            if not self.sees_all:
                forces = torch.zeros_like(positions).index_copy(0, self.atoms, forces)
            energy = energy.to(positions.dtype).reshape([])
        return energy, forces.contiguous()

    def evaluate(self, x: Tensor, box_vectors: Tensor | None) -> tuple[Tensor, Tensor]:
        """Energy and forces of the atoms that the network sees."""
        if self.compiled is not None and (x.is_cpu or self.compiled_for_cuda):
            energy_and_forces: tuple[Tensor, Tensor] = self.compiled(x, box_vectors)
            return energy_and_forces
        lists: list[PairList] = []
        for neighbors in self.neighbor_lists:
            pairs, vectors, distances = neighbors(x, box_vectors)
            lists.append(PairList(pairs, vectors.to(self.dtype), distances.to(self.dtype), self.types_of(pairs)))
        return self.model.energy_and_forces(self.species, lists, x, box_vectors)

    def watch(self, box_vectors: Tensor) -> None:
        """Warn if these are not the box vectors of the call before, and from then on no more."""
        if self.known_box.size(0) == 3 and not torch.equal(self.known_box, box_vectors):
            self.watches_box = False
            warnings.warn(
                "the box changed under a network that predicts forces without an energy: a barostat accepts every "
                "change of the volume with it; run at constant volume, or train with --conservative",
                stacklevel=2,
            )
        self.known_box = box_vectors.clone()

    def types_of(self, pairs: Tensor) -> Tensor | None:
        """(P,) types of these pairs, if the model uses them."""
        if not self.uses_types:
            return None
        return pair_types(pairs, self.species, self.partners, self.num_species)


def check_num_positions(positions: Tensor, num_particles: int) -> None:
    """Refuse positions of another number of particles than a module was made for.

    Raises:
        ValueError: if positions of another number of particles come in; torch.jit.Error once it is scripted.
    """
    if positions.size(0) != num_particles:
        raise ValueError(
            f"{positions.size(0)} positions came in, the module was made for {num_particles} particles: make it again "
            "from a topology that has every particle of the System, dummies too (named DUM, without an element)"
        )


def script_module(
    model: ForceModel, topology: Any, atoms: Sequence[int] | None = None, watches_box: bool = False
) -> torch.jit.ScriptModule:
    """The TorchScript module of a network for one topology, in evaluation mode; arguments as for `OpenMMModule`.

    Raises:
        TopologyError: if the topology has an element that the model does not know, or no atoms.
    """
    if topology is None or not hasattr(topology, "getNumAtoms"):
        raise TopologyError(f"expected an openmm.app.Topology, got {type(topology).__name__}")
    return to_torchscript(OpenMMModule(model.eval(), topology, atoms, watches_box))


def subset_topology(topology: Any, atoms: Sequence[int]) -> Any:
    """A Topology of these atoms, in the order of the whole one, with the bonds between them and the same box.

    Raises:
        TopologyError: if an atom is named twice or does not exist, or none is named.
    """
    from openmm import Vec3, app

    known, chosen = topology.getNumAtoms(), set(atoms)
    wrong = [atom for atom in atoms if not 0 <= atom < known]
    if wrong or len(chosen) != len(atoms) or not chosen:
        raise TopologyError(
            f"the atoms {wrong or list(atoms)[:8]} cannot be chosen of {known}: give each index once, from 0 to "
            f"{known - 1}"
        )
    modeller = app.Modeller(topology, [Vec3(0, 0, 0)] * known)
    modeller.delete([atom for atom in topology.atoms() if atom.index not in chosen])
    return modeller.topology


def to_torchscript(module: nn.Module) -> torch.jit.ScriptModule:
    """A module in evaluation mode as TorchScript, every method it calls written out in `forward`; weights stay weights.

    OpenMM's forces freeze a copy of the module and drop the copy, but TorchScript's interpreter still asks the copy's
    functions for their names when an operator throws: a segmentation fault in place of "position of atom 3 is NaN" or
    "raise max_neighbors". Written out, saved and loaded, the graph remembers no function. It is not frozen here:
    frozen weights could not follow the System to a GPU.
    """
    if (words := torchscript_words()) is not None:
        warnings.warn(words, stacklevel=2)
    copied = _saved_and_loaded(torch.jit.script(module.eval()))
    for weight in copied.parameters():
        weight.requires_grad_(False)  # or an energy model would compute their gradients with its forces
    torch._C._jit_pass_inline(copied.graph)
    return _saved_and_loaded(copied)


def _saved_and_loaded(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    return torch.jit.load(io.BytesIO(module_bytes(module)))


def module_bytes(module: torch.jit.ScriptModule) -> bytes:
    """A module as TorchScript saves it."""
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    return buffer.getvalue()


FORCE_TOLERANCE = 2e-5
"""Largest difference allowed, relative to the largest force. Sums of some hundred float32 terms that cancel, in another
order: the forces of `gamd-amoeba-water` differ by 7e-6 between the operator and autograd."""


def frozen_deviation(
    module: torch.jit.ScriptModule, eager: torch.nn.Module, positions: Tensor, box: Tensor | None
) -> float:
    """Largest difference between frozen and eager forces, relative to the largest force.

    OpenMM freezes the module in each Context; freezing is allowed to rewrite the graph and has changed results before.
    """
    frozen = torch.jit.freeze(module.eval())
    return _deviation(frozen(positions, box)[1], eager(positions, box)[1])


def translation_deviation(module: torch.nn.Module, positions: Tensor, box: Tensor | None, seed: int = 0) -> float:
    """Largest change of the forces, relative to the largest, when single atoms move by random box vectors.

    OpenMM hands out wrapped positions on some platforms and unwrapped ones on others; forces must not care.
    Without a box there is nothing to move by, and the deviation is 0.
    """
    if box is None:
        return 0.0
    generator = torch.Generator().manual_seed(seed)
    shifts = torch.randint(-2, 3, positions.shape, generator=generator).to(positions)
    before = module(positions, box)[1]
    return _deviation(module(positions + shifts @ box, box)[1], before)


def check_export(module: torch.jit.ScriptModule, eager: torch.nn.Module, positions: Tensor, box: Tensor | None) -> None:
    """Frozen equals eager, and translating atoms by box vectors changes nothing.

    Raises:
        OpenMMGNNError: naming the check, the deviation and the tolerance.
    """
    for name, deviation in (
        ("frozen against eager", frozen_deviation(module, eager, positions, box)),
        ("atoms translated by box vectors", translation_deviation(module, positions, box)),
    ):
        if not deviation <= FORCE_TOLERANCE:
            raise OpenMMGNNError(
                f"export check failed, {name}: forces differ by {deviation:.2e} of the largest force, allowed "
                f"{FORCE_TOLERANCE:.0e}: report this with the versions that `openmm-gnn doctor` prints"
            )


def _deviation(values: Tensor, reference: Tensor) -> float:
    return float((values - reference).abs().max() / reference.abs().max().clamp(min=1e-12))
