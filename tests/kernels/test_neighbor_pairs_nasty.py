"""Cases each of which has broken a published neighbour list, and inputs that must be refused."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from openmm_gnn.kernels import neighbor_pairs

DTYPES = [torch.float32, torch.float64]
Case = tuple[Tensor, float, Tensor | None]


def cube(length: float) -> Tensor:
    return torch.eye(3, dtype=torch.float64) * length


def scattered(num_atoms: int, box: Tensor, spread: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(num_atoms)
    return (torch.rand((num_atoms, 3), generator=generator, dtype=torch.float64) * spread) @ box


def rotated(box: Tensor) -> Tensor:
    rotation, _ = torch.linalg.qr(torch.randn((3, 3), generator=torch.Generator().manual_seed(5), dtype=torch.float64))
    return box @ rotation


REDUCED = torch.tensor([[2.0, 0.0, 0.0], [0.9, 1.9, 0.0], [-0.8, 0.7, 2.1]], dtype=torch.float64)
SKEWED = torch.tensor([[2.0, 0, 0], [3.0 * math.cos(math.pi / 6), 1.5, 0], [2.4, 0.7, 1.2]], dtype=torch.float64)
LEFT_HANDED = REDUCED[[1, 0, 2]]
FLAT = torch.diag(torch.tensor([3.0, 3.0, 0.2], dtype=torch.float64))
NEEDLE = torch.diag(torch.tensor([0.15, 0.15, 40.0], dtype=torch.float64))
LATTICE = torch.cartesian_prod(*[torch.arange(4.0, dtype=torch.float64)] * 3)

CASES: dict[str, Case] = {
    "orthorhombic": (scattered(200, REDUCED), 0.5, torch.diag(torch.tensor([2.0, 1.5, 2.5], dtype=torch.float64))),
    "reduced": (scattered(200, REDUCED), 0.5, REDUCED),
    "skewed by 30 degrees": (scattered(150, SKEWED), 0.5, SKEWED),
    "rotated": (scattered(200, rotated(REDUCED)), 0.5, rotated(REDUCED)),
    "left-handed": (scattered(200, LEFT_HANDED), 0.5, LEFT_HANDED),
    "flat": (scattered(60, FLAT), 0.5, FLAT),
    "needle": (scattered(80, NEEDLE), 0.5, NEEDLE),
    "cutoff over half the box": (scattered(60, REDUCED), 1.4, REDUCED),
    "cutoff over the box": (scattered(30, REDUCED), 4.5, REDUCED),
    "one atom with its images": (scattered(1, REDUCED), 4.5, REDUCED),
    "one atom, open": (torch.zeros((1, 3), dtype=torch.float64), 1.0, None),
    "two atoms, open": (torch.tensor([[0.0, 0, 0], [0.5, 0, 0]], dtype=torch.float64), 1.0, None),
    "no atoms": (torch.zeros((0, 3), dtype=torch.float64), 1.0, REDUCED),
    "no atoms, open": (torch.zeros((0, 3), dtype=torch.float64), 1.0, None),
    "five boxes away": (scattered(120, REDUCED, 11.0) - REDUCED.sum(0) * 5, 0.5, REDUCED),
    "on faces": (torch.cartesian_prod(*[torch.tensor([0.0, 1.0, 2.0, 4.0], dtype=torch.float64)] * 3), 0.9, cube(2.0)),
    "just below zero": (torch.full((1, 3), -1e-12, dtype=torch.float64) * torch.tensor([[1.0], [0.0], [2.0]]), 0.7,
                        cube(2.0)),
    "coincident": (torch.ones((7, 3), dtype=torch.float64), 0.3, cube(2.0)),
    "coincident, open": (torch.ones((7, 3), dtype=torch.float64), 0.3, None),
    "all in one cell": (scattered(300, cube(0.2)), 0.3, cube(9.0)),
    "all in one cell, open": (scattered(300, cube(0.2)), 0.3, None),
    "in a plane, open": (scattered(200, cube(3.0)) * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64), 0.5, None),
    "far apart, open": (torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [1e4, 0, 0], [1e4, 0.0, 0.125]]), 0.5, None),
    "sparse": (scattered(40, cube(50.0)), 3.0, cube(50.0)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_nasty_case_equals_the_image_sum(name: str, dtype: torch.dtype, matches_reference: Callable[..., int]) -> None:
    positions, cutoff, box = CASES[name]
    matches_reference(positions.to(dtype), cutoff, None if box is None else box.to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("periodic", [True, False])
def test_lattice_with_spacing_equal_to_the_cutoff_has_no_pairs(dtype: torch.dtype, periodic: bool) -> None:
    box = cube(4.0).to(dtype) if periodic else None
    pairs, _, _ = neighbor_pairs(LATTICE.to(dtype), 1.0, box)
    assert pairs.shape == (2, 0)
    pairs, _, distances = neighbor_pairs(LATTICE.to(dtype), 1.0 + 1e-6, box)
    assert pairs.shape[1] == (64 * 6 if periodic else 2 * 3 * 3 * 16)
    assert bool((distances == 1.0).all())


def test_atom_whose_float32_wrap_gives_the_box_length_is_found() -> None:
    """-1e-9 + 2 rounds to exactly 2 in float32: the fraction is 1, the cell index must not be."""
    positions = torch.tensor([[-1e-9, -1e-9, -1e-9], [0.1, 0.0, 0.0], [1.9, 2.0, 0.0]])
    pairs, _, distances = neighbor_pairs(positions, 0.25, torch.eye(3) * 2)
    assert pairs.shape[1] == 6
    torch.testing.assert_close(distances.sort().values, torch.tensor([0.1, 0.1, 0.1, 0.1, 0.2, 0.2]))


def test_enormous_open_coordinates_give_the_pairs_of_the_rest() -> None:
    positions = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [1e30, -1e30, 0], [3e38, 0, 0]])
    pairs, _, _ = neighbor_pairs(positions, 0.5)
    assert pairs.tolist() == [[0, 1], [1, 0]]


@pytest.mark.slow
def test_a_million_atoms_have_the_neighbours_that_a_direct_search_finds() -> None:
    num_atoms, length = 1_000_000, 21.5
    positions = torch.rand((num_atoms, 3)) * length
    pairs, _, _ = neighbor_pairs(positions, 0.36, torch.eye(3) * length)
    counts = torch.bincount(pairs[0], minlength=num_atoms)
    exact = positions.double()
    for atom in range(0, num_atoms, num_atoms // 20):
        difference = exact - exact[atom]
        difference -= length * torch.round(difference / length)
        distances = difference.norm(dim=1)
        close = int((distances < 0.36 - 1e-5).sum()) - 1
        assert close <= int(counts[atom]) <= int((distances < 0.36 + 1e-5).sum()) - 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_pairs_do_not_change_with_lattice_translations_permutations_and_rotations(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    positions = (torch.rand((100, 3), generator=generator, dtype=torch.float64) @ REDUCED).to(dtype)
    box = REDUCED.to(dtype)
    reference = neighbor_pairs(positions, 0.6, box)[2].sort().values
    shifts = torch.randint(-3, 4, (100, 3), generator=generator).to(dtype)
    order = torch.randperm(100, generator=generator)
    rotation, _ = torch.linalg.qr(torch.randn((3, 3), generator=generator, dtype=torch.float64))
    rotation = rotation.to(dtype)
    for moved, moved_box in (
        (positions + shifts @ box, box),
        (positions[order], box),
        (positions @ rotation, box @ rotation),
        (positions + 0.37, box),
    ):
        distances = neighbor_pairs(moved, 0.6, moved_box)[2].sort().values
        torch.testing.assert_close(distances, reference, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_result_is_bitwise_the_same_for_any_number_of_threads(dtype: torch.dtype, full: bool) -> None:
    box = torch.eye(3, dtype=dtype) * 6 + torch.tensor([[0, 0, 0], [1.0, 0, 0], [-0.5, 0.8, 0]], dtype=dtype)
    positions = (torch.rand((45_000, 3), dtype=dtype) * 3 - 1) @ box
    for geometry in (True, False):
        results = [
            torch.ops.openmm_gnn.neighbor_pairs(positions, box, 0.3, full, geometry, num_threads)
            for num_threads in (1, 2, 3, 0, 2)
        ]
        assert results[0][0].shape[1] > 100_000
        for result in results[1:]:
            assert all(torch.equal(one, other) for one, other in zip(results[0], result, strict=True))


def test_strided_inputs_give_the_same_pairs() -> None:
    positions = torch.rand((50, 6), dtype=torch.float64)
    box = torch.rand((3, 3), dtype=torch.float64) + 2 * torch.eye(3)
    expected = neighbor_pairs(positions[:, ::2].contiguous(), 0.4, box.T.contiguous())
    strided = neighbor_pairs(positions[:, ::2], 0.4, box.T)
    assert all(torch.equal(one, other) for one, other in zip(expected, strided, strict=True))
    transposed = neighbor_pairs(positions[:, ::2].T.contiguous().T, 0.4, box.T)
    assert torch.equal(expected[1], transposed[1])


def broken(value: float, atom: int) -> Tensor:
    positions = torch.rand((9, 3))
    positions[atom, 1] = value
    return positions


REFUSED: dict[str, tuple[Tensor, float, Tensor | None, str]] = {
    "NaN": (broken(math.nan, 4), 0.5, torch.eye(3), "position of atom 4 .*finite"),
    "infinity": (broken(math.inf, 8), 0.5, torch.eye(3), "position of atom 8 .*finite"),
    "NaN, open": (broken(math.nan, 0), 0.5, None, "position of atom 0 .*finite"),
    "infinity, open": (broken(-math.inf, 3), 0.5, None, "position of atom 3 .*finite"),
    "far outside": (broken(1e30, 2), 0.5, torch.eye(3), "position of atom 2 .*million box lengths"),
    "coplanar box": (torch.rand(9, 3), 0.5, torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]]), "no volume"),
    "zero box": (torch.rand(9, 3), 0.5, torch.zeros((3, 3)), "no volume"),
    "NaN box": (torch.rand(9, 3), 0.5, torch.full((3, 3), math.nan), "no volume"),
    "infinite box": (torch.rand(9, 3), 0.5, torch.eye(3) * math.inf, "no volume"),
    "zero cutoff": (torch.rand(9, 3), 0.0, torch.eye(3), "cutoff is 0"),
    "negative cutoff": (torch.rand(9, 3), -1.0, torch.eye(3), "cutoff is -1"),
    "NaN cutoff": (torch.rand(9, 3), math.nan, torch.eye(3), "cutoff is -?nan"),
    "infinite cutoff": (torch.rand(9, 3), math.inf, torch.eye(3), "cutoff is inf"),
    "cutoff over a million images": (torch.rand(9, 3), 100.0, torch.eye(3), "million images"),
    "cutoff of another unit": (torch.rand(300_000, 3), 9.0, torch.eye(3), "1e12 candidates of pairs.* the same unit"),
    "positions of two columns": (torch.rand(9, 2), 0.5, torch.eye(3), r"positions has shape \(9, 2\)"),
    "positions of one dimension": (torch.rand(9), 0.5, torch.eye(3), r"positions has shape \(9\)"),
    "box of two rows": (torch.rand(9, 3), 0.5, torch.eye(3)[:2], r"box_vectors has shape \(2, 3\)"),
    "box of lengths": (torch.rand(9, 3), 0.5, torch.ones(3), r"box_vectors has shape \(3\)"),
    "integers": (torch.ones((9, 3), dtype=torch.int64), 0.5, None, "float32 or float64"),
    "half precision": (torch.rand(9, 3).half(), 0.5, None, "float32 or float64"),
    "mixed dtypes": (torch.rand(9, 3), 0.5, torch.eye(3, dtype=torch.float64), "differ in dtype"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_input_is_refused_with_a_message_that_says_which(name: str) -> None:
    positions, cutoff, box, message = REFUSED[name]
    with pytest.raises(RuntimeError, match=message):
        neighbor_pairs(positions, cutoff, box)


def test_more_pairs_than_there_is_memory_for_are_counted_in_the_message() -> None:
    """16,000 atoms in one place are 2.6e8 pairs of 32 bytes, 8.19 GB; the process may take 2 GB more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 2_000_000_000, hard))
    try:
        with pytest.raises(RuntimeError, match=r"found 255984000 pairs of 16000 atoms within 1.0*, which take 8.19 GB"):
            neighbor_pairs(torch.zeros((16_000, 3)), 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
