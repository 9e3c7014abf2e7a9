"""CUDA's search of many frames at once: the edges of `encoder_edges` on the CPU, frame by frame, in the same order.

Each runs in the grid emulator, threads and blocks in random order, and on a device where there is one.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cuda_backends import Backend, gpu
from torch import Tensor
from without_waiting import WithoutWaiting

from openmm_gnn.graph.edges import MOST_FRAME_ATOMS, edges_frame_by_frame, edges_in_one_search, encoder_edges
from openmm_gnn.networks.tokens import residue_graph

CUTOFF = 3.0
RULES = ("full", "index", "nearest")
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14}
"""Of vectors and distances of some angstroms, and of the gradients of their sums relative to the largest."""


def frames_of(sizes: list[int], dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Positions and frames of random atoms, 0.08 in a unit of volume, each frame far from the origin."""
    generator = np.random.default_rng(seed)
    clouds = [generator.uniform(0, (max(size, 1) / 0.08) ** (1 / 3), (size, 3)) + 20.0 for size in sizes]
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return torch.from_numpy(np.concatenate(clouds)).to(dtype), batch


def found_by(
    backend: Backend, positions: Tensor, batch: Tensor | None, cutoff: float, rule: str, most: int
) -> list[list[int]]:
    """Sources and targets by the operator."""
    frames = torch.empty(0, dtype=torch.int64) if batch is None else batch
    index = backend.operators.frame_edges(  # type: ignore[attr-defined]
        backend.place(positions), backend.place(frames), cutoff, 0 if rule == "full" else most, rule == "nearest"
    )
    assert index.dtype == torch.int64 and index.is_contiguous()
    return index.tolist()


def truth(positions: Tensor, batch: Tensor | None, cutoff: float, rule: str, most: int) -> list[list[int]]:
    return encoder_edges(positions, cutoff, rule, most, batch)[0].tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", RULES)
def test_edges_of_frames_of_all_sizes_are_those_of_one_search_for_each(
    backend: Backend, rule: str, dtype: torch.dtype
) -> None:
    """With frames of no atoms at the begin, in between and before the last."""
    positions, batch = frames_of([0, 40, 1, 291, 0, 0, 7, 3000, 2, 0, 33], dtype)
    found = found_by(backend, positions, batch, CUTOFF, rule, 8)
    assert found == truth(positions, batch, CUTOFF, rule, 8)
    assert found == found_by(backend, positions, batch, CUTOFF, rule, 8)
    neighbours = torch.tensor(found[1]).bincount()
    assert int(neighbours.min()) == 1
    assert int(neighbours.max()) > 8 if rule == "full" else int(neighbours.max()) == 8


@pytest.mark.parametrize("num_atoms", [1, 2, 291, 5000])
@pytest.mark.parametrize("rule", RULES)
def test_edges_of_one_frame_are_those_of_a_search(backend: Backend, rule: str, num_atoms: int) -> None:
    positions, _ = frames_of([num_atoms])
    assert found_by(backend, positions, None, CUTOFF, rule, 12) == truth(positions, None, CUTOFF, rule, 12)


@pytest.mark.parametrize("most", [1, 2, 7, 19, 500])
@pytest.mark.parametrize("rule", ["index", "nearest"])
def test_of_equally_near_neighbours_the_first_by_index_are_kept(backend: Backend, rule: str, most: int) -> None:
    """A lattice, with more to keep than there are and less; its frames numbered with gaps up to the largest number."""
    line = torch.arange(5, dtype=torch.float32)
    lattice = torch.cartesian_prod(line, line, line)
    batch = torch.tensor([3, 4, 700, torch.iinfo(torch.int64).max]).repeat_interleave(125)
    counted = torch.arange(4).repeat_interleave(125)
    found = found_by(backend, lattice.repeat(4, 1), batch, 2.1, rule, most)
    assert found == truth(lattice.repeat(4, 1), counted, 2.1, rule, most)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("cutoff", "edges"), [(1.0, 64), (2.0, 64 + 288 + 432 + 216), (1e-30, 64)])
def test_atoms_exactly_at_the_cutoff_are_no_neighbours(
    backend: Backend, cutoff: float, edges: int, dtype: torch.dtype
) -> None:
    """A cube of 4^3 atoms; the square of the last cutoff is zero in float32, and yet an atom hears itself."""
    line = torch.arange(4, dtype=dtype)
    lattice = torch.cartesian_prod(line, line, line)
    found = found_by(backend, lattice, None, cutoff, "full", 0)
    assert found == truth(lattice, None, cutoff, "full", 0)
    assert len(found[0]) == edges


@pytest.mark.parametrize("rule", RULES)
def test_an_atoms_own_edge_goes_before_those_of_coincident_atoms(backend: Backend, rule: str) -> None:
    positions = torch.zeros(9, 3)
    positions[4] = 1.0
    found = found_by(backend, positions, None, CUTOFF, rule, 3)
    assert found == truth(positions, None, CUTOFF, rule, 3)
    if rule == "nearest":
        assert [source for source, target in zip(*found, strict=True) if target == 2] == [2, 0, 1]


def test_positions_may_have_any_strides(backend: Backend) -> None:
    positions, batch = frames_of([50, 60])
    columns = positions.t().contiguous().t()
    assert found_by(backend, columns, batch, CUTOFF, "nearest", 8) == truth(positions, batch, CUTOFF, "nearest", 8)


def test_a_batch_without_atoms_has_no_edges(backend: Backend) -> None:
    for rule in RULES:
        assert found_by(backend, torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), CUTOFF, rule, 8) == [[], []]


def test_a_frame_that_is_too_large_is_refused_by_no_edges_at_all(backend: Backend) -> None:
    """And one just as large as can be is not; nor are many frames that are larger together."""
    spread = torch.zeros(2 * MOST_FRAME_ATOMS, 3)
    spread[:, 0] = 0.75 * CUTOFF * torch.arange(2 * MOST_FRAME_ATOMS)
    for sizes, served in (([9, MOST_FRAME_ATOMS], True), ([9, MOST_FRAME_ATOMS + 1, 3], False), ([5000, 6000], True)):
        batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        index = found_by(backend, spread[: len(batch)], batch, CUTOFF, "nearest", 3)
        assert len(index[0]) == (sum(3 * size - 2 for size in sizes) if served else 0)


@pytest.mark.parametrize("batch", [[0, 1, 0, 0], [-1, 0, 0, 0], [2, 1, 1, 1]])
def test_frames_that_fall_or_are_negative_are_refused(device: torch.device, batch: list[int]) -> None:
    positions = torch.zeros(4, 3, device=device)
    with pytest.raises(ValueError, match="numbered from 0 and not fall: sort the atoms by frame"):
        edges_in_one_search(positions, CUTOFF, "full", 0, torch.tensor(batch, device=device))
    with pytest.raises(ValueError, match="give the frame of each of the 4 atoms"):
        edges_in_one_search(positions, CUTOFF, "full", 0, torch.tensor(batch[:3], device=device))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_the_first_atom_whose_position_is_not_finite_is_named(device: torch.device, wrong: float) -> None:
    positions, batch = (tensor.to(device) for tensor in frames_of([100, 200]))
    positions[[130, 131, 299], [2, 0, 1]] = wrong
    with pytest.raises(RuntimeError, match=r"the position of atom 130 is \(.*, .*, -?(nan|inf)\): it must be finite"):
        edges_in_one_search(positions, CUTOFF, "nearest", 8, batch)


def test_arguments_that_make_no_sense_are_refused_in_words(backend: Backend) -> None:
    search = backend.operators.frame_edges  # type: ignore[attr-defined]
    places, frames = backend.place(torch.zeros(4, 3)), backend.place(torch.zeros(4, dtype=torch.int64))
    for arguments, message in (
        ((places, frames, CUTOFF, 0, True), "most is 0: give at least 1"),
        ((places, frames, CUTOFF, -1, False), "most is -1"),
        ((places, frames, 0.0, 8, True), "cutoff is 0.0"),
        ((places, frames, float("nan"), 8, True), "cutoff is -?nan"),
        ((places[:, :2], frames, CUTOFF, 8, True), r"positions has shape \(4, 2\)"),
        ((places.long(), frames, CUTOFF, 8, True), "float32 or float64"),
        ((places, frames[:3], CUTOFF, 8, True), r"batch has shape \(3\)"),
        ((places, frames.int(), CUTOFF, 8, True), "batch must be int64"),
    ):
        with pytest.raises(RuntimeError, match=message):
            search(*arguments)


# ---- the Python side: vectors, distances, and what is not searched at once -------------------------------------------


def assert_close(found: Tensor, expected: Tensor) -> None:
    tolerance = TOLERANCE[expected.dtype]
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found.cpu(), expected, rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scripted", [False, True])
def test_vectors_distances_and_gradients_are_those_of_one_search_for_each(
    device: torch.device, scripted: bool, rule: str, dtype: torch.dtype
) -> None:
    """Two atoms coincide, where a distance has no slope and is given none."""
    one_search = torch.jit.script(edges_in_one_search) if scripted else edges_in_one_search
    positions, batch = frames_of([60, 0, 1, 45], dtype)
    positions[7] = positions[3]
    places = positions.clone().requires_grad_()
    there = positions.to(device).requires_grad_()
    expected = edges_frame_by_frame(places, CUTOFF, rule, 8, batch, None)
    edges = one_search(there, CUTOFF, rule, 8, batch.to(device))
    unrecorded = one_search(there.detach(), CUTOFF, rule, 8, batch.to(device))
    for found in (edges, unrecorded):
        assert torch.equal(found[0].cpu(), expected[0])
        assert_close(found[1].detach(), expected[1].detach())
        assert_close(found[2].detach(), expected[2].detach())
    assert not unrecorded[1].requires_grad
    gradients = []
    for (_, vectors, distances), given in ((expected, places), (edges, there)):
        weights = torch.sin(torch.arange(len(distances), dtype=dtype, device=given.device))
        gradients += torch.autograd.grad([(weights * distances * (1.0 + vectors.sum(dim=1))).sum()], [given])
    assert float(gradients[0].abs().max()) > 1
    assert_close(gradients[1], gradients[0])


def test_what_arrives_at_an_atoms_own_edge_does_not_reach_the_atom(device: torch.device) -> None:
    places = frames_of([20])[0].to(device).requires_grad_()
    edges = edges_in_one_search(places, CUTOFF, "full", 0, None)
    assert edges is not None
    index, vectors, distances = edges
    arriving = torch.where((index[0] == index[1]).unsqueeze(1), float("nan"), 1.0).expand_as(vectors)
    gradient = torch.autograd.grad([vectors, distances], [places], [arriving, arriving[:, 0]])[0]
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("scripted", [False, True])
def test_a_frame_that_is_too_large_is_left_to_the_search_of_single_frames(device: torch.device, scripted: bool) -> None:
    search = torch.jit.script(edges_in_one_search) if scripted else edges_in_one_search
    places = torch.zeros(MOST_FRAME_ATOMS + 1, 3, device=device)
    places[:, 0] = torch.arange(MOST_FRAME_ATOMS + 1)
    assert search(places, 0.5, "nearest", 3, None) is None
    batch = torch.zeros(MOST_FRAME_ATOMS + 1, dtype=torch.int64, device=device)
    assert search(places, 0.5, "nearest", 3, batch) is None
    batch[4000:] = 1
    edges = search(places, 0.5, "nearest", 3, batch)
    assert edges is not None and edges[0].size(1) == MOST_FRAME_ATOMS + 1


def test_edges_between_tokens_wait_for_nothing_but_the_search(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinates = torch.from_numpy(np.random.default_rng(3).uniform(0, 2, (5, 30, 3)))
    expected = residue_graph.TokenEdges(0.8)(coordinates)
    assert len(expected[0]) > 300 and not bool((expected[0] == expected[1]).any())

    def search(positions: Tensor, cutoff: float, rule: str, most: int, batch: Tensor) -> object:
        return edges_in_one_search(positions, cutoff, rule, most, batch)

    monkeypatch.setattr(residue_graph, "encoder_edges", search)
    there = coordinates.to(device).requires_grad_()
    with WithoutWaiting():
        found = residue_graph.TokenEdges(0.8)(there)
    assert torch.equal(found[0].cpu(), expected[0]) and torch.equal(found[1].cpu(), expected[1])
    torch.testing.assert_close(found[2].detach().cpu(), expected[2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("where", [pytest.param("cuda", marks=gpu)])
@pytest.mark.parametrize("rule", RULES)
def test_on_a_device_encoder_edges_are_those_of_the_cpu(rule: str, where: str) -> None:
    """By one search, and, where a frame is too large for it, by one for each."""
    for sizes in ([291] * 16, [20, MOST_FRAME_ATOMS + 1, 20]):
        positions, batch = frames_of(sizes)
        right = encoder_edges(positions, CUTOFF, rule, 12, batch)
        found = encoder_edges(positions.to(where), CUTOFF, rule, 12, batch.to(where))
        assert torch.equal(found[0].cpu(), right[0])
        assert_close(found[1], right[1])
        assert_close(found[2], right[2])
