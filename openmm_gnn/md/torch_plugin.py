"""The plugin of TorchForce, from the package openmmtorch: the only file that knows it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import openmm

from openmm_gnn.base.errors import BackendError
from openmm_gnn.base.version_rules import Versions, find_mismatches, installed_version

_loaded_plugins: set[str] = set()


def why_unavailable() -> str | None:
    """None where TorchForce can be used; else the reason in words."""
    import torch

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
        import_openmmtorch()
    except (ImportError, OSError) as error:
        return f"openmmtorch {versions.openmmtorch} cannot be imported: {error}"
    return _load_failed_plugins()


def python_torch_force() -> Any | None:
    """The class PythonTorchForce of openmmtorch, which came after 1.5; None where it cannot be used."""
    if installed_version("openmmtorch") is None or why_unavailable() is not None:
        return None
    return getattr(import_openmmtorch(), "PythonTorchForce", None)


def import_openmmtorch() -> Any:
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
    import openmm_gnn.kernels.operators  # noqa: F401  (the module's ops must be known before it is loaded)

    if (reason := why_unavailable()) is not None:
        raise BackendError(f"TorchForce is not available: {reason}. `openmm-gnn doctor` says what to install")
