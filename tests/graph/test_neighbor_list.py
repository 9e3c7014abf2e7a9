"""NeighborList against fresh pair lists along trajectories, in eager mode and TorchScript."""

from __future__ import annotations

import copy
import io
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import NeighborOverflowError
from openmm_gnn.graph.neighbor_list import ERROR_OVERFLOW, ERROR_STORED, STATUS_ERRORS, STATUS_REQUIRED, NeighborList
from openmm_gnn.kernels import neighbor_pairs, reference_neighbor_pairs

DTYPES = [torch.float32, torch.float64]
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12}
BOX = torch.tensor([[1.9, 0.0, 0.0], [0.5, 1.8, 0.0], [-0.4, 0.6, 2.0]], dtype=torch.float64)
CUTOFF, SKIN = 0.5, 0.1


def scripted(module: NeighborList) -> torch.jit.ScriptModule:
    return torch.jit.script(module.eval())


def loaded(module: NeighborList) -> torch.jit.ScriptModule:
    buffer = io.BytesIO()
    torch.jit.save(scripted(module), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


def frozen(module: NeighborList) -> torch.jit.ScriptModule:
    return torch.jit.freeze(loaded(module), preserved_attrs=["num_rebuilds", "num_calls"])


FORMS = {"eager": lambda module: module, "scripted": scripted, "loaded": loaded, "frozen": frozen}


def rows(pairs: Tensor, vectors: Tensor) -> Tensor:
    """(i, j, r_ij) in an order that does not depend on how they were found."""
    table = torch.cat([pairs.T.double(), vectors.detach().double()], dim=1)
    for column in (4, 3, 2, 1, 0):
        values = table[:, column].round(decimals=4) if column > 1 else table[:, column]
        table = table[values.argsort(stable=True)]
    return table


def assert_fresh(
    result: tuple[Tensor, Tensor, Tensor], positions: Tensor, box: Tensor | None, full: bool = False
) -> None:
    """The list's pairs are those a search from scratch finds, but for pairs within rounding of the cutoff."""
    tolerance = TOLERANCE[positions.dtype]
    pairs, vectors, distances = result
    assert vectors.dtype == distances.dtype == positions.dtype
    inner, _, inner_vectors, _ = reference_neighbor_pairs(positions, CUTOFF - tolerance, box, full)
    outer, _, _, _ = reference_neighbor_pairs(positions, CUTOFF + tolerance, box, full)
    sure = distances < CUTOFF - tolerance
    assert inner.shape[1] <= pairs.shape[1] <= outer.shape[1]
    if inner.shape[1] == pairs.shape[1]:
        ours, truth = rows(pairs, vectors), rows(inner, inner_vectors)
        torch.testing.assert_close(ours, truth, rtol=0, atol=tolerance)
    else:
        assert int(sure.sum()) <= inner.shape[1] + 2
    torch.testing.assert_close(distances, vectors.norm(dim=1), rtol=0, atol=tolerance)


def walk(generator: torch.Generator, positions: Tensor, box: Tensor, num_steps: int) -> list[tuple[Tensor, Tensor]]:
    """Diffusing atoms; molecules of four jump by lattice vectors; a barostat tries, and mostly takes back."""
    frames = []
    num_atoms = len(positions)
    for step in range(num_steps):
        positions = positions + 0.008 * torch.randn(positions.shape, generator=generator, dtype=torch.float64)
        if step % 7 == 3:
            jumps = torch.randint(-2, 3, (math.ceil(num_atoms / 4), 3), generator=generator).double()
            positions = positions + jumps.repeat_interleave(4, dim=0)[:num_atoms] @ box
        frames.append((positions, box))
        if step % 11 == 5:  # a trial of the barostat, rejected: the next frame has the old box and positions again
            frames.append((positions * 1.01, box * 1.01))
            frames.append((positions, box))
        if step == num_steps // 2:  # one accepted
            positions, box = positions * 0.99, box * 0.99
    return frames


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_list_equals_a_fresh_one_at_every_step(form: str, dtype: torch.dtype, full: bool) -> None:
    generator = torch.Generator().manual_seed(4)
    positions = torch.rand((120, 3), generator=generator, dtype=torch.float64) @ BOX
    module = FORMS[form](NeighborList(CUTOFF, SKIN, full=full))
    frames = walk(generator, positions, BOX, 45)
    for index, (frame, box) in enumerate(frames):
        frame, box = frame.to(dtype), box.to(dtype)
        assert_fresh(module(frame, box), frame, box, full)
        if index % 5 == 0:  # with gradients the vectors are tensor operations: the same pairs
            pairs, vectors, distances = module(frame.clone().requires_grad_(), box)
            assert vectors.requires_grad and distances.requires_grad
            assert_fresh((pairs, vectors.detach(), distances.detach()), frame, box, full)
    assert module.num_calls() == len(frames) + math.ceil(len(frames) / 5)
    assert 5 < module.num_rebuilds() < 0.7 * len(frames)


@pytest.mark.parametrize("dtype", DTYPES)
def test_moves_by_lattice_vectors_cause_no_rebuild(dtype: torch.dtype) -> None:
    box = BOX.to(dtype)
    positions = torch.rand((100, 3), dtype=dtype) @ box
    module = NeighborList(CUTOFF, SKIN)
    module(positions, box)
    for _ in range(5):
        moved = positions + torch.randint(-3, 4, (100, 3)).to(dtype) @ box
        assert_fresh(module(moved, box), moved, box)
    assert module.num_rebuilds() == 1


def test_rebuilds_only_after_half_a_skin_or_another_box() -> None:
    positions = torch.rand((50, 3), dtype=torch.float64) @ BOX
    module = NeighborList(CUTOFF, SKIN)
    module(positions, BOX)
    moved = positions.clone()
    moved[7, 1] += 0.49 * SKIN
    module(moved, BOX)
    assert module.num_rebuilds() == 1
    moved[7, 1] += 0.02 * SKIN
    module(moved, BOX)
    assert module.num_rebuilds() == 2
    module(moved, BOX * (1 + 1e-12))
    module(moved, BOX)
    assert module.num_rebuilds() == 4
    module(moved, BOX)
    module(moved)  # open boundary is another box too
    assert_fresh(module(moved), moved, None)
    module(moved, BOX)
    assert module.num_rebuilds() == 6
    assert module.num_calls() == 9


@pytest.mark.parametrize("form", FORMS)
def test_number_of_atoms_and_dtype_may_change(form: str) -> None:
    module = FORMS[form](NeighborList(CUTOFF, SKIN))
    for num_atoms in (10, 90, 1, 0, 40):
        for dtype in DTYPES:
            box = BOX.to(dtype)
            positions = torch.rand((num_atoms, 3), dtype=dtype) @ box
            assert_fresh(module(positions, box), positions, box)


def test_no_skin_rebuilds_at_every_move() -> None:
    module = NeighborList(CUTOFF, skin=0.0)
    positions = torch.rand((30, 3), dtype=torch.float64) @ BOX
    for _ in range(4):
        assert_fresh(module(positions, BOX), positions, BOX)
        assert_fresh(module(positions, BOX), positions, BOX)
        positions = positions + 1e-9
    assert module.num_rebuilds() == 4


def test_cutoff_beyond_the_box_has_all_images() -> None:
    positions = torch.rand((6, 3), dtype=torch.float64) @ (BOX / 6)
    module = NeighborList(CUTOFF, SKIN, max_neighbors=500)
    for _ in range(8):
        assert_fresh(module(positions, BOX / 6), positions, BOX / 6)
        positions = positions + 0.01 * torch.randn_like(positions)


@pytest.mark.parametrize("form", list(FORMS))
def test_a_large_list_of_fixed_shape_makes_room_for_a_third_more_than_it_finds(form: str) -> None:
    generator = torch.Generator().manual_seed(2)
    num_atoms, box = 6000, torch.eye(3) * 4.0  # 94 atoms per nm^3, and a room of half a million slots
    positions = 4.0 * torch.rand((num_atoms, 3), generator=generator)
    module = NeighborList(0.3, 0.05, max_neighbors=100, static_shape=True)
    stored = neighbor_pairs(positions, 0.35, box, False)[0].shape[1]
    listed = FORMS[form](module)
    for _ in range(3):
        pairs, _, distances = listed(positions, box)
        assert pairs.shape[1] == stored * 4 // 3 + 1 < 100 * num_atoms
        close = distances < 0.3
        assert int(close.sum()) == neighbor_pairs(positions, 0.3, box, False)[0].shape[1]
        positions = positions + 0.02 * torch.randn(positions.shape, generator=generator)
    with pytest.raises(RuntimeError, match=f"capacity {pairs.shape[1]}"):
        listed(0.8 * positions, 0.8 * box)  # half again as dense


def test_a_list_that_became_too_dense_says_so_where_it_could_not_wait() -> None:
    module = NeighborList(0.3, 0.05, max_neighbors=100, static_shape=True)
    module(torch.rand((6000, 3)) * 4.0, torch.eye(3) * 4.0)
    module.status[STATUS_ERRORS], module.status[STATUS_REQUIRED] = ERROR_OVERFLOW, 100_000  # as on CUDA
    with pytest.raises(NeighborOverflowError, match="closer than at the first call, .* begin a new run from here"):
        module.check()


def exact_capacity(full: bool) -> tuple[Tensor, int]:
    """Two atoms with their images, and the number of stored pairs per unit of capacity, which is whole."""
    positions = torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0.5]], dtype=torch.float64)
    pairs, _, _ = neighbor_pairs(positions, CUTOFF + SKIN, torch.eye(3, dtype=torch.float64) * 0.55, full)
    units = 4 if full else 2
    assert pairs.shape[1] % units == 0
    return positions, pairs.shape[1] // units


@pytest.mark.parametrize("full", [False, True])
def test_capacity_may_be_exactly_full_and_one_short_is_an_error(full: bool) -> None:
    positions, needed = exact_capacity(full)
    box = torch.eye(3, dtype=torch.float64) * 0.55
    module = NeighborList(CUTOFF, SKIN, max_neighbors=needed, full=full)
    assert_fresh(module(positions, box), positions, box, full)
    stored = needed * (4 if full else 2)
    message = (
        rf"found {stored} neighbour pairs of 2 atoms .* capacity {stored - (4 if full else 2)}: .*at least {needed}"
    )
    short = NeighborList(CUTOFF, SKIN, max_neighbors=needed - 1, full=full)
    with pytest.raises(NeighborOverflowError, match=message):
        short(positions, box)
    short.status[STATUS_ERRORS] = ERROR_OVERFLOW  # as on CUDA, which does not wait to say so
    with pytest.raises(NeighborOverflowError, match=message):
        short.check()
    for form in ("scripted", "frozen"):
        module = FORMS[form](NeighborList(CUTOFF, SKIN, max_neighbors=needed - 1, full=full))
        for _ in range(2):  # never silently short, at no later call either
            with pytest.raises(RuntimeError, match=message):
                module(positions, box)
    # A list that overflowed serves again where it suffices.
    apart = positions * 50
    assert short(apart)[0].shape == (2, 0)


@pytest.mark.parametrize("form", ["eager", "frozen"])
def test_positions_that_are_not_finite_are_an_error_also_between_rebuilds(form: str) -> None:
    module = FORMS[form](NeighborList(CUTOFF, SKIN))
    positions = torch.rand((20, 3)) @ BOX.float()
    module(positions, BOX.float())
    for value in (math.nan, math.inf):
        broken = positions.clone()
        broken[13, 2] = value
        with pytest.raises(RuntimeError, match="position of atom 13"):
            module(broken, BOX.float())
    assert_fresh(module(positions, BOX.float()), positions, BOX.float())
    with pytest.raises(RuntimeError, match="no volume"):
        module(positions, torch.zeros((3, 3)))


@pytest.mark.parametrize(
    "arguments", [{"cutoff": 0.0}, {"cutoff": 0.5, "skin": -0.1}, {"cutoff": 0.5, "max_neighbors": 0}]
)
def test_wrong_settings_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"give"):
        NeighborList(**arguments)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_static_shape_pads_and_agrees_with_the_trimmed_list(form: str, dtype: torch.dtype) -> None:
    box = BOX.to(dtype)
    positions = torch.rand((60, 3), dtype=dtype) @ box
    module = FORMS[form](NeighborList(CUTOFF, SKIN, max_neighbors=30, static_shape=True))
    for step in range(6):
        if step % 2:
            positions = positions + 0.01 * torch.randn_like(positions) + torch.randint(-1, 2, (60, 3)).to(dtype) @ box
        frame = positions.clone().requires_grad_(step >= 3)
        pairs, vectors, distances = module(frame, box)
        assert pairs.shape == (2, 1800) and vectors.shape == (1800, 3) and distances.shape == (1800,)
        unused = pairs[0] < 0
        assert bool((pairs[:, unused] == -1).all()) and bool(unused.any())
        assert bool((distances[unused] > CUTOFF + SKIN).all())
        close = distances < CUTOFF
        assert_fresh((pairs[:, close], vectors[close].detach(), distances[close].detach()), positions, box)
        if step >= 3:
            gradient = torch.autograd.grad(distances[unused].sum() + vectors[unused].sum(), frame)[0]
            assert bool((gradient == 0).all())


@pytest.mark.parametrize("static_shape", [False, True])
@pytest.mark.parametrize("form", ["eager", "frozen"])
def test_derivatives_in_positions_and_box(form: str, static_shape: bool) -> None:
    module = FORMS[form](NeighborList(0.9, SKIN, max_neighbors=80, static_shape=static_shape))
    positions = (torch.rand((5, 3), dtype=torch.float64) @ (BOX / 2)).requires_grad_()
    box = (BOX / 2).clone().requires_grad_()

    def energy(x: Tensor, h: Tensor) -> Tensor:
        _, vectors, distances = module(x, h)
        weight = (1.0 - distances / 0.9).clamp(min=0) ** 4
        return (weight * torch.sin(vectors * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)).sum(1)).sum()

    assert torch.autograd.gradcheck(energy, (positions, box))
    assert torch.autograd.gradgradcheck(energy, (positions, box))


def test_copies_have_a_state_of_their_own() -> None:
    first = NeighborList(CUTOFF, SKIN)
    positions = torch.rand((30, 3), dtype=torch.float64) @ BOX
    first(positions, BOX)
    second = copy.deepcopy(first)
    other = torch.rand((30, 3), dtype=torch.float64) @ BOX
    for _ in range(2):
        assert_fresh(second(other, BOX), other, BOX)
        assert_fresh(first(positions, BOX), positions, BOX)
    assert first.num_rebuilds() == 1 and second.num_rebuilds() == 2
    assert len(first.state_dict()) == 0


class TwoLists(nn.Module):
    """A module that holds a list, as a model does."""

    def __init__(self) -> None:
        super().__init__()
        self.neighbors = NeighborList(CUTOFF, SKIN)

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        _, _, distances = self.neighbors(positions, box)
        return ((distances / 0.5 - 1.0) ** 2).sum()


def test_scripted_model_gives_forces_whether_or_not_gradients_were_asked_before() -> None:
    model = torch.jit.freeze(torch.jit.script(TwoLists().eval()))
    positions = torch.rand((40, 3), dtype=torch.float64) @ BOX
    for _ in range(12):
        positions = positions + 0.01 * torch.randn_like(positions)
        with torch.no_grad():
            plain = model(positions, BOX)
        moved = positions.clone().requires_grad_()
        energy = model(moved, BOX)
        (gradient,) = torch.autograd.grad(energy, moved)
        reference = positions.clone().requires_grad_()
        _, _, distances = neighbor_pairs(reference, CUTOFF, BOX, full=False)
        expected = ((distances / 0.5 - 1.0) ** 2).sum()
        torch.testing.assert_close(plain, expected.detach())
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, reference)[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_large_list_is_bitwise_the_same_for_any_number_of_threads(dtype: torch.dtype) -> None:
    box = torch.eye(3, dtype=dtype) * 6
    start = torch.rand((41_000, 3), dtype=dtype) @ box
    steps = [0.01 * torch.randn((41_000, 3), dtype=dtype) + 6.0 * step for step in range(2)]
    threads = torch.get_num_threads()
    results = []
    try:
        for num_threads in (1, 2, 3):
            torch.set_num_threads(num_threads)
            module = NeighborList(0.25, 0.2, max_neighbors=60)
            results.append([module(start + step, box) for step in [0, *steps]])
            results[-1].append(module((start + steps[1]).requires_grad_(), box))
            assert module.num_rebuilds() == 1
    finally:
        torch.set_num_threads(threads)
    assert results[0][0][0].shape[1] > 100_000
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_threads_that_share_a_list_each_get_the_pairs_of_their_own_positions() -> None:
    """Four threads move it from one conformation to another, and from one number of atoms to another, as they go."""
    module, box = NeighborList(0.35, 0.1), torch.eye(3)

    def walk(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for step in range(60):
            positions = torch.rand((150 if step % 8 else 150 + seed, 3), generator=generator)
            pairs, _, distances = module(positions, box)
            expected_pairs, _, expected = neighbor_pairs(positions, 0.35, box, full=False)
            assert pairs.shape == expected_pairs.shape and int(pairs.max()) < len(positions)
            torch.testing.assert_close(distances.sort().values, expected.sort().values, rtol=0, atol=1e-6)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(walk, range(4)))


@pytest.mark.parametrize("static_shape", [False, True])
@pytest.mark.parametrize(
    ("tensor", "value", "message"),
    [
        ("status", 10**9, "status says that 1000000000 pairs are stored, of 4800"),
        ("status", -1, "status says that -1 pairs"),
        ("stored_pairs", 50, r"stored pair 0 is \(50, .*50 atoms, so stored_pairs belongs to another list"),
        ("stored_pairs", -2, r"stored pair 0 is \(-2, "),
    ],
)
def test_the_state_of_another_list_is_refused(static_shape: bool, tensor: str, value: int, message: str) -> None:
    positions, module = torch.rand((50, 3)), NeighborList(0.4, 0.1, static_shape=static_shape)
    module(positions, torch.eye(3))
    getattr(module, tensor).view(-1)[0] = value
    with pytest.raises(RuntimeError, match=message):
        module(positions, torch.eye(3))


def test_the_state_of_another_list_is_said_by_check() -> None:
    """As after a call on CUDA, which cannot refuse."""
    module = NeighborList(0.4, 0.1)
    module(torch.rand((50, 3)), torch.eye(3))
    module.status[STATUS_ERRORS] = ERROR_STORED
    with pytest.raises(RuntimeError, match="of another list than one of 50 atoms and 4800 pairs: make a new NeighborL"):
        module.check()
