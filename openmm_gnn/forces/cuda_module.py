"""A module's energy and forces on a GPU for a caller on the host: static buffers, one wait per call, one CUDA graph.

After some ordinary calls, in which TorchScript compiles and the neighbour list takes its memory, the step is captured
once and replayed from then on: positions and box go into buffers that stay where they are, and a replay costs one
launch instead of some hundred. What cannot be captured runs on as before, and `graph_state` says why. A module that
waits for the device is found out by a step in which torch reports that, not by the capture: one that CUDA breaks off
leaves torch's allocator and random numbers as if it still went on, and no later capture in the process succeeds.

Source of the rules: PyTorch, "CUDA Graphs" in its notes on CUDA semantics.
"""

from __future__ import annotations

import json
import logging
import threading
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from openmm_gnn.base.errors import NonFiniteError, in_words
from openmm_gnn.networks.vector_gamd import WIDEST_ON_CUDA

WARM_UP_CALLS = 10
"""Ordinary calls before the capture, as openmmtorch makes them."""
_modules: weakref.WeakSet[CudaModule] = weakref.WeakSet()
_log = logging.getLogger("openmm_gnn")


class CudaModule:
    """Calls a module on a CUDA device; see `forces.modules.openmm_module` for its signature."""

    def __init__(
        self, module: torch.jit.ScriptModule, device: torch.device, cuda_graph: bool, name: str = "network"
    ) -> None:
        """Args:
        module: on any device; a frozen copy of it is moved.
        device: a CUDA device.
        cuda_graph: capture the step once it is warm.
        name: how `graph_reports` calls it.
        """
        self.device, self.name, self.calls = device, name, 0
        self._module = torch.jit.freeze(module.eval().to(device), preserved_attrs=["spec_json"])
        self._why_not = why_not_captured(module) if cuda_graph else "it was not asked for (cuda_graphs=False)"
        self._stream = torch.cuda.Stream(device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._buffers: DeviceBuffers | None = None
        _modules.add(self)

    @property
    def graph_state(self) -> str:
        """Whether a CUDA graph is in use, in words."""
        if self._graph is not None:
            return f"in use on {self.device}"
        if self._why_not is not None:
            return f"not in use: {self._why_not}"
        return f"not yet in use: {self.calls} of {WARM_UP_CALLS} calls before the capture are done"

    def __call__(self, positions: np.ndarray, box: np.ndarray | None) -> tuple[float, np.ndarray]:
        """Energy, kJ/mol, and forces (N, 3), kJ/mol/nm.

        Args:
            positions: (N, 3), nm, float64 or float32.
            box: (3, 3), nm, or None.
        Raises:
            NonFiniteError: if a force is not finite; the neighbour list on a GPU says so that it is invalid.
        """
        place, stream = torch.cuda.device(self.device), torch.cuda.stream(self._stream)
        with place, stream, torch.inference_mode(False), torch.no_grad():
            buffers = self._buffers_for(positions, box)
            buffers.put(positions, box)
            if self._graph is not None:
                self._graph.replay()
            else:
                buffers.keep(*self._module(buffers.positions, buffers.box))
            buffers.fetch()
            self._stream.synchronize()
            self.calls += 1
            if self._graph is None and self._why_not is None and self.calls >= WARM_UP_CALLS:
                self._capture(buffers)
        forces = buffers.host_forces.numpy().copy()
        if not np.isfinite(forces).all():
            atom = int(np.nonzero(~np.isfinite(forces).all(axis=1))[0][0])
            raise NonFiniteError(
                f"the force on particle {atom} is not finite: a position is not, the neighbour list is full, or the "
                "box of a network with charges has grown by a fifth since the first step (make the force anew)"
            )
        return float(buffers.host_energy), forces

    def _buffers_for(self, positions: np.ndarray, box: np.ndarray | None) -> DeviceBuffers:
        if self._buffers is None or not self._buffers.fit(positions, box):
            if self._graph is not None:
                self._graph, self.calls = None, 0  # it was captured for other shapes
            self._buffers = DeviceBuffers(positions, box, self.device)
        return self._buffers

    def _capture(self, buffers: DeviceBuffers) -> None:
        """One more step, recorded; what it computes lands where `fetch` looks."""
        graph = torch.cuda.CUDAGraph()
        try:
            with waits_of_this_thread() as waits:
                self._module(buffers.positions, buffers.box)
            if waits:
                raise RuntimeError(waits[0])
            # The calls of other threads are their own affair: a reporter's may wait for the device meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                buffers.keep(*self._module(buffers.positions, buffers.box))
            graph.replay()
            self._stream.synchronize()
        except RuntimeError as error:  # torch says by this type that something cannot be captured
            self._why_not = f"the capture failed ({in_words(error)})"
        else:
            self._graph = graph
        _log.info("CUDA graph of %s: %s", self.name, self.graph_state)


class DeviceBuffers:
    """Where positions, box, energy and forces stay: on the device, and in page-locked memory of the host."""

    def __init__(self, positions: np.ndarray, box: np.ndarray | None, device: torch.device) -> None:
        pinned = device.type == "cuda"
        dtype = torch.from_numpy(positions[:0]).dtype
        self._host_positions = torch.empty(positions.shape, dtype=dtype, pin_memory=pinned)
        self._host_box = torch.empty((3, 3), dtype=dtype, pin_memory=pinned)
        self.positions = torch.empty_like(self._host_positions, device=device)
        self.box = None if box is None else torch.empty((3, 3), dtype=dtype, device=device)
        self.energy = torch.zeros((), dtype=dtype, device=device)
        self.forces = torch.zeros_like(self.positions)
        self.host_energy = torch.empty((), dtype=dtype, pin_memory=pinned)
        self.host_forces = torch.empty(positions.shape, dtype=dtype, pin_memory=pinned)

    def fit(self, positions: np.ndarray, box: np.ndarray | None) -> bool:
        given = torch.from_numpy(positions[:0]).dtype
        same_box = (box is None) == (self.box is None)
        return tuple(self.positions.shape) == positions.shape and self.positions.dtype == given and same_box

    def put(self, positions: np.ndarray, box: np.ndarray | None) -> None:
        self._host_positions.numpy()[...] = positions
        self.positions.copy_(self._host_positions, non_blocking=True)
        if self.box is not None and box is not None:
            self._host_box.numpy()[...] = box
            self.box.copy_(self._host_box, non_blocking=True)

    def keep(self, energy: torch.Tensor, forces: torch.Tensor) -> None:
        self.energy.copy_(energy)
        self.forces.copy_(forces)

    def fetch(self) -> None:
        self.host_energy.copy_(self.energy, non_blocking=True)
        self.host_forces.copy_(self.forces, non_blocking=True)


@contextmanager
def waits_of_this_thread() -> Iterator[list[str]]:
    """Collects torch's warning for each operation of this thread that makes the host wait for a device.

    torch's switch is the whole process's. Its warnings come in the thread that waits: those of other threads, such as a
    reporter's, which may wait as they like, are dropped.
    """
    found: list[str] = []
    thread, before = threading.get_ident(), torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        show = warnings.showwarning

        def notice(message: Warning | str, *place: Any, **more: Any) -> None:
            if "synchronizing CUDA operation" not in str(message):
                show(message, *place, **more)
            elif threading.get_ident() == thread:
                found.append(str(message))

        warnings.filterwarnings("ignore", message="Synchronization debug mode")
        warnings.filterwarnings("always", message="called a synchronizing CUDA operation")
        warnings.showwarning = notice
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode(before)


def why_not_captured(module: Any) -> str | None:
    """None where a module may be captured as a CUDA graph; else the reason in words."""
    spec = json.loads(getattr(module, "spec_json", "{}") or "{}").get("spec", {})
    if spec.get("charge_width", 0) > 0 and spec.get("width", 0) > WIDEST_ON_CUDA:
        return (
            f"its charges choose their grid from the box, which the host must read where a network is wider than "
            f"{WIDEST_ON_CUDA} channels"
        )
    return None


def graph_reports() -> list[str]:
    """A line for each module of this process that a PythonForce runs on a GPU: is a CUDA graph in use, and why not."""
    return sorted(f"{module.name}: CUDA graph {module.graph_state}" for module in list(_modules))
