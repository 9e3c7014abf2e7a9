"""Which of OpenMM's forces calls a module: the one place that chooses between TorchForce and PythonForce."""

from __future__ import annotations

from enum import Enum
from typing import Any

import torch

from openmm_gnn.base.errors import BackendError
from openmm_gnn.forces import python_force, torch_force


class Backend(str, Enum):
    """Which of OpenMM's forces calls the network."""

    AUTO = "auto"
    """The first of the others that works here."""
    TORCHFORCE = "torchforce"
    """TorchForce of the package openmmtorch."""
    PYTHONFORCE = "pythonforce"
    """PythonForce, part of OpenMM from 8.5 on."""


def available_backends() -> list[Backend]:
    """The backends that can be used here, the preferred one first."""
    candidates = ((Backend.TORCHFORCE, torch_force), (Backend.PYTHONFORCE, python_force))
    return [backend for backend, module in candidates if module.why_unavailable() is None]


def chosen_backend(backend: Backend | str) -> Backend:
    """The backend of this name; for "auto" the first that works.

    Raises:
        BackendError: if the name is unknown, or nothing works here.
    """
    try:
        chosen = Backend(backend)
    except ValueError as error:
        raise BackendError(f"no backend {backend!r}: give one of {[name.value for name in Backend]}") from error
    if chosen is Backend.AUTO:
        usable = available_backends()
        if not usable:
            raise BackendError(
                f"no force backend works here: {torch_force.why_unavailable()}; {python_force.why_unavailable()}. "
                "`openmm-gnn doctor` says what to install"
            )
        chosen = usable[0]
    return chosen


def make_force(
    module: torch.jit.ScriptModule,
    name: str,
    periodic: bool,
    backend: Backend | str,
    device: str = "cpu",
    cuda_graphs: bool = False,
    group: int = 0,
) -> Any:
    """An openmm.Force that takes energy and forces from a module.

    Args:
        module: (positions, box_vectors) -> (energy, forces), see `forces.modules.openmm_module`.
        name: name of the Force.
        periodic: whether box vectors are handed to the module.
        backend: "torchforce", "pythonforce", or "auto": the first of these that works.
        device: for PythonForce, where the module runs; TorchForce follows the platform.
        cuda_graphs: replay the step as one CUDA graph.
        group: the force group.
    Raises:
        BackendError: if the backend is unknown or does not work here, or the module cannot run so.
    """
    if chosen_backend(backend) is Backend.TORCHFORCE:
        force = torch_force.torch_force(module, periodic, cuda_graphs)
    else:
        force = python_force.python_force(module, periodic, device, cuda_graphs)
    force.setName(name)
    force.setForceGroup(group)
    return force


def is_periodic(topology: Any, periodic: bool | None = None) -> bool:
    """Whether a System is periodic: what is given; else, whether the topology has box vectors."""
    return topology.getPeriodicBoxVectors() is not None if periodic is None else periodic
