"""Loads the compiled operators and tells torch.compile and torch.export the shapes they return."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openmm_gnn.base.errors import BackendError
from openmm_gnn.base.version_rules import BUILD_AGAIN
from openmm_gnn.kernels import shared_calls  # noqa: F401  (modules that are loaded may call its operator)

PACKAGE = Path(__file__).resolve().parent.parent


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
    _load(PACKAGE / "libopenmm_gnn_cpu.so")
    cuda = PACKAGE / "libopenmm_gnn_cuda.so"
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

Pairs = tuple[Tensor, Tensor, Tensor, Tensor]


def _fake_pairs(positions: Tensor, num_pairs: int | torch.SymInt, geometry: bool) -> Pairs:
    none = 0
    return (
        positions.new_empty((2, num_pairs), dtype=torch.int64),
        positions.new_empty((none if geometry else num_pairs, 3), dtype=torch.int32),
        positions.new_empty((num_pairs if geometry else none, 3)),
        positions.new_empty((num_pairs if geometry else none,)),
    )


@torch.library.register_fake("openmm_gnn::neighbor_pairs")
def _neighbor_pairs_fake(
    positions: Tensor, box_vectors: Tensor, cutoff: float, full: bool, geometry: bool, num_threads: int
) -> Pairs:
    return _fake_pairs(positions, torch.library.get_ctx().new_dynamic_size(), geometry)


@torch.library.register_fake("openmm_gnn::update_neighbor_list")
def _update_neighbor_list_fake(positions: Tensor, *arguments: Any) -> Pairs:
    geometry, trim, stored_pairs = arguments[4], arguments[5], arguments[9]
    num_pairs = torch.library.get_ctx().new_dynamic_size() if trim else stored_pairs.shape[1]
    return _fake_pairs(positions, num_pairs, geometry)
