"""A trained network as an openmm.Force."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from openmm_gnn.forces.backends import Backend, chosen_backend, is_periodic, make_force
from openmm_gnn.forces.modules.openmm_module import script_module, subset_module
from openmm_gnn.networks.force_model import ForceModel
from openmm_gnn.networks.weights import load_model


def gamd_force(
    model: ForceModel | str | os.PathLike[str],
    topology: Any,
    backend: Backend | str = Backend.AUTO,
    periodic: bool | None = None,
    atoms: Sequence[int] | None = None,
    device: str = "cpu",
    cuda_graphs: bool = False,
) -> Any:
    """An openmm.Force with the forces that a network predicts.

    Its energy is that of the network where `model.conservative`, and the forces are its gradient. Networks that predict
    forces directly have no energy: zero stands for it, which neither minimisers nor barostats can use.

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
    network = load_model(model)
    module = script_module(network, topology) if atoms is None else subset_module(network, topology, atoms)
    return make_force(module, "GAMDForce", is_periodic(topology, periodic), chosen, device, cuda_graphs)
