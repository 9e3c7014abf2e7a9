"""Forces that TorchForce applies: from a module, and the module of one."""

from __future__ import annotations

from typing import Any

import openmm
import torch

from openmm_gnn.base.errors import BackendError
from openmm_gnn.base.version_rules import installed_version
from openmm_gnn.forces.cuda_module import WARM_UP_CALLS, why_not_captured
from openmm_gnn.md.torch_plugin import get_ready, import_openmmtorch, why_unavailable


def module_of(force: openmm.Force) -> Any | None:
    """The module that a TorchForce calls; None for any other force."""
    if installed_version("openmmtorch") is None or why_unavailable() is not None:
        return None
    known = import_openmmtorch().TorchForce
    return known.cast(force).getModule() if known.isinstance(force) else None


def torch_force(module: torch.jit.ScriptModule, periodic: bool, cuda_graphs: bool = False) -> Any:
    """An openmmtorch.TorchForce that takes energy and forces from the module.

    Args:
        module: (positions, box_vectors) -> (energy, forces), see `forces.modules.openmm_module`.
        periodic: whether box vectors are handed to the module.
        cuda_graphs: have openmmtorch capture the step on the CUDA platform after ten calls, and fail in words where it
            cannot; other platforms ignore it. `getProperties` of the force shows it.
    Raises:
        BackendError: if TorchForce cannot be used here, or the module cannot be captured.
    """
    get_ready()
    force = import_openmmtorch().TorchForce(module)
    force.setOutputsForces(True)
    force.setUsesPeriodicBoundaryConditions(periodic)
    if cuda_graphs:
        if (reason := why_not_captured(module)) is not None:
            raise BackendError(f"this model cannot be a CUDA graph: {reason}; leave cuda_graphs off")
        force.setProperty("useCUDAGraphs", "true")
        force.setProperty("CUDAGraphWarmupSteps", str(WARM_UP_CALLS))
    return force
