"""Loads the compiled operators and tells torch.compile and torch.export the shapes they return."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PACKAGE = Path(__file__).resolve().parent.parent


def _load(path: Path) -> None:
    if not path.is_file():
        raise ImportError(
            f"the compiled operators are missing ({path.name} is not in {path.parent}): "
            "install the package with `pip install --no-build-isolation .`, which compiles them"
        )
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise ImportError(
            f"{path.name} does not load with torch {torch.__version__} ({error}): "
            "build it anew with `pip install --no-build-isolation --force-reinstall --no-deps .`"
        ) from error


def _load_all() -> bool:
    """Loads the CPU library, and the CUDA one where it was built and torch can use it. True if CUDA's is there."""
    _load(PACKAGE / "libopenmm_gnn_cpu.so")
    cuda = PACKAGE / "libopenmm_gnn_cuda.so"
    if torch.version.cuda is None or not cuda.is_file():
        return False
    _load(cuda)
    return True


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
