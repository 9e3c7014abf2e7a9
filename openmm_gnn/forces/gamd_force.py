"""A trained network as an openmm.Force."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import Enum
from typing import Any

from openmm_gnn.base.errors import BackendError
from openmm_gnn.forces import python_force, torch_force
from openmm_gnn.forces.modules.openmm_module import script_module
from openmm_gnn.forces.modules.subset_module import subset_module
from openmm_gnn.networks.force_model import ForceModel
from openmm_gnn.networks.weights import load_model


class Backend(str, Enum):
    """Which of OpenMM's forces calls the network."""

    AUTO = "auto"
    TORCHFORCE = "torchforce"
    PYTHONFORCE = "pythonforce"


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


def gamd_force(
    model: ForceModel | str | os.PathLike[str],
    topology: Any,
    backend: Backend | str = Backend.AUTO,
    periodic: bool | None = None,
    atoms: Sequence[int] | None = None,
    device: str = "cpu",
    cuda_graphs: bool = False,
) -> Any:
    """An openmm.Force with the forces that a network predicts; its energy is zero.

    Args:
        model: a network, or a name or path for `load_model`.
        topology: the openmm.app.Topology of the System the force is added to.
        backend: "torchforce", "pythonforce", or "auto": the first of these that works.
        periodic: whether the System is periodic; by default, whether the topology has box vectors.
        atoms: indices of those the network sees and moves; by default all that have an element.
        device: for PythonForce, where the network runs: "cpu", "cuda" or "cuda:N"; TorchForce follows the platform.
        cuda_graphs: replay the step as one CUDA graph, which saves its launches; `cuda_module.graph_reports` tells
            whether PythonForce does, and a TorchForce on the CUDA platform does it or fails in words.
    Raises:
        TopologyError: if the topology has an element the network does not know.
        BackendError: if the backend is unknown or does not work here.
    """
    chosen = chosen_backend(backend)
    network = model if isinstance(model, ForceModel) else load_model(model)
    module = script_module(network, topology) if atoms is None else subset_module(network, topology, atoms)
    if periodic is None:
        periodic = topology.getPeriodicBoxVectors() is not None
    if chosen is Backend.TORCHFORCE:
        force = torch_force.torch_force(module, periodic, cuda_graphs)
    else:
        force = python_force.python_force(module, periodic, device, cuda_graphs)
    force.setName("GAMDForce")
    return force
