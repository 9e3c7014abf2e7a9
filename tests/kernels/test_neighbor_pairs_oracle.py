"""Neighbour pairs against the image sum on random systems, and against other packages."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from openmm_gnn.kernels import neighbor_pairs, reference_neighbor_pairs
from openmm_gnn.kernels.neighbor_pairs import reference_images

DTYPES = [torch.float32, torch.float64]
NUM_BATCHES, BATCH = 10, 50  # 500 systems: a fault in one of 125 is missed in one of 50 choices of them
# Distances that the image sum may look at, so that the whole takes 8 seconds: one system in fifty may be large.
SMALL, LARGE = 8e5, 4e7
MOST_PAIRS = 1.5e5


def random_box(generator: torch.Generator, cutoff: float) -> Tensor:
    """Skewed, rotated, of either handedness, with heights from a third of the cutoff to seven times it."""
    while True:
        heights = cutoff * torch.exp(torch.empty(3).uniform_(math.log(1 / 3), math.log(7.0), generator=generator))
        skew = torch.empty((3, 3)).uniform_(-0.6, 0.6, generator=generator)
        rotation, _ = torch.linalg.qr(torch.randn((3, 3), generator=generator))
        box = (torch.eye(3) + skew) * heights[:, None] @ rotation
        actual = 1.0 / torch.linalg.inv(box).norm(dim=0)
        if bool((actual > cutoff / 3).all()):
            return box


def random_system(generator: torch.Generator, dtype: torch.dtype, work: float) -> tuple[Tensor, float, Tensor | None]:
    """1 to 3000 atoms, small ones oftener, half of the systems in three boxes; every fifth without a box."""
    cutoff = float(torch.empty(1).uniform_(0.2, 1.5, generator=generator))
    box = None if torch.rand(1, generator=generator) < 0.2 else random_box(generator, cutoff)
    images = 1 if box is None else len(reference_images(cutoff, box))
    most = min(3000.0, math.sqrt(work / images))
    if box is not None:
        pairs_of_one_atom_each = 4.19 * cutoff**3 / float(torch.linalg.det(box).abs())
        most = min(most, math.sqrt(MOST_PAIRS / pairs_of_one_atom_each) + 1)
    share = float(torch.rand(1, generator=generator))
    num_atoms = round(most * (0.5 + share / 2) if work == LARGE else math.exp(share * math.log(most)))
    if box is None:
        extent = cutoff * (num_atoms / 8) ** (1 / 3)
        return (torch.rand((num_atoms, 3), generator=generator) * extent - extent / 3).to(dtype), cutoff, None
    box = box.to(dtype)
    spread = 1 if torch.rand(1, generator=generator) < 0.5 else 3
    fractions = torch.rand((num_atoms, 3), generator=generator) * spread - (spread - 1) / 2
    return fractions.to(dtype) @ box, cutoff, box


@pytest.mark.parametrize("batch", range(NUM_BATCHES))
def test_pairs_equal_the_image_sum_on_random_systems(batch: int, matches_reference: Callable[..., int]) -> None:
    generator = torch.Generator().manual_seed(batch)
    total = 0
    for index in range(BATCH):
        work = LARGE if index == BATCH // 2 else SMALL
        total += matches_reference(*random_system(generator, DTYPES[index % 2], work))
    assert total > 1000


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("boundary", ["triclinic", "open"])
def test_pairs_equal_the_image_sum_for_3000_atoms(
    dtype: torch.dtype, boundary: str, matches_reference: Callable[..., int]
) -> None:
    box = torch.tensor([[3.1, 0.0, 0.0], [1.2, 2.9, 0.0], [-0.9, 0.7, 3.0]], dtype=dtype)
    positions = (torch.rand((3000, 3), dtype=torch.float64) @ box.double()).to(dtype)
    assert matches_reference(positions, 0.45, box if boundary == "triclinic" else None) > 20_000


def test_few_pairs_of_a_random_system_are_within_rounding_of_the_cutoff() -> None:
    """Otherwise the comparison above would be blunt."""
    generator = torch.Generator().manual_seed(1)
    positions, cutoff, box = random_system(generator, torch.float32, LARGE)
    _, _, _, wide = reference_neighbor_pairs(positions, cutoff * (1 + 1e-5), box)
    _, _, _, narrow = reference_neighbor_pairs(positions, cutoff * (1 - 1e-5), box)
    assert len(wide) - len(narrow) <= 1e-3 * len(wide) + 2


def other_lists(positions: np.ndarray, cutoff: float, box: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(i, j, S) and distances by every neighbour list installed here."""
    results: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    from ase import Atoms
    from ase.neighborlist import primitive_neighbor_list

    i, j, shift, distance = primitive_neighbor_list("ijSd", [True] * 3, box, positions, cutoff)
    results["ase"] = np.column_stack([i, j, shift]), distance
    try:
        import vesin

        i, j, shift, distance = vesin.NeighborList(cutoff=cutoff, full_list=True).compute(positions, box, True, "ijSd")
        results["vesin"] = np.column_stack([i, j, shift]).astype(np.int64), distance
    except ImportError:
        pass
    try:
        from matscipy.neighbours import neighbour_list

        atoms = Atoms("Ar" * len(positions), positions=positions, cell=box, pbc=True)
        i, j, shift, distance = neighbour_list("ijSd", atoms, cutoff)
        results["matscipy"] = np.column_stack([i, j, shift]), distance
    except ImportError:
        pass
    return results


@pytest.mark.parametrize("cutoff", [0.4, 1.3])
def test_pairs_equal_those_of_other_packages(cutoff: float) -> None:
    box = torch.tensor([[1.7, 0.0, 0.0], [0.5, 1.6, 0.0], [-0.4, 0.3, 1.8]], dtype=torch.float64)
    positions = (torch.rand((150, 3), dtype=torch.float64) * 3 - 1) @ box
    pairs, shifts, _, _ = torch.ops.openmm_gnn.neighbor_pairs(positions, box, cutoff, True, False, 1)
    _, _, distances = neighbor_pairs(positions, cutoff, box)
    ours = np.column_stack([pairs.T.numpy(), shifts.numpy()]).astype(np.int64)
    order = np.lexsort(ours.T)
    for name, (theirs, their_distances) in other_lists(positions.numpy(), cutoff, box.numpy()).items():
        their_order = np.lexsort(theirs.T)
        np.testing.assert_array_equal(ours[order], theirs[their_order], err_msg=name)
        np.testing.assert_allclose(distances.numpy()[order], their_distances[their_order], atol=1e-12, err_msg=name)
