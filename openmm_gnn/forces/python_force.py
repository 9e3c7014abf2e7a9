"""PythonForce, part of OpenMM from 8.5 on: the only file that knows it.

OpenMM serialises a PythonForce by pickling its callable, and loading such XML runs pickle: never load a System with a
PythonForce that comes from strangers. The callable here carries its module as TorchScript bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import openmm
import torch

from openmm_gnn.errors import BackendError


def why_unavailable() -> str | None:
    """None where PythonForce can be used; else the reason in words."""
    if hasattr(openmm, "PythonForce"):
        return None
    return f"OpenMM {openmm.__version__} has no PythonForce, it came with 8.5"


class ModuleComputation:
    """The callable of a PythonForce: State in, energy (kJ/mol) and forces (kJ/mol/nm) out."""

    def __init__(self, module: torch.jit.ScriptModule, periodic: bool) -> None:
        self.periodic = periodic
        self._module = torch.jit.freeze(module.eval(), preserved_attrs=["spec_json"])
        self._source = _to_bytes(module)

    def __call__(self, state: Any) -> tuple[float, np.ndarray]:
        positions = torch.from_numpy(np.ascontiguousarray(state.getPositions(asNumpy=True)._value))
        box = None
        if self.periodic:
            box = torch.from_numpy(np.ascontiguousarray(state.getPeriodicBoxVectors(asNumpy=True)._value))
        # OpenMM may call from a thread of its own, where the gradient mode is the default one.
        with torch.inference_mode(False), torch.no_grad():
            energy, forces = self._module(positions, box)
        return float(energy), forces.numpy()

    def __getstate__(self) -> dict[str, Any]:
        return {"periodic": self.periodic, "source": self._source}

    def __setstate__(self, state: dict[str, Any]) -> None:
        import openmm_gnn.kernels.library  # noqa: F401  (the module's ops must be known before it is loaded)

        self.__init__(torch.jit.load(io.BytesIO(state["source"]), map_location="cpu"), state["periodic"])  # type: ignore[misc]


def python_force(module: torch.jit.ScriptModule, periodic: bool) -> Any:
    """An openmm.PythonForce that takes energy and forces from the module.

    Args:
        module: (positions, box_vectors) -> (energy, forces), see export.openmm_module.
        periodic: whether box vectors are handed to the module.
    Raises:
        BackendError: if PythonForce cannot be used here.
    """
    return callable_force(ModuleComputation(module, periodic), periodic)


def callable_force(computation: Callable[[Any], tuple[float, np.ndarray]], periodic: bool) -> Any:
    """An openmm.PythonForce of any callable: State in, energy (kJ/mol) and forces (kJ/mol/nm) out; it is pickled.

    Raises:
        BackendError: if PythonForce cannot be used here.
    """
    if (reason := why_unavailable()) is not None:
        raise BackendError(f"PythonForce is not available: {reason}. `openmm-gnn doctor` says what to install")
    force = openmm.PythonForce(computation)
    force.setUsesPeriodicBoundaryConditions(periodic)
    return force


def _to_bytes(module: torch.jit.ScriptModule) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    return buffer.getvalue()
