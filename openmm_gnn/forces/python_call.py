"""A Force that is evaluated by an object in Python, through one call-back for both backends.

What a backend calls is a TorchScript module, whose attributes Python cannot reach. So the module calls an operator,
`openmm_gnn_python::evaluate`, that is written in Python: it finds its object by number. TorchForce hands tensors on the
Context's device to it, so on a GPU no positions come to the host.

The force belongs to this process: a System that is read from XML elsewhere has no object to call, which is an error
there. CUDA graphs cannot call Python and must be off.
"""

# No `from __future__ import annotations` here: TorchScript and torch.library read the types of functions.
import itertools
import weakref
from typing import Any

import numpy as np
import openmm
import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import BackendError, SpecError

_numbers = itertools.count()
_calls: "weakref.WeakValueDictionary[int, PythonCall]" = weakref.WeakValueDictionary()


class PythonCall:
    """An object behind a Force, which is made of its `module`. A subclass says in `evaluate` what it computes."""

    force: Any
    """The openmm.Force."""

    def __init__(self, read_atoms: np.ndarray, num_particles: int, group: int) -> None:
        """
        Args:
            read_atoms: indices of the atoms whose positions are wanted, and which may get forces.
            num_particles: number of particles of the System.
            group: the force group, of its own.
        Raises:
            SpecError: for a group that cannot be.
        """
        if not 0 <= group <= 31:
            raise SpecError(f"the force group is {group}: give one from 0 to 31 that no other force has")
        self.group = group
        self.read_atoms, self.num_particles = read_atoms, num_particles
        self._error: Exception | None = None
        number = next(_numbers)
        _calls[number] = self
        module = _CallModule(number, type(self).__name__, read_atoms, num_particles)
        self.module: torch.jit.ScriptModule = torch.jit.script(module.eval())

    def evaluate(self, read: Tensor, box_vectors: Tensor | None) -> tuple[float, Tensor]:
        """Energy, kJ/mol, and forces on `read_atoms`, kJ/mol/nm.

        Args:
            read: (num_read, 3) nm, positions of `read_atoms`, on any device.
            box_vectors: (3, 3) nm; None: open boundaries.
        """
        raise NotImplementedError

    def called(self, read: Tensor, box_vectors: Tensor | None) -> tuple[float, Tensor]:
        """`evaluate`, whose error is kept for `check`: thrown through OpenMM it would lose its type."""
        try:
            return self.evaluate(read, box_vectors)
        except Exception as error:
            self._error = self._error or error
            return 0.0, torch.zeros_like(read)

    def check(self) -> None:
        """Raise the first error that a force call met since the last check, if one did."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def add_to(self, system: openmm.System) -> None:
        """Add the force to a System."""
        system.addForce(self.force)


def _evaluate(read: Tensor, box_vectors: Tensor, number: int, name: str) -> tuple[Tensor, Tensor]:
    """Energy and forces of an object; box vectors (3, 3), or (0, 3) for none."""
    found = _calls.get(number)
    if found is None:
        raise BackendError(
            f"there is no {name} number {number} in this process: keep the object that made the Force, and make it "
            "anew after reading a System from XML"
        )
    energy, forces = found.called(read, box_vectors if box_vectors.size(0) == 3 else None)
    return read.new_full((), energy), forces


_library = torch.library.Library("openmm_gnn_python", "DEF")  # torch.library.custom_op would load the compiler
_library.define("evaluate(Tensor positions, Tensor box_vectors, int number, str name) -> (Tensor, Tensor)")
_library.impl("evaluate", _evaluate, "CompositeImplicitAutograd")  # others run below autograd, where none is recorded


class _CallModule(nn.Module):
    """What a backend calls."""

    atoms: Tensor

    def __init__(self, number: int, name: str, atoms: np.ndarray, num_particles: int) -> None:
        super().__init__()
        self.spec_json = "{}"
        self.number, self.name = number, name
        self.num_particles = num_particles
        self.register_buffer("atoms", torch.from_numpy(np.array(atoms)))

    def forward(self, positions: Tensor, box_vectors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy and forces."""
        if positions.size(0) != self.num_particles:
            raise ValueError(f"{positions.size(0)} positions came to a {self.name} of {self.num_particles} particles")
        box = torch.empty((0, 3), dtype=positions.dtype) if box_vectors is None else box_vectors
        with torch.no_grad():
            read = positions.index_select(0, self.atoms)
            energy, forces = torch.ops.openmm_gnn_python.evaluate(read, box, self.number, self.name)
            return energy, torch.zeros_like(positions).index_copy(0, self.atoms, forces)
