"""An operator by which the modules of one process share what one of them has computed.

A module that is exported, pickled or copied cannot hold an object of Python. It holds a name, by which the operator
`openmm_gnn_python::shared_output` finds the object in `SHARED`, and the TorchScript of its networks as bytes: a process
that has nothing of the name, since it has read a System from XML, computes with these.
"""

# No `from __future__ import annotations` here: torch.library reads the types of functions.
import io
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SharedOutput = Callable[[Tensor, Tensor | None, int], tuple[float, Tensor]]
SHARED: dict[str, SharedOutput] = {}
"""By name: positions (R, 3), box vectors or None, and the number of an output -> energy, and forces (R, 3)."""


def _shared_output(read: Tensor, box_vectors: Tensor, name: str, output: int, source: Tensor) -> tuple[Tensor, Tensor]:
    """Energy, 0-d, and forces (R, 3) on the atoms that are read.

    Args:
        read: (R, 3) nm.
        box_vectors: (3, 3) nm, or (0, 3) for none.
        source: bytes of a TorchScript module, whose `output` is set: (positions, box vectors) -> (energy, forces) of
            all particles, with the indices of those that are read as `cv_module.read_atoms`.
    """
    if name not in SHARED:
        SHARED[name] = _LoadedModule(source, read.device)
    energy, forces = SHARED[name](read, box_vectors if box_vectors.size(0) == 3 else None, output)
    return read.new_full((), energy), forces


class _LoadedModule:
    """Computes with the networks of a module that another process has made."""

    def __init__(self, source: Tensor, device: torch.device) -> None:
        import openmm_gnn.kernels.operators  # noqa: F401  (with the gradients of what the module calls)

        self._module: Any = torch.jit.load(io.BytesIO(source.cpu().numpy().tobytes()), map_location=device)
        self._atoms: Tensor = self._module.cv_module.read_atoms

    def __call__(self, read: Tensor, box_vectors: Tensor | None, output: int) -> tuple[float, Tensor]:
        positions = read.new_zeros((self._module.num_particles, 3)).index_copy_(0, self._atoms, read)
        self._module.output = output
        energy, forces = self._module(positions, box_vectors)
        return float(energy), forces.index_select(0, self._atoms)


_library = torch.library.Library("openmm_gnn_python", "FRAGMENT")  # torch.library.custom_op would load the compiler
_library.define(
    "shared_output(Tensor read, Tensor box_vectors, str name, int output, Tensor source) -> (Tensor, Tensor)"
)
_library.impl("shared_output", _shared_output, "CompositeImplicitAutograd")
