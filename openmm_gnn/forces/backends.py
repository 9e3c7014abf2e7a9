"""Which of OpenMM's forces calls a module: the one place that chooses between TorchForce and PythonForce."""

from __future__ import annotations

import warnings
from enum import Enum
from typing import Any

import numpy as np
import openmm
import torch

from openmm_gnn.base.boxes import box_words, can_be_box, narrow_box
from openmm_gnn.base.errors import BackendError
from openmm_gnn.base.units import nanometers
from openmm_gnn.forces import python_force, torch_force
from openmm_gnn.md.simulation_system import is_periodic_system


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


def is_periodic(topology: Any, periodic: bool | openmm.System | None, cutoff: float) -> bool:
    """Whether a force uses the periodic box: as it is given, as a System says, else whether the topology has a box.

    Warned of are the guess from a topology, a box of it that cannot be one, and one narrower than twice the cutoff.

    Args:
        periodic: True, False, or the System that the force is for; None: the topology's box decides.
        cutoff: nm.
    """
    box = topology.getPeriodicBoxVectors()
    if isinstance(periodic, openmm.System):
        box, periodic = periodic.getDefaultPeriodicBoxVectors(), is_periodic_system(periodic)
    vectors = None if box is None else np.array([nanometers(vector) for vector in box])
    if periodic is None and vectors is not None:
        periodic = bool(can_be_box(vectors, topology.getNumAtoms()))
        use = "so the force uses the System's box" if periodic else "which cannot be one: the force uses no box"
        warnings.warn(
            f"the topology has a periodic box of {box_words(vectors)}, {use}. The System decides where it is given: "
            "periodic=system, or periodic=True or False",
            stacklevel=3,
        )
    if periodic and vectors is not None and (words := narrow_box(vectors, cutoff)):
        warnings.warn(words, stacklevel=3)
    return bool(periodic)
