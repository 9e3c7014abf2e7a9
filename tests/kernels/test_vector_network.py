"""The compiled loops of the vector network against the same in plain torch, in float64 and with autograd."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.interpolate import BSpline
from torch import Tensor
from warm_python import run_python

from openmm_gnn.graph.radial_basis import CutoffEnvelope
from openmm_gnn.kernels.pair_rows import PairGraph, pair_graph
from openmm_gnn.kernels.vector_network import (
    envelope,
    pair_strengths,
    pair_strengths_reference,
    radial_spline,
    vector_messages,
    vector_messages_reference,
)

START, CUTOFF, TYPES, KNOTS = 0.08, 0.45, 5, 12


class Case:
    """Random pairs and features of a small system; one pair is padding, some lie beyond the cutoff."""

    def __init__(self, width: int, has_vectors: bool, num_atoms: int = 40, num_pairs: int = 500) -> None:
        generator = torch.Generator().manual_seed(3)

        def normal(*sizes: int) -> Tensor:
            return 0.5 * torch.randn(*sizes, generator=generator)

        i = torch.randint(0, num_atoms, (num_pairs,), generator=generator)
        j = (i + torch.randint(1, num_atoms, (num_pairs,), generator=generator)) % num_atoms
        self.pairs = torch.stack([i, j])
        self.pairs[:, 7] = -1
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

    def graph(self, vectors: Tensor, distances: Tensor, compiled: bool = True) -> PairGraph:
        pairs, types = self.pairs.to(vectors.device), self.types.to(vectors.device)
        return pair_graph(pairs, types, vectors, distances, self.messages[2].shape[0], START, CUTOFF, compiled)

    def run(self, function: str, fused: bool) -> tuple[list[Tensor], list[Tensor | None]]:
        """Results, and the gradients of a fixed mixture of them by vectors and features; float64 unless fused."""
        dtype = torch.float32 if fused else torch.float64
        vectors = self.vectors.to(dtype).requires_grad_()
        features = [value.to(dtype).requires_grad_() for value in getattr(self, function)]
        distances = vectors.norm(dim=1)
        call = vector_messages if function == "messages" else pair_strengths
        results = call(self.graph(vectors, distances.detach() if fused else distances, fused), *features)
        results = list(results) if isinstance(results, tuple) else [results]
        mixture = sum(
            (result.flatten() * torch.sin(torch.arange(result.numel(), dtype=dtype))).sum() for result in results
        )
        return results, list(torch.autograd.grad(mixture, [vectors, *features], allow_unused=True))


@pytest.mark.parametrize("width", [16, 48])
@pytest.mark.parametrize(("function", "has_vectors"), [("messages", True), ("messages", False), ("strengths", True)])
def test_results_and_gradients_equal_plain_torch(function: str, has_vectors: bool, width: int) -> None:
    case = Case(width, has_vectors)
    results, gradients = case.run(function, fused=True)
    expected, expected_gradients = case.run(function, fused=False)
    for result, truth in zip(results, expected, strict=True):
        assert float(truth.detach().abs().max()) > 0.1
        torch.testing.assert_close(result.double(), truth, rtol=1e-5, atol=1e-5 * float(truth.abs().max()))
    for gradient, truth in zip(gradients, expected_gradients, strict=True):
        if truth is None or truth.numel() == 0:
            assert gradient is None or not gradient.any()
            continue
        assert gradient is not None
        torch.testing.assert_close(gradient.double(), truth, rtol=1e-5, atol=1e-5 * float(truth.abs().max()))


def test_the_reference_has_the_derivatives_of_finite_differences() -> None:
    case = Case(16, True, num_atoms=6, num_pairs=10)
    features = [value.double() for value in case.messages]
    inside = 0.2 + 0.1 * torch.rand(10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    vectors = (case.vectors / case.vectors.norm(dim=1, keepdim=True)).double() * inside.unsqueeze(1)

    def scalars(vectors: Tensor) -> Tensor:
        return vector_messages_reference(case.graph(vectors, vectors.norm(dim=1), False), *features)[0]

    torch.autograd.gradcheck(scalars, vectors.requires_grad_(), eps=1e-6, atol=1e-6)


def test_one_thread_and_three_give_the_same_sums() -> None:
    case = Case(32, True, num_atoms=200, num_pairs=9000)
    vectors = case.vectors
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(vector_messages(case.graph(vectors, vectors.norm(dim=1)), *case.messages))
    finally:
        torch.set_num_threads(before)
    for one, three in zip(*results, strict=True):
        torch.testing.assert_close(one, three, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("instructions", ["portable", "avx2", "avx512"])
def test_every_instruction_set_gives_the_same(instructions: str) -> None:
    """Compiled three times from one source; a processor without the instructions takes the next best."""
    program = (
        "import sys, torch\n"
        "sys.path.insert(0, 'tests/samples')\n"
        "from tests.kernels.test_vector_network import Case\n"
        "for function in ('messages', 'strengths'):\n"
        "    case = Case(32, True)\n"
        "    fused, plain = case.run(function, True), case.run(function, False)\n"
        "    for results, truths in zip(fused, plain):\n"
        "        for result, truth in zip(results, truths):\n"
        "            error = (result.double() - truth).abs().max() / truth.abs().max()\n"
        "            assert error < 1e-5, (function, float(error))\n"
    )
    done = run_python("-c", program, cwd=Path(__file__).parents[2], env={**os.environ, "OPENMM_GNN_CPU": instructions})
    assert done.returncode == 0, done.stderr[-2000:]


def test_splines_and_envelope_equal_scipys_and_our_own_module() -> None:
    distances = torch.linspace(START, CUTOFF - 1e-9, 300, dtype=torch.float64)
    table = torch.randn(2, KNOTS, 3, dtype=torch.float64)
    spacing = (CUTOFF - START) / (KNOTS - 3)
    knots = START + spacing * np.arange(-3, KNOTS + 1)
    for kind in range(2):
        truth = BSpline(knots, table[kind].numpy(), 3)(distances.numpy())
        ours = radial_spline(distances, torch.full((300,), kind), table, START, CUTOFF)
        np.testing.assert_allclose(ours.numpy(), truth, atol=1e-12)
    torch.testing.assert_close(envelope(distances, CUTOFF), CutoffEnvelope(CUTOFF, 6)(distances))


def test_wrong_shapes_and_indices_are_refused_in_words() -> None:
    case = Case(16, True)
    distances = case.vectors.norm(dim=1)

    def call(pairs: Tensor = case.pairs, types: Tensor = case.types, **changed: Tensor) -> None:
        features = list(case.messages)
        for position, value in changed.items():
            features[int(position[1:])] = value
        vector_messages(pair_graph(pairs, types, case.vectors, distances, 40, START, CUTOFF), *features)

    with pytest.raises(RuntimeError, match=r"pair 3 is \(\d+, 99\).*there are 40 atoms"):
        far = case.pairs.clone()
        far[1, 3] = 99
        call(pairs=far)
    with pytest.raises(RuntimeError, match="of type 5: there are 40 atoms and 5 types"):
        call(types=torch.full_like(case.types, 5))
    with pytest.raises(RuntimeError, match=r"source has shape \(40, 20\): expected \(40, 48\)"):
        call(_0=torch.zeros(40, 20))
    with pytest.raises(RuntimeError, match="the width is 10: give a multiple of 16"):
        call(_2=torch.zeros(40, 10))
    with pytest.raises(RuntimeError, match="value must be float32"):
        call(_2=torch.zeros(40, 16, dtype=torch.float64))


def test_no_pairs_give_no_messages() -> None:
    case = Case(16, True)
    none = torch.zeros((2, 0), dtype=torch.int64)
    graph = pair_graph(none, none[0], torch.zeros(0, 3), torch.zeros(0), 40, START, CUTOFF)
    scalars, vectors = vector_messages(graph, *case.messages)
    assert not scalars.any() and not vectors.any()
    assert pair_strengths(graph, *case.strengths).shape == (0,)


@pytest.mark.gpu
@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize(("function", "has_vectors"), [("messages", True), ("messages", False), ("strengths", True)])
def test_gradients_on_a_cuda_device_are_those_of_the_cpu(function: str, has_vectors: bool, weights: bool) -> None:
    case = Case(32, has_vectors)
    call = vector_messages if function == "messages" else pair_strengths
    found = []
    for device in ("cpu", "cuda"):
        vectors = case.vectors.to(device).requires_grad_()
        features = [value.to(device).requires_grad_() for value in getattr(case, function)]
        if not weights:  # as a module that OpenMM calls: the last ones are its weights
            for tensor in features[5:] if function == "messages" else features[3:]:
                tensor.requires_grad_(False)
        results = call(case.graph(vectors, vectors.detach().norm(dim=1)), *features)
        results = results if isinstance(results, tuple) else (results,)
        wanted = [vectors, *(tensor for tensor in features if tensor.requires_grad and tensor.numel() > 0)]
        mixture = sum(
            (result * torch.sin(torch.arange(result.numel(), device=device)).view_as(result)).sum()
            for result in results
        )
        # Without vectors nothing depends on the weights that mix them: the CPU gives zeros, a device nothing.
        found.append([value.cpu() for value in torch.autograd.grad(mixture, wanted, materialize_grads=True)])
    assert len(found[0]) == len(found[1])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(one.abs().max()))


@pytest.mark.gpu
def test_a_cuda_device_gives_the_sums_of_the_cpu() -> None:
    case = Case(32, True)
    distances = case.vectors.norm(dim=1)
    graph, features = case.graph(case.vectors.cuda(), distances.cuda()), [value.cuda() for value in case.messages]
    cpu = vector_messages(case.graph(case.vectors, distances), *case.messages)
    cuda = vector_messages(graph, *features)
    with pytest.raises(RuntimeError, match=r"value is on the CPU and pairs on cuda:0: move one of them"):
        vector_messages(graph, features[0], features[1], case.messages[2], *features[3:])
    for one, other in zip(cpu, cuda, strict=True):
        torch.testing.assert_close(one, other.cpu(), rtol=1e-4, atol=1e-4)


def test_the_strength_of_a_pair_does_not_depend_on_its_order() -> None:
    case = Case(16, True)
    distances = case.vectors.norm(dim=1)
    keep = case.pairs[0] >= 0
    pairs, types, vectors = case.pairs[:, keep], case.types[keep], case.vectors[keep]
    graph = pair_graph(pairs, types, vectors, distances[keep], 40, START, CUTOFF, False)
    there = pair_strengths_reference(graph, *case.strengths)
    back = pair_strengths_reference(graph._replace(pairs=pairs.flip(0), vectors=-vectors), *case.strengths)
    torch.testing.assert_close(there, back)
