"""The neighbour rules of encoders against explicit loops, and what must be refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from openmm_gnn.graph.edges import encoder_edges
from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs, reference_neighbor_pairs

BOX = torch.tensor([[9.0, 0, 0], [2.0, 8.0, 0], [-1.0, 3.0, 7.0]], dtype=torch.float64)
CUTOFF = 3.0


def cloud(num_atoms: int = 60, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(0, 7, (num_atoms, 3)))


def edges_by_loops(positions: Tensor, rule: str, most: int, box: Tensor | None = None) -> list[tuple[int, int]]:
    """Every edge (source, target), sorted, images as often as there are."""
    pairs, _, _, distances = reference_neighbor_pairs(positions, CUTOFF, box)
    heard: list[list[tuple[float, int]]] = [[(0.0, k)] for k in range(len(positions))]
    for i, j, distance in zip(*pairs.tolist(), distances.tolist(), strict=True):
        heard[i].append((distance, j))
    edges = []
    for target, sources in enumerate(heard):
        order = {"full": sources, "nearest": sorted(sources), "index": sorted(sources, key=lambda source: source[1])}
        edges += [(j, target) for _, j in order[rule][: None if rule == "full" else most]]
    return sorted(edges)


@pytest.mark.parametrize("box", [None, BOX], ids=["open", "periodic"])
@pytest.mark.parametrize("rule", ["full", "nearest", "index"])
def test_edges_are_those_of_explicit_loops(rule: str, box: Tensor | None) -> None:
    positions = cloud()
    index, vectors, distances = encoder_edges(positions, CUTOFF, rule, 8, None, box)
    assert sorted(map(tuple, index.T.tolist())) == edges_by_loops(positions, rule, 8, box)
    assert bool((index[1].diff() >= 0).all())
    own = index[0] == index[1]
    if rule != "index":
        assert int((own & (distances == 0)).sum()) == len(positions)
    torch.testing.assert_close(vectors.norm(dim=1), distances)
    if box is None:
        torch.testing.assert_close(vectors, positions[index[0]] - positions[index[1]])


def test_by_index_atoms_late_in_the_file_lose_their_own_edge() -> None:
    index, _, _ = encoder_edges(cloud(), 100.0, "index", 32)
    assert index.shape == (2, 60 * 32)
    assert int((index[0] == index[1]).sum()) == 32


def test_a_nearest_neighbour_among_equals_is_the_first_by_index() -> None:
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], dtype=torch.float64)
    index, _, _ = encoder_edges(corners, 1.2, "nearest", 3)
    assert index[0][index[1] == 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_nearest_are_picked_as_by_sorting_all_pairs(dtype: torch.dtype) -> None:
    """On a lattice, where many neighbours are equally far, and with more to pick than there are."""
    line = torch.arange(5, dtype=dtype)
    lattice = torch.cartesian_prod(line, line, line)
    pairs, _, distances = neighbor_pairs(lattice, 2.1)
    for most in (1, 2, 7, 19, 500):
        index, _, found = encoder_edges(lattice, 2.1, "nearest", most)
        for atom in (0, 62, 124):
            mine = pairs[0] == atom
            order = sorted(zip(distances[mine].tolist(), pairs[1][mine].tolist(), strict=True))
            assert index[0][index[1] == atom].tolist() == [atom, *(j for _, j in order[: most - 1])]
            assert found[index[1] == atom].tolist() == [0.0, *(distance for distance, _ in order[: most - 1])]


def test_frames_of_a_batch_do_not_hear_each_other() -> None:
    frames = [cloud(30, 1), cloud(17, 2), cloud(1, 3)]
    boxes = torch.stack([BOX, 1.1 * BOX, BOX])
    batch = torch.repeat_interleave(torch.arange(3), torch.tensor([30, 17, 1]))
    together = encoder_edges(torch.cat(frames), CUTOFF, "nearest", 8, batch, boxes)
    alone = [encoder_edges(frame, CUTOFF, "nearest", 8, None, box) for frame, box in zip(frames, boxes, strict=True)]
    torch.testing.assert_close(together[0], torch.cat([alone[0][0], alone[1][0] + 30, alone[2][0] + 47], dim=1))
    torch.testing.assert_close(together[1], torch.cat([vectors for _, vectors, _ in alone]))


def test_a_frame_without_atoms_and_a_batch_without_any_are_no_trouble() -> None:
    batch = torch.tensor([0, 0, 2])
    assert encoder_edges(cloud(3), 100.0, "full", 32, batch)[0].T.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1], [2, 2]]
    index, vectors, distances = encoder_edges(cloud(0), CUTOFF, "nearest", 32, torch.zeros(0, dtype=torch.int64))
    assert index.shape == (2, 0) and vectors.shape == (0, 3) and distances.shape == (0,)


@pytest.mark.parametrize("rule", ["full", "nearest", "index"])
def test_vectors_can_be_differentiated(rule: str) -> None:
    """The sum of r^3 over the edges, by the operator and from the positions at their ends."""
    positions = cloud(12).requires_grad_()
    index, vectors, distances = encoder_edges(positions, CUTOFF, rule, 6)
    (found,) = torch.autograd.grad((vectors.square().sum(dim=1) * distances).sum(), positions)
    differences = positions[index[0]] - positions[index[1]]
    (expected,) = torch.autograd.grad(differences.square().sum(dim=1).pow(1.5).sum(), positions)
    assert float(expected.abs().max()) > 1
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("rule", ["nearest", "index"])
def test_compiled_to_torchscript_it_gives_the_same(rule: str) -> None:
    scripted = torch.jit.script(encoder_edges)
    batch = torch.arange(2).repeat_interleave(30)
    for box in (None, BOX):
        here, there = (edges(cloud(), CUTOFF, rule, 8, batch, box) for edges in (encoder_edges, scripted))
        for mine, other in zip(here, there, strict=True):
            torch.testing.assert_close(mine, other)


@pytest.mark.parametrize(
    ("rule", "batch", "box", "message"),
    [
        ("near", None, None, "the neighbour rule is near: give one of fading, full, nearest, index"),
        ("full", [1, 0, 0], None, "sort the atoms by frame"),
        ("full", [-1, 0, 0], None, "numbered from 0"),
        ("full", [0, 0], None, "give the frame of each of the 3 atoms"),
        ("full", [0, 1, 1], torch.stack([BOX] * 3), "3 boxes for 2 frames"),
    ],
)
def test_what_makes_no_sense_is_refused(rule: str, batch: list[int] | None, box: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder_edges(cloud(3), CUTOFF, rule, 8, None if batch is None else torch.tensor(batch), box)
