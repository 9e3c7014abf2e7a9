"""A network as a file for NNPot, the interface of GROMACS to neural networks.

GROMACS opens the libraries that the record `extension_libs` of the file names, absolute paths with colons between, then
the TorchScript module. It calls the module with what its .mdp file lists as nnpot-model-input1 and so on, in that
order: positions in nm, atomic numbers, box vectors and periodic directions. The module gives the energy in kJ/mol and
the forces in kJ/mol/nm, so that GROMACS differentiates nothing.

Source: the GROMACS 2026 reference manual, "Neural Network Potentials", and src/gromacs/applied_forces/nnpot.
"""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
from typing import Any

import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import SpecError, TopologyError
from openmm_gnn.features.learned_cv import LearnedCV
from openmm_gnn.forces.modules.openmm_module import OpenMMModule, to_torchscript
from openmm_gnn.graph.topology_tables import real_atoms
from openmm_gnn.kernels.library import PACKAGE
from openmm_gnn.networks.force_model import ForceModel, with_written_gradient

INPUTS = ("atom-positions", "atom-numbers", "box", "pbc")
"""The inputs, as an .mdp file names them, in their order; the last two are for periodic systems."""
EXTRA_FILES = {"extension_libs": str(PACKAGE / "libopenmm_gnn_cpu.so")}
"""Records of the file."""


class NNPotModule(nn.Module):
    """Energy and forces of a network for the atoms of one topology, called as GROMACS calls it. Scriptable."""

    numbers: Tensor

    def __init__(self, model: ForceModel, topology: Any) -> None:
        """
        Args:
            topology: openmm.app.Topology of the atoms of nnpot-input-group, in their order.
        Raises:
            TopologyError: if a particle has no element, which GROMACS refuses, or one that the model does not know.
        """
        super().__init__()
        atoms = real_atoms(topology)
        if len(atoms) < topology.getNumAtoms():
            raise TopologyError(
                f"{topology.getNumAtoms() - len(atoms)} particles have no element, and GROMACS gives NNPot none "
                "without an atomic number: export the network for the atoms alone"
            )
        self.module = OpenMMModule(with_written_gradient(model.eval(), len(atoms)), topology)
        numbers = [atom.element.atomic_number for atom in topology.atoms()]
        self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.int32))

    def forward(
        self, positions: Tensor, atomic_numbers: Tensor, box: Tensor | None = None, pbc: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Energy, 0-d, kJ/mol, and forces (N, 3), kJ/mol/nm, of the dtype of the positions.

        Args:
            positions: (N, 3), nm, float32 or float64.
            atomic_numbers: (N,) int32.
            box: (3, 3), nm, rows a, b, c, of the dtype of the positions; None: no box.
            pbc: (3,) bool, periodic directions.
        Raises:
            ValueError: if the atoms are others than the topology's, or the box is periodic in two directions;
                torch.jit.Error once it is scripted.
        """
        if atomic_numbers.size(0) != self.numbers.size(0) or not torch.equal(atomic_numbers, self.numbers):
            raise ValueError(
                f"the atomic numbers of the {atomic_numbers.size(0)} input atoms are not those of the "
                f"{self.numbers.size(0)} atoms of the topology that the network was exported for, in its order: export "
                "it for the atoms of nnpot-input-group"
            )
        if pbc is not None and not bool(pbc.all()):
            raise ValueError("the box is not periodic in all directions: set pbc = xyz, or leave box and pbc out")
        return self.module(positions, box)


def nnpot_module(network: ForceModel | LearnedCV, topology: Any) -> torch.jit.ScriptModule:
    """The TorchScript module of a network for GROMACS; save it with EXTRA_FILES.

    Raises:
        SpecError: for a CV, which is no potential.
        TopologyError: as `NNPotModule`.
    """
    if isinstance(network, LearnedCV):
        raise SpecError("NNPot computes potentials, and this is a CV: export it with --format metatomic, for PLUMED")
    return to_torchscript(NNPotModule(network, topology))
