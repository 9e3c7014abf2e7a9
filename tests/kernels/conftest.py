"""Comparison of a pair list with the image sum, rigorous about rounding; and the CUDA operators, emulated or not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from compiled_files import compiled
from cuda_backends import CUDA_ALONE, ENCODERS, PAIRS, Backend, gpu
from torch import Tensor
from torch.utils.cpp_extension import include_paths, library_paths

from openmm_gnn.kernels import neighbor_pairs, reference_neighbor_pairs

Check = Callable[..., int]
EMULATOR = Path(__file__).parent / "emulator" / "emulated_ops.cpp"


def pair_keys(pairs: Tensor, shifts: Tensor) -> Tensor:
    """One integer for each (i, j, shift), sorted; needs fewer than 2^13 atoms and shifts within +-2^10."""
    assert shifts.numel() == 0 or int(shifts.abs().max()) < 1 << 10
    shifts = shifts.long() + (1 << 10)
    key = (pairs[0] << 13 | pairs[1]) << 33 | shifts[:, 0] << 22 | shifts[:, 1] << 11 | shifts[:, 2]
    return key.sort().values


def raw_pairs(positions: Tensor, cutoff: float, box: Tensor | None, full: bool) -> tuple[Tensor, Tensor]:
    """Pairs and shifts straight from the operator."""
    box_tensor = positions.new_empty((0, 3)) if box is None else box
    pairs, shifts, vectors, distances = torch.ops.openmm_gnn.neighbor_pairs(
        positions, box_tensor, cutoff, full, False, 1
    )
    assert vectors.shape == (0, 3) and distances.shape == (0,)
    return pairs, shifts


def rounding(positions: Tensor, cutoff: float, box: Tensor | None) -> float:
    """How much a distance may be off: some roundings of a wrapped coordinate and of a lattice translation.

    A coordinate brought into the box is exact to half an ulp of the box's size, one of a translated image to half an
    ulp of the cutoff plus the box; eight of these, with room, for the three components of a difference.
    """
    epsilon = torch.finfo(positions.dtype).eps
    size = float(positions.abs().max()) if box is None else float(box.abs().sum())
    return 8 * epsilon * (size + cutoff)


@pytest.fixture
def matches_reference() -> Check:
    def check(positions: Tensor, cutoff: float, box: Tensor | None) -> int:
        """Compares full and half list, operator and wrapper, with the image sum; returns the number of pairs."""
        tolerance = rounding(positions, cutoff, box) if positions.numel() else 0.0
        pairs, shifts = raw_pairs(positions, cutoff, box, True)
        possible, possible_shifts, _, distances = reference_neighbor_pairs(positions, cutoff + tolerance, box)
        certain = distances < cutoff - tolerance
        found = pair_keys(pairs, shifts)
        assert bool((found.diff() > 0).all()), "a pair is listed twice"
        missing = ~torch.isin(pair_keys(possible[:, certain], possible_shifts[certain]), found, assume_unique=True)
        assert not missing.any(), f"{int(missing.sum())} of {len(missing)} pairs are missing"
        foreign = ~torch.isin(found, pair_keys(possible, possible_shifts), assume_unique=True)
        assert not foreign.any(), f"{int(foreign.sum())} of {len(found)} pairs do not belong"
        assert bool((pairs[0].diff() >= 0).all()), "not ordered by i"

        # Symmetric to the bit: every pair is there in both directions, and the half list has one of them.
        reverse = pair_keys(pairs.flip(0), -shifts)
        assert torch.equal(reverse, found)
        half_pairs, half_shifts = raw_pairs(positions, cutoff, box, False)
        assert bool((half_pairs[0] <= half_pairs[1]).all())
        both = torch.cat([pair_keys(half_pairs, half_shifts), pair_keys(half_pairs.flip(0), -half_shifts)])
        assert torch.equal(both.sort().values, found)

        # Vectors and distances of the fused pass against float64 from the raw positions.
        exact = positions.double()
        for full, reference, reference_shifts in ((True, pairs, shifts), (False, half_pairs, half_shifts)):
            listed, vectors, lengths = neighbor_pairs(positions, cutoff, box, full)
            assert torch.equal(listed, reference)
            expected = exact[reference[1]] - exact[reference[0]]
            if box is not None:
                expected = expected + reference_shifts.double() @ box.double()
            assert vectors.dtype == lengths.dtype == positions.dtype
            torch.testing.assert_close(vectors.double(), expected, rtol=0, atol=tolerance)
            torch.testing.assert_close(lengths.double(), expected.norm(dim=1), rtol=0, atol=2 * tolerance)
            assert bool((lengths <= cutoff).all())
        return len(found)

    return check


@pytest.fixture(scope="session")
def emulated() -> Backend:
    """The grid emulator; with OPENMM_GNN_EMULATOR=threads real threads, under the thread sanitizer."""
    threads = os.environ.get("OPENMM_GNN_EMULATOR") == "threads"
    how = ("-Og", "-g1", "-fsanitize=thread", "-DOPENMM_GNN_REAL_THREADS") if threads else ("-Og",)
    target = compiled(
        *(EMULATOR, *how, "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off", "-DUSE_CUDA"),
        "-DTORCH_TARGET_VERSION=0x0209000000000000",
        *(f"-I{path}" for path in include_paths()),
        *(f"-L{path}" for path in library_paths()),
        "-ltorch_cpu",
    )
    torch.ops.load_library(target)
    return Backend(torch.ops.openmm_gnn_emulated, torch.device("cpu"))


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=gpu)])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "emulated":
        if request.node.get_closest_marker("gpu") is not None:
            pytest.skip("for a device: the emulator is too slow for it")
        return request.getfixturevalue("emulated")
    return Backend(torch.ops.openmm_gnn, torch.device("cuda"))


@pytest.fixture
def device(backend: Backend) -> Iterator[torch.device]:
    """Where the package's own code finds the operators of CUDA; the emulated ones take the place of the CPU's."""
    if backend.device.type == "cuda":
        yield backend.device
        return
    stand_in = torch.library.Library("openmm_gnn", "IMPL")
    for name in (*CUDA_ALONE, *ENCODERS, *PAIRS):
        stand_in.impl(name, getattr(backend.operators, name), "CPU", allow_override=name not in CUDA_ALONE)
    yield backend.device
    stand_in._destroy()
