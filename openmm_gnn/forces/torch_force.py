"""TorchForce, from the package openmmtorch: the only file that knows it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import openmm
import torch

from openmm_gnn.base.errors import BackendError
from openmm_gnn.base.version_rules import Versions, find_mismatches, installed_version
from openmm_gnn.forces.cuda_module import WARM_UP_CALLS, why_not_captured

_loaded_plugins: set[str] = set()


def why_unavailable() -> str | None:
    """None where TorchForce can be used; else the reason in words."""
    versions = Versions(
        torch=torch.__version__,
        openmm=installed_version("openmm"),
        openmmtorch=installed_version("openmmtorch"),
        torch_has_cuda=torch.version.cuda is not None,
    )
    if versions.openmmtorch is None:
        return "openmmtorch is not installed"
    for mismatch in find_mismatches(versions):
        if mismatch.breaks in ("TorchForce", "everything"):
            return f"{mismatch.what} (mend it with: {mismatch.remedy})"
    try:
        _import_openmmtorch()
    except (ImportError, OSError) as error:
        return f"openmmtorch {versions.openmmtorch} cannot be imported: {error}"
    return _load_failed_plugins()


def _import_openmmtorch() -> Any:
    """openmmtorch, without the warning about `simtk.openmm` that it provokes and a user can do nothing about."""
    root = logging.getLogger()

    def other_than_simtk(record: logging.LogRecord) -> bool:
        return "simtk.openmm" not in record.getMessage()

    root.addFilter(other_than_simtk)
    try:
        import openmmtorch
    finally:
        root.removeFilter(other_than_simtk)
    return openmmtorch


def _load_failed_plugins() -> str | None:
    """Load the plugins of TorchForce that OpenMM could not; None if all is well, else what fails, in words.

    They need CUDA's libraries, which torch brings into the process: where OpenMM is imported before torch, its own
    attempt fails, and a Context with a TorchForce "does not support all required kernels".
    """
    for failure in openmm.Platform.getPluginLoadFailures():
        path = failure.removeprefix("Error loading library ").partition(": ")[0]
        if not Path(path).name.startswith("libOpenMMTorch"):
            continue
        if path in _loaded_plugins:
            continue
        try:
            openmm.Platform.loadPluginLibrary(path)
        except openmm.OpenMMException as error:
            if "Reference" in path:  # the CPU platform uses it too
                return f"OpenMM cannot load its plugin {path}: {error}"
        else:
            _loaded_plugins.add(path)
    return None


def get_ready() -> None:
    """Load what a System with a TorchForce of ours needs, also to be read from XML.

    Raises:
        BackendError: if TorchForce cannot be used here.
    """
    import openmm_gnn.kernels.library  # noqa: F401  (the module's ops must be known before it is loaded)

    if (reason := why_unavailable()) is not None:
        raise BackendError(f"TorchForce is not available: {reason}. `openmm-gnn doctor` says what to install")


def module_of(force: openmm.Force) -> Any | None:
    """The module that a TorchForce calls; None for any other force."""
    if installed_version("openmmtorch") is None or why_unavailable() is not None:
        return None
    known = _import_openmmtorch().TorchForce
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
    force = _import_openmmtorch().TorchForce(module)
    force.setOutputsForces(True)
    force.setUsesPeriodicBoundaryConditions(periodic)
    if cuda_graphs:
        if (reason := why_not_captured(module)) is not None:
            raise BackendError(f"this model cannot be a CUDA graph: {reason}; leave cuda_graphs off")
        force.setProperty("useCUDAGraphs", "true")
        force.setProperty("CUDAGraphWarmupSteps", str(WARM_UP_CALLS))
    return force
