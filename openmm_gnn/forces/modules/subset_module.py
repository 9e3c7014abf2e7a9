"""A network that sees and moves some of a System's atoms."""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import TopologyError
from openmm_gnn.forces.modules.openmm_module import OpenMMModule, _without_calls
from openmm_gnn.networks.force_model import ForceModel


class SubsetModule(nn.Module):
    """The module of some atoms, called with the positions of all of them; the others get no force."""

    subset: Tensor

    def __init__(self, inner: OpenMMModule, subset: Sequence[int], num_particles: int) -> None:
        super().__init__()
        self.inner = inner
        self.spec_json = inner.spec_json
        self.num_particles = num_particles
        self.register_buffer("subset", torch.tensor(subset, dtype=torch.int64))

    def forward(self, positions: Tensor, box_vectors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy and forces, as `OpenMMModule` gives them.

        Args:
            positions: (num_particles, 3), nm; of all particles.
            box_vectors: (3, 3), nm, rows a, b, c; open boundaries if absent.
        Raises:
            ValueError: if positions of another number of particles come in; torch.jit.Error once it is scripted.
        """
        if positions.size(0) != self.num_particles:
            raise ValueError(
                f"{positions.size(0)} positions came in, the module was made for {self.num_particles} particles: "
                "make it again for this topology"
            )
        energy, forces = self.inner(positions.index_select(0, self.subset), box_vectors)
        return energy, torch.zeros_like(positions).index_copy(0, self.subset, forces)


def subset_module(model: ForceModel, topology: Any, atoms: Sequence[int]) -> torch.jit.ScriptModule:
    """The TorchScript module of a network for some atoms of a topology, in evaluation mode.

    Raises:
        TopologyError: if an atom is named twice or does not exist, or is of an element the model does not know.
    """
    inner = OpenMMModule(model.eval(), subset_topology(topology, atoms))
    return _without_calls(torch.jit.script(SubsetModule(inner, list(atoms), topology.getNumAtoms()).eval()))


def subset_topology(topology: Any, atoms: Sequence[int]) -> Any:
    """A Topology of these atoms in this order, with the bonds between them and the same box.

    Raises:
        TopologyError: if an atom is named twice or does not exist, or none is named.
    """
    from openmm import app

    everyone = list(topology.atoms())
    wrong = [atom for atom in atoms if not 0 <= atom < len(everyone)]
    if wrong or len(set(atoms)) != len(atoms) or not len(atoms):
        raise TopologyError(
            f"the atoms {wrong or list(atoms)[:8]} cannot be chosen of {len(everyone)}: give each index once, from "
            f"0 to {len(everyone) - 1}"
        )
    chosen = app.Topology()
    chosen.setPeriodicBoxVectors(topology.getPeriodicBoxVectors())
    chain = chosen.addChain()
    twins: dict[int, Any] = {}
    last = None
    for index in atoms:
        atom = everyone[index]
        if atom.residue is not last:  # also when it comes again: a Topology lists its atoms residue by residue
            residue, last = chosen.addResidue(atom.residue.name, chain, atom.residue.id), atom.residue
        twins[index] = chosen.addAtom(atom.name, atom.element, residue)
    for bond in topology.bonds():
        if bond[0].index in twins and bond[1].index in twins:
            chosen.addBond(twins[bond[0].index], twins[bond[1].index])
    return chosen
