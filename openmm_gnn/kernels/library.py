"""Loads the compiled operators; the files beside this one wrap them, and tell PyTorch their shapes and gradients."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch

from openmm_gnn.base.errors import BackendError
from openmm_gnn.base.version_rules import BUILD_AGAIN

PACKAGE = Path(__file__).resolve().parent.parent
FOLDER = Path(os.environ.get("OPENMM_GNN_LIBRARIES") or PACKAGE)
"""Where the compiled operators lie: in the package, or in the folder OPENMM_GNN_LIBRARIES, such as another build."""

# PyTorch says it at every call from 2.14 on. TorchScript is what TorchForce runs; version_rules.py says where it ends.
warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", FutureWarning)


def _load(path: Path) -> None:
    if not path.is_file():
        raise ImportError(
            f"the compiled operators are missing ({path.name} is not in {path.parent}): compile them in the folder of "
            f"the sources with `{BUILD_AGAIN}`; Python started in a clone imports the clone, not what is installed"
        )
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise ImportError(
            f"{path.name} does not load with torch {torch.__version__} ({error}): "
            f"build it anew in the folder of the sources with `{BUILD_AGAIN}`"
        ) from error


def _load_all() -> bool:
    """Loads the CPU library, and the CUDA one where it was built and torch can use it. True if CUDA's is there."""
    _load(FOLDER / "libopenmm_gnn_cpu.so")
    cuda = FOLDER / "libopenmm_gnn_cuda.so"
    if torch.version.cuda is None or not cuda.is_file():
        return False
    _load(cuda)
    return True


def usable_device(device: str | torch.device) -> torch.device:
    """The device of this name, which torch can compute on here.

    Raises:
        BackendError: if it is neither the CPU nor a GPU that torch sees.
    """
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError):
        place = torch.device("meta")
    if place.type not in ("cpu", "cuda"):
        raise BackendError(f"device is {str(device)!r}: give 'cpu', 'cuda' or 'cuda:N'")
    seen = torch.cuda.device_count() if place.type == "cuda" and torch.cuda.is_available() else 0
    if place.type == "cuda" and (place.index or 0) >= seen:
        sees = f"{seen} CUDA devices" if seen else "no CUDA device"
        raise BackendError(f"device is {str(device)!r}, but torch sees {sees}: give 'cpu'")
    return place


HAS_CUDA_LIBRARY: bool = _load_all()
