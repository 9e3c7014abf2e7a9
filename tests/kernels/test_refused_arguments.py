"""Every operator of the CPU with arguments that are wrong: it refuses them in words, or gives what the right ones give.

Under the sanitizers (`make test-sanitizers`) the same calls show that nothing is read or written where it must not be.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from openmm_gnn.kernels import library as library

ATOMS, PAIRS, EDGES, WIDTH = 5, 7, 9, 16
IGNORED = {"rows", "starts", "entries"}
"""Arguments that the CPU does not look at."""
FREE_SIZES = {
    ("neighbor_pairs", "positions", 0),
    ("pair_types", "pairs", 1),
    ("pair_types", "partners", 0),
    ("pair_types", "partners", 2),
    ("mesh_influence", "transform", 0),
    ("mesh_influence", "transform", 1),
    *(("mesh_forces", "potential", dimension) for dimension in range(3)),
    ("activated_table", "rows", 0),
    *((operator, "table", 0) for operator in ("attention_messages", "edge_layer", "tensor_messages", "first_tensors")),
    *((f"{operator}_messages_backward", "table", 0) for operator in ("attention", "tensor")),
    ("first_tensors_backward", "table", 0),
    ("tabulated_filters", "table", 0),
    ("tabulated_filters", "places", 0),
    ("scaled_tensors", "parts", 0),
    ("attention_network", "tables", 1),
    ("attention_network_backward", "tables", 1),
    ("molecule_edges", "hops", 0),
    *((f"learned_cv_{what}", "tables", 1) for what in ("values", "forces")),
    *(("learned_cv_values", name, 0) for name in ("hops", "program", "memory")),
    ("learned_cv_forces", "slopes", 0),
    *(
        (f"{operator}{way}", "table", 1)
        for operator in ("vector_messages", "pair_strengths")
        for way in ("", "_backward")
    ),
    ("radial_pair_forces", "table", 1),
    ("vector_gamd_forces", "partners", 0),
    ("vector_gamd_forces", "partners", 2),
    ("vector_gamd_forces", "pair_table", 1),
}
"""Dimensions that no other argument decides: one element less is another question, not a mistake."""
FREE_INTEGERS = {
    ("pair_types", "partners"),
    *(("update_neighbor_list", f"stored_{name}") for name in ("pairs", "shifts")),
    ("vector_gamd_forces", "partners"),
    *(("vector_gamd_forces", f"{which}_{name}") for which in ("near", "far") for name in ("pairs", "shifts", "kinds")),
    *(("learned_cv_forces", name) for name in ("molecule", "program", "places")),
}
"""Integers that name nothing: atoms that no pair has, the room of a list that is empty, what the way forth has read."""
PADDED = {"vector_messages", "vector_messages_backward", "pair_strengths", "pair_strengths_backward"}
"""Operators that take a pair whose first atom is negative for padding."""


def arguments(operator: str) -> list[Any]:
    """Arguments that the operator takes, in the order of its schema."""
    generator = torch.Generator().manual_seed(len(operator))

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator)

    pairs = torch.tensor([[0, 0, 1, 1, 2, 3, -1], [1, 2, 2, 3, 4, 4, -1]])
    types = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    vectors = 0.1 * normal(PAIRS, 3)
    graph = [torch.zeros(0, dtype=torch.int32)] * 2 + [pairs, types, vectors, vectors.norm(dim=1)]
    edges = torch.stack([torch.arange(EDGES) % ATOMS, (3 * torch.arange(EDGES) + 4) % ATOMS])
    places = torch.linspace(0, 2, EDGES, dtype=torch.float64)
    plan = [edges, graph[0], normal(EDGES, 3), normal(EDGES), places]
    if operator == "learned_cv_values":
        # The outputs are two scalars; gradients are scalars times the slope, the vectors, and the positions.
        back = [2, 11, 1, 3, 80, 352, 1, 0, 1, 338, 0, 0, 9, 1, 2, 240, 432, 1, 80, 1, 0, 9, 1, 2, 15, 672, 1, 320, 1]
        program = torch.tensor([0, 9, 1, 2, 2, 336, 1, 0, 1, *back])
        places = torch.tensor([0, 80, 320, 336, 2, 338, 352, 432, 672, 9, 38])
        embedded, *weights = arguments("attention_network")[3:7]
        return [*arguments("molecule_edges"), embedded, *weights, 8, 1, program, normal(687), places]
    if operator == "learned_cv_forces":
        given = arguments("learned_cv_values")
        _, *kept = torch.ops.openmm_gnn.learned_cv_values(*given)
        return [given[0], *given[3:5], *given[6:], *kept, normal(3, 2).double()]
    if operator == "molecule_edges_backward":
        found = arguments("molecule_edges")
        centred, _, edge_vectors, distances, within, lengths = torch.ops.openmm_gnn.molecule_edges(*found)
        gradients = [normal(*one.shape) for one in (edge_vectors, distances, centred)]
        return [found[0], found[4], within, lengths, *gradients, *found[6:]]
    if operator.endswith("_backward"):
        forward = operator.removesuffix("_backward")
        given = arguments(forward)
        results = getattr(torch.ops.openmm_gnn, forward)(*given)
        results = results if isinstance(results, tuple) else (results,)
        kept = [results[2]] if operator == "attention_network_backward" else []
        asked = [] if forward in ("activated_table", "attention_network") else [True, True]
        return [*given, *kept, *(normal(*result.shape) for result in results[:2]), *asked]
    positions, box = torch.rand(ATOMS, 3, generator=generator), torch.eye(3)

    def list_of(capacity: int) -> list[Tensor]:
        """The state of a neighbour list, with kinds of its pairs."""
        pairs, shifts = (torch.zeros(sizes, dtype=torch.int32) for sizes in ((2, capacity), (capacity, 3)))
        kinds, status = torch.zeros(capacity, dtype=torch.int32), torch.zeros(64, dtype=torch.int64)
        return [torch.zeros(ATOMS, 3), torch.zeros(3, 3), pairs, shifts, kinds, status]

    atom, vector = (ATOMS, WIDTH), (ATOMS, 3, WIDTH)
    features = ((ATOMS, 3 * WIDTH), (ATOMS, 3 * WIDTH), atom, vector, vector)
    parts = normal(ATOMS, 9, WIDTH)
    return {
        "neighbor_pairs": [positions, box, 0.5, True, True, 1],
        "update_neighbor_list": [
            positions, box, 0.4, 0.1, False, True, True, 1, torch.zeros(ATOMS, 3), torch.zeros(3, 3),
            torch.zeros(2, 60, dtype=torch.int32), torch.zeros(60, 3, dtype=torch.int32),
            torch.zeros(64, dtype=torch.int64),
        ],
        "nearest_edges": [pairs[:, :6].contiguous(), vectors[:6].norm(dim=1), ATOMS, 3],
        "vector_messages": [
            *graph, *(normal(*shape) for shape in features), normal(3, 5, 3 * WIDTH), normal(3, 3 * WIDTH), 0.01, 0.9,
            1,
        ],
        "pair_strengths": [
            *graph, normal(ATOMS, WIDTH), normal(ATOMS, WIDTH), normal(ATOMS, 3, WIDTH), normal(3, 5, WIDTH),
            normal(3, WIDTH), normal(WIDTH), 0.01, 0.9, 1,
        ],
        "pair_types": [pairs, torch.tensor([0, 1, 2, 1, 0]), torch.full((2, ATOMS, 2), -1), 3],
        "radial_pair_forces": [*graph[2:], normal(3, 8), 0.01, 0.9, 1, ATOMS],
        "mesh_charges": [positions, normal(ATOMS), box, 8, 8, 8, 4, 1],
        "mesh_influence": [normal(8, 8, 5, 2), box, 0.2, 8, 4, 1],
        "mesh_forces": [positions, normal(ATOMS), box, normal(8, 8, 8), 4, 1],
        "attention_messages": [*plan, normal(ATOMS, 5 * WIDTH), normal(ATOMS, 3, WIDTH), normal(3, 2, 4 * WIDTH), 8, 1],
        "edge_layer": [
            *plan, normal(ATOMS, 3 * WIDTH), normal(ATOMS, 3, WIDTH), normal(ATOMS, 3, 5 * WIDTH), normal(EDGES, WIDTH),
            normal(3 * WIDTH, WIDTH), normal(3 * WIDTH), normal(2 * WIDTH, WIDTH), normal(2 * WIDTH), 8, True, 1,
        ],
        "tensor_messages": [*plan, parts, normal(3, 2, 3 * WIDTH), 1],
        "first_tensors": [*plan, normal(ATOMS, WIDTH), normal(ATOMS, WIDTH), normal(3, 2, 3 * WIDTH), 1],
        "scaled_tensors": [parts, 1],
        "tensor_products": [parts, normal(ATOMS, 9, WIDTH), 1],
        "tensor_squares": [parts, normal(ATOMS, 9, WIDTH), 1],
        "tabulated_filters": [places, normal(3, 2, 2 * WIDTH), 1],
        "activated_table": [normal(3, 2, WIDTH), normal(WIDTH)],
        "attention_network": [
            edges, normal(EDGES, 3), 0.1 + torch.rand(EDGES, generator=generator), normal(ATOMS, WIDTH),
            0.1 * normal(2, 22 * WIDTH * WIDTH + 10 * WIDTH), normal(2, 3, 2, 4 * WIDTH), normal(2, WIDTH), 2.0, 8, 1,
        ],
        "molecule_edges": [
            positions.double(), 5 * torch.eye(3, dtype=torch.float64), torch.tensor([[0, 0, 1, 2, 3], [0, 0, 0, 0, 1]]),
            torch.tensor([0, 0, 0, 1, 1]), torch.arange(ATOMS), torch.tensor([0, ATOMS]), 10.0, 9.0, 3,
        ],
        "vector_gamd_forces": [
            positions, box, torch.tensor([0, 1, 1, 0, 1]), torch.full((2, ATOMS, 2), -1), 0.1 * normal(11584), 2, 9,
            WIDTH, 1, 4, 0.01, 2.0, True, 0.4, 0.1, *list_of(40), 0.5, 0.1, *list_of(60), normal(9, 5, 4).double(),
            normal(2), 0.2, 8, 8, 8, 1,
        ],
        # 16 numbers are the product of those before and the first one; then a product of matrices, (2, 3) and (3, 1).
        "run_array_program": [
            torch.tensor([
                2, 11, 1, 3, 16, 16, 1, 0, 1, 0, 0,
                20, 23, 4, 3, 1, 2, 3, 1, 32, 0, 1, 0, 1, 0, 0, 3, 1, 0, 6, 0, 0, 1, 1,
            ]),
            normal(34), 0, 34,
        ],
    }[operator]  # fmt: skip


FORWARD = (
    "neighbor_pairs", "update_neighbor_list", "nearest_edges", "vector_messages", "pair_strengths", "pair_types",
    "radial_pair_forces", "mesh_charges", "mesh_influence", "mesh_forces", "attention_messages", "edge_layer",
    "tensor_messages", "first_tensors", "scaled_tensors", "tensor_products", "tensor_squares", "tabulated_filters",
    "activated_table", "attention_network", "molecule_edges", "molecule_edges_backward", "run_array_program",
    "learned_cv_values", "learned_cv_forces", "vector_gamd_forces",
)  # fmt: skip
DIFFERENTIATED = ("vector_messages", "pair_strengths", "attention_messages", "tensor_messages", "first_tensors",
                  "activated_table", "attention_network")  # fmt: skip
OPERATORS = (*FORWARD, *(f"{name}_backward" for name in DIFFERENTIATED))


def names_of(operator: str) -> list[str]:
    return [argument.name for argument in getattr(torch.ops.openmm_gnn, operator).default._schema.arguments]


def results_of(operator: str, given: list[Any]) -> list[Tensor]:
    """Results, with what the operator changes in place; the arguments stay as they are."""
    changed = operator in ("mesh_influence", "update_neighbor_list", "run_array_program", "vector_gamd_forces")
    copies = [
        value.clone() if changed and isinstance(value, Tensor) and value.is_contiguous() else value for value in given
    ]
    results = getattr(torch.ops.openmm_gnn, operator)(*copies)
    if operator == "mesh_influence":
        return [copies[0]]
    if operator == "run_array_program":
        return [copies[1]]
    return list(results) if isinstance(results, (tuple, list)) else [results]


def same(results: list[Tensor], right: list[Tensor]) -> bool:
    return all(
        a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-5, atol=1e-5)
        for a, b in zip(results, right, strict=True)
    )


OTHER_TYPE = {
    torch.float32: torch.float64,
    torch.float64: torch.float32,
    torch.int64: torch.int32,
    torch.int32: torch.int64,
}


def wrong_tensors(operator: str, name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor, bool]]:
    """What is wrong with it, the tensor, and whether the right answer is none."""
    yield "strided", torch.stack([tensor, torch.ones_like(tensor)], dim=-1)[..., 0], False
    yield "of another type", tensor.to(OTHER_TYPE[tensor.dtype]), False
    yield "with a dimension more", tensor.unsqueeze(-1), True
    yield "of one number", tensor.reshape(-1)[0], True
    for dimension, size in enumerate(tensor.shape):
        if (operator, name, dimension) not in FREE_SIZES:
            yield f"short in dimension {dimension}", tensor.narrow(dimension, 0, size - 1).contiguous(), True
    if tensor.dtype in (torch.int64, torch.int32) and (operator, name) not in FREE_INTEGERS:
        for value, at in itertools.product((-7, 1_000_000), (0, -1 if name == "edge_index" else 0)):
            if name == "pairs" and operator in PADDED and value < 0:
                continue
            wrong = tensor.clone()
            wrong.view(-1)[at] = value
            yield f"with {value}", wrong, True


WRONG_NUMBERS: dict[type, tuple[float, ...]] = {
    int: (-1, 0, 1 << 40, (1 << 63) - 1),
    float: (float("nan"), -1.0, 1e300),
    bool: (),
}
ANY_NUMBER = {"num_threads", "skin", "near_skin", "far_skin", "start", "max_neighbors", "num_species", "begin", "end"}
"""Numbers of which some of these are right, too: they must only do no harm."""


@pytest.mark.parametrize("operator", OPERATORS)
def test_wrong_arguments_are_refused_in_words_or_do_no_harm(operator: str) -> None:
    given, names = arguments(operator), names_of(operator)
    right = results_of(operator, given)
    assert all(bool(result.isfinite().all()) for result in right) and any(bool(result.any()) for result in right)
    tried = 0
    for place, (name, value) in enumerate(zip(names, given, strict=True)):
        if name in IGNORED:
            continue
        wrongs: Iterator[tuple[str, Any, bool]]
        if isinstance(value, Tensor):
            wrongs = wrong_tensors(operator, name, value)
        else:
            wrongs = ((f"of {number}", number, name not in ANY_NUMBER) for number in WRONG_NUMBERS[type(value)])
        for what, wrong, refused in wrongs:
            tried += 1
            try:
                results = results_of(operator, [*given[:place], wrong, *given[place + 1 :]])
            except (RuntimeError, IndexError) as error:
                text = str(error)
                assert len(text) > 20 and "bad_alloc" not in text and "vector::" not in text, f"{name} {what}: {text}"
                continue
            assert not refused, f"{name} {what} was taken"
            if isinstance(wrong, Tensor):
                assert same(results, right), f"{name} {what} gives other results"
    assert tried >= 4
