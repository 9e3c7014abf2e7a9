"""Energies and CVs with all first derivatives, by positions and box, for engines that take gradients themselves.

Engines of metatomic, for example, let positions and box vectors depend on a strain, and ask PyTorch for gradients of
what the model returns. The gradients of our operators are registered in Python, which an engine in C++ has not. So a
module gives values and their derivatives, written out (kernels/written_gradients.py), and `following` turns them into a
tensor that PyTorch differentiates by itself.
"""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
from typing import Any

import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import OpenMMGNNError
from openmm_gnn.features.learned_cv import LearnedCV
from openmm_gnn.forces.modules.cv_module import CVModule
from openmm_gnn.forces.modules.openmm_module import FORCE_TOLERANCE, OpenMMModule, check_num_positions, to_torchscript
from openmm_gnn.graph.topology_tables import real_atoms
from openmm_gnn.kernels.written_gradients import scripted, written_out
from openmm_gnn.networks.force_model import ForceModel, PairList, with_written_gradient


class NetworkDerivatives(nn.Module):
    """The energy of a network, one value, with its derivatives. Scriptable.

    A network that predicts forces directly has none: its value is zero, the gradient is that of its forces, and the
    strain's derivative is not a number.
    """

    def __init__(self, model: ForceModel, topology: Any) -> None:
        """
        Args:
            topology: openmm.app.Topology.
        Raises:
            TopologyError: if an atom is of an element the model does not know.
        """
        super().__init__()
        self.conservative = model.conservative
        self.module = OpenMMModule(model, topology).eval()
        if self.conservative:
            self.module.compiled = None
        self.num_particles = self.module.num_particles

    def forward(self, positions: Tensor, box_vectors: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Values (1,), forces (1, N, 3), and the derivatives (1, 3, 3) of the values by a strain; kJ/mol and nm.

        A strain e moves positions and box vectors r to r (1 + e).

        Args:
            positions: (N, 3), nm, float64, wrapped or not.
            box_vectors: (3, 3), nm, rows a, b, c; open boundaries if absent.
        Raises:
            ValueError: if positions of another number of particles come in; torch.jit.Error once it is scripted.
        """
        check_num_positions(positions, self.num_particles)
        with torch.no_grad():
            if self.conservative:
                energy, forces, strain = self.by_pairs(positions, box_vectors)
            else:
                energy, forces = self.module(positions, box_vectors)
                strain = torch.full([3, 3], float("nan"))
            return energy.to(positions.dtype).reshape(1), forces.unsqueeze(0), strain.to(positions.dtype).unsqueeze(0)

    def by_pairs(self, positions: Tensor, box_vectors: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Energy (1,), forces (N, 3) and strain (3, 3) of an energy model."""
        module = self.module
        x = positions if module.sees_all else positions.index_select(0, module.atoms)
        lists: list[PairList] = []
        for neighbors in module.neighbor_lists:
            pairs, vectors, distances = neighbors(x, box_vectors)
            vectors, distances = vectors.to(module.dtype), distances.to(module.dtype)
            lists.append(PairList(pairs, vectors, distances, module.types_of(pairs)))
        energy, forces, strain = module.model.strained(module.species, lists, x, box_vectors)
        forces = forces.to(positions.dtype)
        if not module.sees_all:
            forces = torch.zeros_like(positions).index_copy(0, module.atoms, forces)
        return energy, forces, strain


class CVDerivatives(nn.Module):
    """All outputs of a learned CV with their derivatives, for a System with a box or without. Scriptable."""

    def __init__(self, cv: LearnedCV, topology: Any, periodic: bool) -> None:
        """
        Args:
            topology: openmm.app.Topology.
            periodic: whether box vectors come with the positions.
        Raises:
            TopologyError: if the CV was learned for another topology.
        """
        super().__init__()
        module = CVModule(cv, topology).eval()
        self.num_particles, self.periodic = module.num_particles, periodic
        examples = (torch.zeros((self.num_particles, 3), dtype=torch.float64), torch.eye(3, dtype=torch.float64))
        graph = written_out(
            lambda positions, box: cv_derivatives(module, positions, box if periodic else None), examples
        )
        self.written = scripted(graph)

    def forward(self, positions: Tensor, box_vectors: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """As `NetworkDerivatives.forward`, for K outputs.

        Raises:
            ValueError: if positions of another number of particles come in, box vectors where none were expected, or
                none where they were; torch.jit.Error once it is scripted.
        """
        check_num_positions(positions, self.num_particles)
        if (box_vectors is not None) != self.periodic:
            raise ValueError(
                f"the CV was exported for a System with periodic={self.periodic}: give box vectors just then, or "
                "export it for a System with the boundaries of this one"
            )
        with torch.no_grad():
            box = positions if box_vectors is None else box_vectors
            values, forces, strain = self.written(positions.to(torch.float64), box.to(torch.float64))
            return values.to(positions.dtype), forces.to(positions.dtype), strain.to(positions.dtype)


def cv_derivatives(module: CVModule, positions: Tensor, box: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """What `CVDerivatives` gives, by autograd in Python; (K,), (K, N, 3) and (K, 3, 3) of the networks' dtype."""
    with torch.no_grad():
        centred, cell = module.prepared(positions.index_select(0, module.read_atoms), box)
    centred = centred.detach().requires_grad_()
    strain = torch.zeros((3, 3), dtype=centred.dtype).requires_grad_()
    values = module.values(centred + centred @ strain, None if cell is None else cell + cell @ strain)
    rows = [torch.autograd.grad([value], [centred, strain], retain_graph=True) for value in values.unbind()]
    gradients = torch.stack([row[0] for row in rows])
    forces = torch.zeros((len(rows), module.num_particles, 3), dtype=centred.dtype)
    forces = forces.index_copy(1, module.read_atoms[: module.num_selected], gradients * -module.per_nm)
    return values.detach(), forces, torch.stack([row[1] for row in rows])


def derivatives_module(network: ForceModel | LearnedCV, topology: Any, periodic: bool) -> torch.jit.ScriptModule:
    """The TorchScript module of a network or a CV for one topology, on the CPU.

    Args:
        topology: openmm.app.Topology.
        periodic: whether a CV's System is periodic; a network serves both.
    Raises:
        TopologyError: if the network does not fit the topology.
    """
    if isinstance(network, ForceModel):
        written = with_written_gradient(network.eval(), len(real_atoms(topology)), by_pairs=True)
        return to_torchscript(NetworkDerivatives(written, topology))
    return to_torchscript(CVDerivatives(network, topology, periodic))


def following(value: Tensor, forces: Tensor, strain: Tensor, positions: Tensor, cell: Tensor | None) -> Tensor:
    """A value, 0-d, as a function of positions and box vectors with the derivatives that are given. Scriptable.

    What an engine differentiates is linear: value, first derivatives by both and by a strain of both are right, second
    ones are zero.

    Args:
        value: 0-d.
        forces: (N, 3), the negative gradient by positions.
        strain: (3, 3), derivatives by a strain of positions and box.
        positions: (N, 3), which may depend on other tensors, such as a strain.
        cell: (3, 3), rows a, b, c, as positions; None: there is no box.
    """
    here = _fixed(positions)
    moved = value - (forces * (positions - here)).sum()
    if cell is not None:
        box = _fixed(cell)
        by_cell = _fixed(torch.linalg.solve(box.T, strain + here.T @ forces))  # at fixed positions
        moved = moved + (by_cell * (cell - box)).sum()
    return moved


def _fixed(values: Tensor) -> Tensor:
    """A copy without gradient; `detach` would be lost in a module that is frozen."""
    with torch.no_grad():
        copied = values * 1.0
    return copied


def check_derivatives(module: nn.Module, eager: nn.Module, positions: Tensor, box: Tensor | None, output: int) -> None:
    """Forces of one output are those of the module in plain PyTorch.

    Raises:
        OpenMMGNNError: naming the deviation and the tolerance.
    """
    found, right = module(positions, box)[1][output], eager(positions, box)[1]
    deviation = float((found - right).abs().max() / right.abs().max().clamp(min=1e-12))
    if not deviation <= FORCE_TOLERANCE:
        raise OpenMMGNNError(
            f"export check failed, derivatives of output {output}: forces differ by {deviation:.2e} of the largest "
            f"force, allowed {FORCE_TOLERANCE:.0e}: report this with the versions that `openmm-gnn doctor` prints"
        )
