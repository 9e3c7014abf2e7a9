"""CUDA's sums over the rows of a pair list against the same in plain torch, in float64 and with autograd.

Each runs in the grid emulator, threads and blocks in random order, and on a device where there is one.
"""

from __future__ import annotations

import pytest
import torch
from cuda_backends import Backend
from torch import Tensor

import openmm_gnn.kernels.vector_network  # noqa: F401  (registers the gradients)
from openmm_gnn.kernels.pair_rows import pair_graph, pair_rows_reference
from openmm_gnn.kernels.vector_network import pair_strengths_reference, vector_messages_reference

START, CUTOFF, TYPES, KNOTS = 0.08, 0.45, 5, 12
NUMBERS = (START, CUTOFF, 0)
TOLERANCE = 2e-5
"""Of float32 sums of some dozens of terms, relative to the largest."""


class Case:
    """Random pairs and features; padding at the end and in between, pairs beyond the cutoff, an atom without pairs."""

    def __init__(self, width: int, has_vectors: bool, num_atoms: int = 40, num_pairs: int = 500) -> None:
        generator = torch.Generator().manual_seed(3)

        def normal(*sizes: int) -> Tensor:
            return 0.5 * torch.randn(*sizes, generator=generator)

        i = torch.randint(0, num_atoms - 1, (num_pairs,), generator=generator).sort().values
        j = torch.randint(0, num_atoms - 1, (num_pairs,), generator=generator)
        self.num_atoms, self.pairs = num_atoms, torch.stack([i, j])
        if num_pairs > 20:
            self.pairs[:, 7] = -1
            self.pairs[:, -11:] = -1
        self.types = torch.randint(0, TYPES, (num_pairs,), generator=generator)
        self.vectors = 0.4 * normal(num_pairs, 3)
        vector_atoms = num_atoms if has_vectors else 0
        self.messages = [
            normal(num_atoms, 3 * width),
            normal(num_atoms, 3 * width),
            normal(num_atoms, width),
            normal(vector_atoms, 3, width),
            normal(vector_atoms, 3, width),
            normal(TYPES, KNOTS, 3 * width),
            normal(3, 3 * width),
        ]
        self.strengths = [
            normal(num_atoms, width),
            normal(num_atoms, width),
            normal(num_atoms, 3, width),
            normal(TYPES, KNOTS, width),
            normal(3, width),
            normal(width),
        ]

    def given(self, backend: Backend) -> tuple[Tensor, ...]:
        """Arguments 0 to 5 of the operators."""
        ends = (self.pairs, self.types, self.vectors, self.vectors.norm(dim=1))
        pairs, types, vectors, distances = (backend.place(tensor) for tensor in ends)
        rows = backend.operators.pair_rows(pairs, distances, CUTOFF, self.num_atoms)
        return (*rows, pairs, types, vectors, distances)

    def truth(self, function: str) -> tuple[list[Tensor], list[Tensor], list[Tensor | None]]:
        """Results, gradients that arrive at them, and those by vectors and features, in float64."""
        vectors = self.vectors.double().requires_grad_()
        features = [value.double().requires_grad_() for value in getattr(self, function)]
        reference = vector_messages_reference if function == "messages" else pair_strengths_reference
        graph = pair_graph(
            self.pairs, self.types, vectors, vectors.norm(dim=1), self.num_atoms, START, CUTOFF, compiled=False
        )
        results = reference(graph, *features)
        results = list(results) if isinstance(results, tuple) else [results]
        arriving = [torch.sin(torch.arange(r.numel(), dtype=torch.float64)).view_as(r) for r in results]
        gradients = torch.autograd.grad(results, [vectors, *features], arriving, allow_unused=True)
        return results, arriving, list(gradients)


def assert_close(found: Tensor, truth: Tensor) -> None:
    scale = float(truth.abs().max()) if truth.numel() else 0.0
    torch.testing.assert_close(found.cpu().double(), truth, rtol=TOLERANCE, atol=TOLERANCE * scale)


@pytest.mark.parametrize(("num_atoms", "num_pairs"), [(40, 500), (3, 0), (1, 30), (2500, 9000)])
def test_rows_hold_each_end_of_a_pair_once_in_order(backend: Backend, num_atoms: int, num_pairs: int) -> None:
    case = Case(16, True, num_atoms + 1, num_pairs)
    distances = case.vectors.norm(dim=1)
    truth = pair_rows_reference(case.pairs, distances, CUTOFF, case.num_atoms)
    starts, entries = backend.operators.pair_rows(
        backend.place(case.pairs), backend.place(distances), CUTOFF, case.num_atoms
    )
    assert starts.dtype == entries.dtype == torch.int32
    assert torch.equal(starts.cpu(), truth[0])
    assert torch.equal(entries.cpu()[: int(truth[0][-1])], truth[1])
    within = (case.pairs[0] >= 0) & (distances < CUTOFF)
    assert int(truth[0][-1]) == 2 * int(within.sum())


@pytest.mark.parametrize("width", [16, 48, 128])
@pytest.mark.parametrize("has_vectors", [True, False])
def test_messages_and_gradients_equal_plain_torch(backend: Backend, has_vectors: bool, width: int) -> None:
    case = Case(width, has_vectors)
    given, features = case.given(backend), [backend.place(tensor) for tensor in case.messages]
    truth, arriving, gradients = case.truth("messages")
    results = backend.operators.vector_messages(*given, *features, *NUMBERS)
    for found, expected in zip(results, truth, strict=True):
        assert_close(found, expected.detach())
    incoming = [backend.place(tensor.float()) for tensor in arriving]
    *found_gradients, _, _, pair_vectors = backend.operators.vector_messages_backward(
        *given, *features, *NUMBERS, *incoming, True, False
    )
    for found, expected in zip([pair_vectors, *found_gradients], gradients[:6], strict=True):
        assert_close(found, torch.zeros_like(found, dtype=torch.float64).cpu() if expected is None else expected)
    without = backend.operators.vector_messages_backward(*given, *features, *NUMBERS, *incoming, False, False)
    assert without[-1].shape == (0, 3) and torch.equal(without[0], found_gradients[0])


@pytest.mark.parametrize("width", [16, 48, 128])
def test_strengths_and_gradients_equal_plain_torch(backend: Backend, width: int) -> None:
    case = Case(width, True)
    given, features = case.given(backend), [backend.place(tensor) for tensor in case.strengths]
    truth, arriving, gradients = case.truth("strengths")
    assert_close(backend.operators.pair_strengths(*given, *features, *NUMBERS), truth[0].detach())
    incoming = backend.place(arriving[0].float())
    *found_gradients, _, _, _, pair_vectors = backend.operators.pair_strengths_backward(
        *given, *features, *NUMBERS, incoming, True, False
    )
    with pytest.raises(RuntimeError, match="CUDA has no gradients of weights: use the plain form"):
        backend.operators.pair_strengths_backward(*given, *features, *NUMBERS, incoming, True, True)
    for found, expected in zip([pair_vectors, *found_gradients], gradients[:4], strict=True):
        assert expected is not None
        assert_close(found, expected)


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("function", ["messages", "strengths"])
def test_autograd_finds_these_gradients_and_those_of_the_weights(
    device: torch.device, function: str, weights: bool
) -> None:
    """With weights that want gradients, as in training, all come from the plain form; else from the operators."""
    case = Case(16, True)
    operator = torch.ops.openmm_gnn.vector_messages if function == "messages" else torch.ops.openmm_gnn.pair_strengths
    _, arriving, truth = case.truth(function)
    pairs, types = case.pairs.to(device), case.types.to(device)
    vectors = case.vectors.to(device).requires_grad_()
    distances = vectors.detach().norm(dim=1)
    features = [value.to(device).requires_grad_() for value in getattr(case, function)]
    num_features = 5 if function == "messages" else 3
    for tensor in features[num_features:]:
        tensor.requires_grad_(weights)
    rows = torch.ops.openmm_gnn.pair_rows(pairs, distances, CUTOFF, case.num_atoms)
    results = operator(*rows, pairs, types, vectors, distances, *features, *NUMBERS)
    results = list(results) if isinstance(results, tuple) else [results]
    wanted = [vectors, *(features if weights else features[:num_features])]
    found = torch.autograd.grad(results, wanted, [tensor.to(device).float() for tensor in arriving])
    for gradient, expected in zip(found, truth[: len(wanted)], strict=True):
        assert expected is not None
        assert_close(gradient, expected)


def test_a_list_that_is_invalid_gives_strengths_that_are_not_numbers(backend: Backend) -> None:
    """An overflowing list on CUDA has distances of NaN and no pairs; forces of zero would hide it."""
    case = Case(16, True)
    case.pairs[:] = -1
    features = [backend.place(tensor) for tensor in case.strengths]
    given = list(case.given(backend))
    given[5] = torch.full_like(given[5], float("nan"))
    rows = backend.operators.pair_rows(given[2], given[5], CUTOFF, case.num_atoms)
    assert not rows[0].any()
    assert bool(backend.operators.pair_strengths(*rows, *given[2:], *features, *NUMBERS).isnan().all())


@pytest.mark.parametrize(
    ("tensor", "end", "value"), [("pairs", 0, 999), ("pairs", 1, 999), ("pairs", 1, -1), ("types", 0, 7)]
)
def test_an_atom_or_a_type_that_there_is_not_is_no_pair_and_gives_nan(
    backend: Backend, tensor: str, end: int, value: int
) -> None:
    """Nothing may wait for the device to refuse it. A pair with one atom of two is no padding."""
    case = Case(16, True)
    close = int(torch.nonzero((case.pairs[0] >= 0) & (case.vectors.norm(dim=1) < CUTOFF))[20])
    first = int(case.pairs[0, close])
    numbers = case.pairs[end] if tensor == "pairs" else case.types
    numbers[close] = value
    given = case.given(backend)
    strengths = backend.operators.pair_strengths(*given, *[backend.place(t) for t in case.strengths], *NUMBERS).cpu()
    assert strengths.isnan().nonzero().flatten().tolist() == [close]
    scalars, _ = backend.operators.vector_messages(*given, *[backend.place(t) for t in case.messages], *NUMBERS)
    entries = int(given[0].cpu()[-1])
    assert 2 * close not in given[1].cpu()[:entries] if tensor == "pairs" else bool(scalars[first].isnan().all())


def test_wrong_shapes_are_refused_in_words(backend: Backend) -> None:
    case = Case(16, True)
    given, features = case.given(backend), [backend.place(tensor) for tensor in case.messages]
    wide = [*features]
    wide[2] = backend.place(torch.zeros(case.num_atoms, 272))
    with pytest.raises(RuntimeError, match="the width is 272: give a multiple of 16, at most 256"):
        backend.operators.vector_messages(*given, *wide, *NUMBERS)
    short = [*features]
    short[0] = backend.place(torch.zeros(case.num_atoms, 20))
    with pytest.raises(RuntimeError, match=r"source has shape \(41, 20\)|source has shape \(40, 20\): expected"):
        backend.operators.vector_messages(*given, *short, *NUMBERS)
    with pytest.raises(RuntimeError, match="value must be float32"):
        backend.operators.vector_messages(*given, *features[:2], features[2].double(), *features[3:], *NUMBERS)
    with pytest.raises(RuntimeError, match=r"starts has shape"):
        backend.operators.vector_messages(given[0][:-1], *given[1:], *features, *NUMBERS)
