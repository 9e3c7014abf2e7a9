"""A whole TorchMD-ET as one operator: neither the order of the edges nor that of the atoms decides the result."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

WIDTH, HEAD, CUTOFF = 16, 8, 2.0
GENERATOR = torch.Generator().manual_seed(4)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR)


NETWORK = (
    0.1 * normal(2, 22 * WIDTH * WIDTH + 10 * WIDTH),
    0.3 * normal(2, 771, 2, 4 * WIDTH),
    torch.stack([torch.ones(WIDTH), torch.zeros(WIDTH)]),
    CUTOFF,
    HEAD,
    1,
)


def graph(atoms: int) -> tuple[Tensor, Tensor]:
    """Edges (2, E) with ascending targets, and their vectors: own ones, both ways, and every seventh one way alone."""
    positions = normal(atoms, 3)
    far = torch.cdist(positions, positions) < CUTOFF
    targets, sources = torch.nonzero(far, as_tuple=True)
    kept = (targets <= sources) | ((targets + sources) % 7 != 0)
    index = torch.stack([sources[kept], targets[kept]])
    return index, positions[index[0]] - positions[index[1]]


def results(index: Tensor, vectors: Tensor, scalars: Tensor, slopes: Tensor) -> list[Tensor]:
    """Scalars, vectors, and gradients by edge vectors and distances, of sums with the slopes (N, 4, WIDTH)."""
    given: tuple[Any, ...] = (index, vectors, vectors.norm(dim=1), scalars, *NETWORK)
    *found, kept = torch.ops.openmm_gnn.attention_network(*given)
    # Contiguous, as all that an operator takes.
    by_results = slopes[:, 0].contiguous(), slopes[:, 1:].contiguous()
    return [*found, *torch.ops.openmm_gnn.attention_network_backward(*given, kept, *by_results)]


def close(found: list[Tensor], expected: list[Tensor]) -> None:
    # Two layers of sums of up to 50 terms, each result next to the largest of its kind.
    for one, right in zip(found, expected, strict=True):
        torch.testing.assert_close(one, right, rtol=0, atol=2e-5 * float(right.abs().max()))


def test_shuffled_edges_give_the_same_numbers() -> None:
    """Edges whose targets ascend are put in pairs, an edge and the one back; shuffled ones stay as they are."""
    (index, vectors), scalars, slopes = graph(24), normal(24, WIDTH), normal(24, 4, WIDTH)
    order = torch.randperm(index.shape[1], generator=GENERATOR)
    expected = results(index, vectors, scalars, slopes)
    *found, by_vectors, by_distances = results(index[:, order].contiguous(), vectors[order], scalars, slopes)
    close([*found, by_vectors, by_distances], [*expected[:2], expected[2][order], expected[3][order]])


def test_atoms_that_begin_alike_and_many_that_do_not_give_the_numbers_of_each_graph_alone() -> None:
    """What atoms begin with is computed once for equal ones, of which the first 32 are looked up."""
    graphs = [graph(30), graph(30)]
    scalars = torch.cat([normal(45, WIDTH), normal(3, WIDTH)[torch.arange(15) % 3]])
    scalars = scalars[torch.randperm(60, generator=GENERATOR)]
    slopes = normal(60, 4, WIDTH)
    index = torch.cat([graphs[0][0], graphs[1][0] + 30], dim=1)
    together = results(index, torch.cat([vectors for _, vectors in graphs]), scalars, slopes)
    alone = [results(*graphs[k], scalars[30 * k : 30 * k + 30], slopes[30 * k : 30 * k + 30]) for k in range(2)]
    close(together, [torch.cat(parts) for parts in zip(*alone, strict=True)])
