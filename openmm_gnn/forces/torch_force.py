"""TorchForce, from the package openmmtorch: the only file that knows it."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import torch

from openmm_gnn.errors import BackendError

TORCH_OF_OPENMMTORCH = {"1.5": "2.9"}
"""openmmtorch is bound to the torch it was built with: another one crashes or fails when a Context is made."""


def why_unavailable() -> str | None:
    """None where TorchForce can be used; else the reason in words."""
    try:
        version = metadata.version("openmmtorch")
    except metadata.PackageNotFoundError:
        return "openmmtorch is not installed"
    needed = TORCH_OF_OPENMMTORCH.get(version)
    found = torch.__version__
    if needed is not None and not found.startswith(needed + "."):
        return f"openmmtorch {version} works with torch {needed}.x only, found {found}"
    try:
        import openmmtorch  # noqa: F401
    except (ImportError, OSError) as error:
        return f"openmmtorch {version} cannot be imported: {error}"
    return None


def torch_force(module: torch.jit.ScriptModule, periodic: bool) -> Any:
    """An openmmtorch.TorchForce that takes energy and forces from the module.

    Args:
        module: (positions, box_vectors) -> (energy, forces), see export.openmm_module.
        periodic: whether box vectors are handed to the module.
    Raises:
        BackendError: if TorchForce cannot be used here.
    """
    if (reason := why_unavailable()) is not None:
        raise BackendError(f"TorchForce is not available: {reason}. `openmm-gnn doctor` says what to install")
    import openmmtorch

    force = openmmtorch.TorchForce(module)
    force.setOutputsForces(True)
    force.setUsesPeriodicBoundaryConditions(periodic)
    return force
