"""PythonForce, part of OpenMM from 8.5 on: the only file that knows it.

OpenMM serialises a PythonForce by pickling its callable, and loading such XML runs pickle: never load a System with a
PythonForce that comes from strangers. The callable here carries its module as TorchScript bytes.
"""

from __future__ import annotations

import io
import pickle
from typing import Any
from xml.etree import ElementTree

import numpy as np
import openmm
import torch
from torch import Tensor

from openmm_gnn.base.errors import BackendError, NonFiniteError, in_words
from openmm_gnn.forces.cuda_module import CudaModule
from openmm_gnn.forces.modules.openmm_module import module_bytes
from openmm_gnn.kernels.library import usable_device
from openmm_gnn.md.torch_plugin import python_torch_force


def why_unavailable() -> str | None:
    """None where PythonForce can be used; else the reason in words."""
    if hasattr(openmm, "PythonForce") or python_torch_force() is not None:
        return None
    return f"OpenMM {openmm.__version__} has no PythonForce, it came with 8.5"


class ModuleComputation:
    """The callable of a PythonForce: State in, energy (kJ/mol) and forces (kJ/mol/nm) out."""

    def __init__(
        self, module: torch.jit.ScriptModule, periodic: bool, device: str = "cpu", cuda_graphs: bool = False
    ) -> None:
        self.periodic, self.device, self.cuda_graphs = periodic, device, cuda_graphs
        self.source = module_bytes(module)
        self._module = torch.jit.freeze(module.eval(), preserved_attrs=["spec_json"])
        self._on_gpu: CudaModule | None = None
        place = usable_device(device)
        if place.type == "cuda":
            self._on_gpu = CudaModule(_from_bytes(self.source), place, cuda_graphs)
        elif cuda_graphs:
            raise BackendError("cuda_graphs=True needs the network on a GPU: give device='cuda'")

    @property
    def graph_state(self) -> str:
        """Whether a CUDA graph is in use, in words."""
        return "not in use: the network runs on the CPU" if self._on_gpu is None else self._on_gpu.graph_state

    def __call__(self, state: Any) -> tuple[float, np.ndarray]:
        positions = np.ascontiguousarray(state.getPositions(asNumpy=True)._value)
        box = np.ascontiguousarray(state.getPeriodicBoxVectors(asNumpy=True)._value) if self.periodic else None
        if self._on_gpu is None:
            return self._on_cpu(positions, box)
        try:
            return self._on_gpu(positions, box)
        except NonFiniteError:
            self._on_cpu(positions, box)  # the list on the CPU says in words what is wrong
            raise

    def _on_cpu(self, positions: np.ndarray, box: np.ndarray | None) -> tuple[float, np.ndarray]:
        # OpenMM may call from a thread of its own, where the gradient mode is the default one.
        with torch.inference_mode(False), torch.no_grad():
            placed = torch.from_numpy(positions), None if box is None else torch.from_numpy(box)
            try:
                energy, forces = self._module(*placed)
            except (RuntimeError, torch.jit.Error) as error:  # without its traceback: OpenMM passes on the text alone
                raise RuntimeError(in_words(error)) from error
        return float(energy), forces.numpy()

    def __getstate__(self) -> dict[str, Any]:
        names = ("periodic", "device", "cuda_graphs")
        return {"source": self.source, **{name: getattr(self, name) for name in names}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        import openmm_gnn.forces.python_call
        import openmm_gnn.kernels.operators  # noqa: F401  (the module's ops must be known before it is loaded)

        self.__init__(_from_bytes(state.pop("source")), **state)  # type: ignore[misc]


class TensorComputation(ModuleComputation):
    """The callable of a PythonTorchForce: State, and positions on the Context's device in; energy and forces there out.

    The module runs where the positions are, so on a GPU neither they nor the forces come to the host.
    """

    def __init__(
        self, module: torch.jit.ScriptModule, periodic: bool, device: str = "cpu", cuda_graphs: bool = False
    ) -> None:
        super().__init__(module, periodic)
        self._placed = {"cpu": self._module}

    def __call__(self, state: Any, positions: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        box = None
        if self.periodic:
            vectors = np.ascontiguousarray(state.getPeriodicBoxVectors(asNumpy=True)._value)
            box = torch.from_numpy(vectors).to(positions)
        with torch.inference_mode(False), torch.no_grad():
            try:
                energy, forces = self._on(positions.device)(positions, box)
            except (RuntimeError, torch.jit.Error) as error:  # without its traceback: OpenMM passes on the text alone
                raise RuntimeError(in_words(error)) from error
        return energy, forces

    def _on(self, device: torch.device) -> torch.jit.ScriptModule:
        name = str(device)
        if name not in self._placed:
            placed = _from_bytes(self.source).eval().to(device)
            self._placed[name] = torch.jit.freeze(placed, preserved_attrs=["spec_json"])
        return self._placed[name]


def module_of(force: openmm.Force) -> Any | None:
    """The module that a PythonForce of ours calls; None for any other force."""
    if type(force).__name__ not in ("PythonForce", "PythonTorchForce"):
        return None
    written = ElementTree.fromstring(openmm.XmlSerializer.serialize(force))  # the only way to its callable
    pickled = bytes.fromhex(written.attrib["function"])
    return _from_bytes(pickle.loads(pickled).source) if __name__.encode() in pickled else None


def python_force(module: torch.jit.ScriptModule, periodic: bool, device: str = "cpu", cuda_graphs: bool = False) -> Any:
    """An openmm.PythonForce that takes energy and forces from the module.

    Where openmmtorch has a PythonTorchForce, which hands positions over where they are, it is one of these, unless a
    GPU is asked for.

    Args:
        module: (positions, box_vectors) -> (energy, forces), see `forces.modules.openmm_module`.
        periodic: whether box vectors are handed to the module.
        device: where the module runs; PythonForce hands positions over on the host, whatever the platform.
        cuda_graphs: capture the step on a GPU; `cuda_module.graph_reports` tells whether that worked.
    Raises:
        BackendError: if PythonForce or the device cannot be used here.
    """
    if (reason := why_unavailable()) is not None:
        raise BackendError(f"PythonForce is not available: {reason}. `openmm-gnn doctor` says what to install")
    by_tensors = None if cuda_graphs or device != "cpu" else python_torch_force()
    if by_tensors is not None:
        force = by_tensors(TensorComputation(module, periodic))
    else:
        force = openmm.PythonForce(ModuleComputation(module, periodic, device, cuda_graphs))
    force.setUsesPeriodicBoundaryConditions(periodic)
    return force


def _from_bytes(source: bytes) -> torch.jit.ScriptModule:
    return torch.jit.load(io.BytesIO(source), map_location="cpu")
