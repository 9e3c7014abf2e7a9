"""The CUDA operators against the CPU operators, through PyTorch's dispatcher.

Every parity test runs twice: "emulated", where the grid emulator stands in for the GPU behind the very file that checks
arguments and allocates memory for CUDA (csrc/neighbors/cuda/ops_cuda.cpp), and "cuda" where there is a device.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from cuda_backends import HAS_DEVICE, WHY_NOT, Backend, gpu
from torch import Tensor

from openmm_gnn.graph.neighbor_list import NeighborList
from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs, pair_vectors

# Distances of pairs that only one side has may differ from the cutoff by rounding of positions of a few nm.
BAND = {torch.float32: 5e-6, torch.float64: 1e-13}
CUTOFF = 0.36  # 20 neighbours at the density of water's atoms
STORED, REQUIRED, REBUILDS, CALLS, ERRORS, VALID, BAD_ATOM = range(7)


def random_system(num_atoms: int, dtype: torch.dtype, triclinic: bool, seed: int = 0) -> tuple[Tensor, Tensor]:
    """100 atoms/nm^3 in a cell, some of the atoms up to two cells away from it."""
    generator = torch.Generator().manual_seed(seed)
    edge = (num_atoms / 100.0) ** (1 / 3)
    rows = [[edge, 0, 0], [0.4 * edge, edge, 0], [-0.3 * edge, 0.2 * edge, edge]] if triclinic else torch.eye(3) * edge
    box = torch.as_tensor(rows, dtype=torch.float64).to(dtype)
    fractions = torch.rand((num_atoms, 3), generator=generator, dtype=torch.float64)
    away = torch.randint(-2, 3, (num_atoms, 3), generator=generator) * (torch.arange(num_atoms) % 7 == 0)[:, None]
    return ((fractions + away) @ box.double()).to(dtype), box


def open_box(like: Tensor) -> Tensor:
    return torch.empty((0, 3), dtype=like.dtype, device=like.device)


def pair_keys(pairs: Tensor, shifts: Tensor) -> set[tuple[int, ...]]:
    rows = torch.cat([pairs.T.cpu(), shifts.long().cpu()], dim=1)
    keys = {tuple(row) for row in rows.tolist()}
    assert len(keys) == len(rows), "a pair twice"
    return keys


def assert_same_pairs(
    found: set[tuple[int, ...]], expected: set[tuple[int, ...]], positions: Tensor, box: Tensor, cutoff: float
) -> None:
    """Equal but for pairs at the cutoff to within rounding."""
    for i, j, *shift in found ^ expected:
        r = positions[j].double() - positions[i].double()
        if box.shape[0] == 3:
            r = r + torch.tensor(shift, dtype=torch.float64) @ box.double()
        assert abs(float(r.norm()) - cutoff) < BAND[positions.dtype], f"pair {(i, j, *shift)} at {float(r.norm())}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "num_atoms", [0, 1, 2, 31, 258, 1200, pytest.param(2048, marks=gpu), 2049, pytest.param(40_000, marks=gpu)]
)
def test_pairs_equal_those_of_the_cpu(backend: Backend, num_atoms: int, dtype: torch.dtype) -> None:
    for triclinic, full in ((False, True), (True, False)):
        positions, box = random_system(max(num_atoms, 1), dtype, triclinic)
        positions = positions[:num_atoms]
        expected, expected_shifts, _, _ = torch.ops.openmm_gnn.neighbor_pairs(positions, box, CUTOFF, full, False, 1)
        pairs, shifts, vectors, distances = backend.operators.neighbor_pairs(
            backend.place(positions), backend.place(box), CUTOFF, full, False, 1
        )
        assert pairs.dtype == torch.int64 and shifts.dtype == torch.int32 and pairs.device.type == backend.device.type
        assert len(vectors) == 0 and len(distances) == 0
        assert bool((pairs[0].diff() >= 0).all())
        assert_same_pairs(pair_keys(pairs, shifts), pair_keys(expected, expected_shifts), positions, box, CUTOFF)
        again, _, vectors, distances = backend.operators.neighbor_pairs(
            backend.place(positions), backend.place(box), CUTOFF, full, True, 1
        )
        assert torch.equal(again, pairs), "the order changes from call to call"
        truth = pair_vectors(positions.double(), pairs.cpu(), shifts.cpu(), box.double())
        assert torch.allclose(vectors.cpu().double(), truth, rtol=0, atol=BAND[dtype])
        assert torch.allclose(distances.cpu().double(), truth.norm(dim=1), rtol=0, atol=BAND[dtype])


def test_open_boundary_small_box_and_strided_input(backend: Backend) -> None:
    positions, box = random_system(300, torch.float64, True)
    for cell, cutoff in ((open_box(positions), CUTOFF), (box / 8, 0.5), (box, 1.7)):
        atoms = positions if cutoff == CUTOFF else positions[:20] / 8
        wide = torch.zeros((len(atoms), 7), dtype=atoms.dtype)
        wide[:, 1:7:2] = atoms
        expected = torch.ops.openmm_gnn.neighbor_pairs(atoms, cell, cutoff, True, False, 1)
        strided, turned = backend.place(wide)[:, 1:7:2], backend.place(cell.T.contiguous()).T
        pairs, shifts, _, _ = backend.operators.neighbor_pairs(strided, turned, cutoff, True, False, 1)
        assert len(expected[0][0]) > 20
        assert_same_pairs(pair_keys(pairs, shifts), pair_keys(*expected[:2]), atoms, cell, cutoff)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, b: (p.index_fill(0, torch.tensor([5, 9]), float("nan")), b), "position of atom 5"),
        (lambda p, b: (p.index_fill(0, torch.tensor([7]), 1e30), b), "atom 7 .* million box lengths"),
        (lambda p, b: (p, b[[0, 1, 1]]), "span no volume"),
        (lambda p, b: (p, b * 1e-4), "million images"),
        (lambda p, b: (p[:, :2], b), r"shape \(300, 2\)"),
        (lambda p, b: (p, b.double()), "dtype"),
        (lambda p, b: (p.half(), b.half()), "float32 or float64"),
        (lambda p, b: (p, b[:2]), r"shape \(2, 3\)"),
    ],
)
def test_errors_name_what_is_wrong(backend: Backend, change, message: str) -> None:
    positions, box = (backend.place(tensor) for tensor in change(*random_system(300, torch.float32, False)))
    with pytest.raises(RuntimeError, match=message):
        backend.operators.neighbor_pairs(positions, box, CUTOFF, True, True, 1)


@dataclass
class State:
    """The tensors that update_neighbor_list changes."""

    reference_positions: Tensor
    reference_box: Tensor
    stored_pairs: Tensor
    stored_shifts: Tensor
    status: Tensor

    @classmethod
    def empty(cls, like: Tensor, capacity: int) -> State:
        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=like.device)

        return cls(
            torch.zeros_like(like, memory_format=torch.contiguous_format),
            zeros(3, 3, dtype=like.dtype),
            zeros(2, capacity, dtype=torch.int32),
            zeros(capacity, 3, dtype=torch.int32),
            zeros(64, dtype=torch.int64),
        )

    def update(self, operators, positions: Tensor, box: Tensor, skin: float, full: bool, geometry: bool, trim: bool):
        return operators.update_neighbor_list(
            positions, box, CUTOFF, skin, full, geometry, trim, 1,
            self.reference_positions, self.reference_box, self.stored_pairs, self.stored_shifts, self.status,
        )  # fmt: skip


@pytest.mark.parametrize(("num_atoms", "full"), [(258, True), (258, False), (6500, False)])
def test_skin_list_follows_the_cpu_step_by_step(backend: Backend, num_atoms: int, full: bool) -> None:
    skin, dtype = 0.06, torch.float32
    positions, box = random_system(num_atoms, dtype, True)
    generator = torch.Generator().manual_seed(1)
    capacity = 60 * num_atoms
    here, there = State.empty(positions, capacity), State.empty(backend.place(positions), capacity)
    for step in range(7):
        positions = positions + 0.012 * (2 * torch.rand(positions.shape, generator=generator) - 1)
        if step == 3:
            positions[:40] += 2 * box[0] - box[2]
        if step == 5:
            box = box * 1.01
        geometry = step % 3 == 0
        expected = here.update(torch.ops.openmm_gnn, positions, box, skin, full, False, True)
        result = there.update(
            backend.operators, backend.place(positions), backend.place(box), skin, full, geometry, False
        )
        pairs, shifts, vectors, distances = (tensor.cpu() for tensor in result)
        assert pairs.shape[1] == capacity
        stored = there.status.tolist()
        assert stored[CALLS] == step + 1 and stored[ERRORS] == 0 and stored[VALID] == 1
        assert stored[REBUILDS] == here.status.tolist()[REBUILDS]
        used = pairs[0] >= 0
        assert int(used.sum()) == stored[STORED]
        if geometry:
            assert torch.equal(distances[~used], torch.full_like(distances[~used], 2 * (CUTOFF + skin)))
            near = distances[used] < CUTOFF
            expected_vectors = pair_vectors(positions, expected[0], expected[1], box)
            assert near.sum() == pytest.approx(expected[0].shape[1], abs=3)
            total, expected_total = vectors[used][near].abs().sum(), expected_vectors.abs().sum()
            assert float(total) == pytest.approx(float(expected_total), rel=1e-4)
        else:
            r = pair_vectors(positions, pairs[:, used], shifts[used], box)
            near = r.norm(dim=1) < CUTOFF
            found = pair_keys(pairs[:, used][:, near], shifts[used][near])
            assert_same_pairs(found, pair_keys(expected[0], expected[1]), positions, box, CUTOFF)
    assert 2 <= int(here.status[REBUILDS]) < 7


def test_overflow_and_nan_are_status_bits(backend: Backend) -> None:
    positions, box = (backend.place(tensor) for tensor in random_system(258, torch.float32, False))
    exact = State.empty(positions, 20_000)
    exact.update(backend.operators, positions, box, 0.1, True, True, False)
    required = int(exact.status[STORED])
    full = State.empty(positions, required)
    full.update(backend.operators, positions, box, 0.1, True, True, False)
    assert full.status.tolist()[:6] == [required, required, 1, 1, 0, 1]
    short = State.empty(positions, required - 1)
    pairs, _, _, distances = short.update(backend.operators, positions, box, 0.1, True, True, False)
    assert short.status.tolist()[:6] == [0, required, 1, 1, 1, 0]
    assert bool((pairs == -1).all()) and bool((distances > CUTOFF + 0.1).all())
    with pytest.raises(RuntimeError, match="a list on CUDA has the shape of its capacity: give trim = false"):
        short.update(backend.operators, positions, box, 0.1, True, True, True)
    bad = positions.clone()
    bad[11, 2] = float("inf")
    exact.update(backend.operators, bad, box, 0.1, True, True, False)
    assert exact.status[ERRORS] == 2 and exact.status[BAD_ATOM] == 11 and exact.status[VALID] == 0
    exact.update(backend.operators, positions, box, 0.1, True, True, False)
    assert exact.status[VALID] == 1


# ---- what only a device can show ------------------------------------------------------------------------------------


def on_gpu(num_atoms: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    positions, box = random_system(num_atoms, dtype, True)
    return positions.cuda(), box.cuda()


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_DEVICE, reason=WHY_NOT)
@pytest.mark.parametrize("num_atoms", [72_279, 1_000_000])
def test_large_systems_on_the_gpu(num_atoms: int) -> None:
    positions, box = on_gpu(num_atoms)
    pairs, _, distances = neighbor_pairs(positions, CUTOFF, box)
    expected, _, expected_distances = neighbor_pairs(positions.cpu(), CUTOFF, box.cpu())
    assert pairs.shape[1] == pytest.approx(expected.shape[1], abs=20)
    assert float(distances.double().sum()) == pytest.approx(float(expected_distances.double().sum()), rel=1e-6)
    neighbors = torch.bincount(pairs[0].cpu(), minlength=num_atoms)
    assert int((neighbors != torch.bincount(expected[0], minlength=num_atoms)).sum()) <= 40


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_DEVICE, reason=WHY_NOT)
@pytest.mark.parametrize("num_atoms", [258, 20_000])
def test_neighbor_list_in_a_cuda_graph_rebuilds_by_itself(num_atoms: int) -> None:
    positions, box = on_gpu(num_atoms)
    neighbors = NeighborList(CUTOFF, skin=0.05, max_neighbors=40)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        neighbors(positions, box)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        pairs, _, distances = neighbors(positions, box)
    rebuilds = []
    for _ in range(6):
        positions += 0.01 * (2 * torch.rand_like(positions) - 1)
        graph.replay()
        rebuilds.append(int(neighbors.status[REBUILDS]))
        _, _, fresh = neighbor_pairs(positions, CUTOFF, box, full=False)
        within = distances[(pairs[0] >= 0) & (distances < CUTOFF)].double()
        assert len(within) == pytest.approx(len(fresh), abs=3)
        assert float(within.sum()) == pytest.approx(float(fresh.double().sum()), rel=1e-4)
    assert rebuilds[-1] > rebuilds[0], "no replay rebuilt the list, so nothing was tested"
    box *= 1.02
    graph.replay()
    assert int(neighbors.status[REBUILDS]) == rebuilds[-1] + 1


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_DEVICE, reason=WHY_NOT)
@pytest.mark.parametrize("number", [258, -2, 2**31 - 1])
def test_no_stored_number_is_taken_for_an_atom_that_is_not_there(number: int) -> None:
    positions, box = on_gpu(258)
    neighbors = NeighborList(CUTOFF, skin=0.05, max_neighbors=40)
    before, _, _ = neighbors(positions, box)
    neighbors.stored_pairs[0, 5] = number
    pairs, _, distances = neighbors(positions, box)
    assert (pairs[:, 5] == -1).all() and bool(distances.isnan().all())
    with pytest.raises(RuntimeError, match="are of another list"):
        neighbors.check()
    assert torch.equal(neighbors(positions, box)[0], before)  # found anew


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_DEVICE, reason=WHY_NOT)
@pytest.mark.parametrize("num_atoms", [258, 20_000])
def test_neighbor_list_never_waits_for_the_device(num_atoms: int) -> None:
    positions, box = on_gpu(num_atoms)
    neighbors = torch.jit.script(NeighborList(CUTOFF, skin=0.05, max_neighbors=40))
    neighbors(positions, box)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            positions = positions + 0.03
            neighbors(positions, box)
        positions.requires_grad_()
        neighbors(positions, box)[2].sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert bool(torch.isfinite(positions.grad).all())


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not HAS_DEVICE, reason=WHY_NOT)
def test_a_million_steps_leak_nothing_and_no_list_grows_stale() -> None:
    """A random walk of 258 atoms, drawn back to where they began, list and all in one CUDA graph."""
    start, box = on_gpu(258)
    positions, neighbors = start.clone(), NeighborList(CUTOFF, skin=0.05, max_neighbors=40)
    distances = torch.zeros(258 * 40, device="cuda")

    def step() -> None:
        positions.add_(0.002 * torch.randn_like(positions) + 0.01 * (start - positions))
        distances.copy_(neighbors(positions, box)[2])

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    held = torch.cuda.memory_allocated()
    for _ in range(20):
        for _ in range(50_000):
            graph.replay()
        neighbors.check()
        fresh = neighbor_pairs(positions, CUTOFF, box, full=False)[2].double()
        near = distances[distances < CUTOFF].double()
        assert len(near) == pytest.approx(len(fresh), abs=3)
        assert float(near.sum()) == pytest.approx(float(fresh.sum()), rel=1e-4)
        del fresh, near
    assert torch.cuda.memory_allocated() == held
    assert 1000 < int(neighbors.status[REBUILDS]) < 1_000_000


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_DEVICE, reason=WHY_NOT)
def test_exact_list_in_a_cuda_graph_says_what_to_use_instead() -> None:
    positions, box = on_gpu(258)
    neighbor_pairs(positions, CUTOFF, box)
    with pytest.raises(RuntimeError, match="use NeighborList"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        neighbor_pairs(positions, CUTOFF, box)


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_DEVICE or torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_the_device_of_the_tensors_is_used() -> None:
    positions, box = on_gpu(258)
    first = neighbor_pairs(positions, CUTOFF, box)
    second = neighbor_pairs(positions.to("cuda:1"), CUTOFF, box.to("cuda:1"))
    assert torch.cuda.current_device() == 0
    assert all(torch.equal(a, b.to("cuda:0")) for a, b in zip(first, second, strict=True))
