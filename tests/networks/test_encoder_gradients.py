"""Gradients of the compiled messages of encoders against plain PyTorch in float64, and when which of them is used."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from rounding import rounding_of_table_slopes
from torch import Tensor

from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.graph.radial_basis import distances_in_knots, used_knots
from openmm_gnn.kernels.encoder_messages import (
    EdgePlan,
    activated_table,
    attention_messages,
    first_tensors,
    tabulated_filters,
    tensor_messages,
)
from openmm_gnn.networks.encoders.encoder import Encoder
from openmm_gnn.networks.encoders.tensornet import spread
from openmm_gnn.networks.encoders.torchmd_et import AttentionLayer

WIDTHS = [(16, 16), (16, 4), (48, 1), (64, 8), (64, 2)]
"""Width and number of heads: several heads in one register, one in one, one in two."""
TABLE_SLOPES = rounding_of_table_slopes(769)
"""Share of the largest gradient by distance, at least a filter's value over the cutoff; 1.4e-4."""


def encoder_of(width: int = 32, num_heads: int = 4, architecture: str = "torchmd-et", **changes: Any) -> Encoder:
    torch.manual_seed(1)
    spec = EncoderSpec(
        architecture, 2, 4.5, width=width, num_radial=16, num_heads=num_heads, noise_scale=0.2, **changes
    )
    encoder = Encoder(spec)
    with torch.no_grad():  # an untrained network has no vectors worth comparing
        for name, weight in encoder.named_parameters():
            if name.endswith("bias"):
                weight.normal_(0, 0.3)
    return encoder


def molecules(num_atoms: int, size: float = 7.0) -> tuple[Tensor, Tensor, Tensor]:
    """Two of them in one batch, at random."""
    generator = torch.Generator().manual_seed(2)
    positions = size * torch.rand(num_atoms, 3, generator=generator)
    return torch.randint(1, 10, (num_atoms,), generator=generator), positions, torch.arange(num_atoms) // 25


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Equal to `tolerance` of the largest number."""
    scale = float(expected.abs().max()) if expected.numel() else 1.0
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=tolerance * max(scale, 1e-8))


# ---- the operator itself ---------------------------------------------------------------------------------------------


def plan_of(index: Tensor, directions: Tensor, envelope: Tensor, places: Tensor) -> EdgePlan:
    """A plan for the operators of the CPU, which need no rows."""
    nothing = torch.empty(0)
    return EdgePlan(index, nothing.int(), directions, envelope, places, nothing, nothing, True)


def interpolated(places: Tensor, table: Tensor) -> Tensor:
    """(E, C) Hermite's cubics between the knots of a table, in operations that PyTorch differentiates."""
    below = places.detach().to(torch.int64).clamp(0, table.size(0) - 2)
    t = (places - below).unsqueeze(1)
    low, high = table[below], table[below + 1]
    return (
        (1 + 2 * t) * (1 - t) ** 2 * low[:, 0]
        + t * (1 - t) ** 2 * low[:, 1]
        + t**2 * (3 - 2 * t) * high[:, 0]
        - t**2 * (1 - t) * high[:, 1]
    )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("width", "num_heads"), WIDTHS)
def test_every_gradient_is_that_of_plain_operations(width: int, num_heads: int, threads: int) -> None:
    torch.manual_seed(3)
    num_atoms, num_edges = 40, 4100  # of two threads, if there are two
    index = torch.randint(0, num_atoms - 1, (2, num_edges))  # the last atom has no edge
    inputs = [
        torch.randn(num_edges, 3),
        torch.rand(num_edges),
        11.0 * torch.rand(num_edges, dtype=torch.float64),
        torch.randn(num_atoms, 5 * width),
        torch.randn(num_atoms, 3, width),
        0.3 * torch.randn(12, 2, 4 * width),
    ]
    layer = AttentionLayer(EncoderSpec("torchmd-et", 1, 4.5, width=width, num_heads=num_heads))
    layer.num_heads, layer.head_width = num_heads, width // num_heads
    weights = torch.randn(num_atoms, width), torch.randn(num_atoms, 3, width)

    def gradients(given: list[Tensor], fused: bool) -> tuple[Tensor, ...]:
        given = [value.detach().requires_grad_() for value in given]
        directions, envelope, places, node, vectors, table = given
        plan = plan_of(index, directions, envelope, places)
        if fused:
            sums = attention_messages(plan, node, vectors, table, width // num_heads)
        else:
            sums = layer.messages(plan, node, vectors, interpolated(places, table))
        loss = sum((found * weight.to(found)).sum() for found, weight in zip(sums, weights, strict=True))
        return torch.autograd.grad(loss, given)

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = gradients(inputs, True)
    finally:
        torch.set_num_threads(before)
    for one, other in zip(found, gradients([value.double() for value in inputs], False), strict=True):
        assert float(other.abs().max()) > 0.1
        close(one, other)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_gradient_of_tensors_is_that_of_plain_operations(threads: int) -> None:
    torch.manual_seed(7)
    num_atoms, num_edges, width = 40, 4100, 32
    index = torch.randint(0, num_atoms - 1, (2, num_edges))
    places = 11.0 * torch.rand(num_edges, dtype=torch.float64)
    table, parts = torch.randn(12, 2, 3 * width), torch.randn(num_atoms, 9, width)
    directions = torch.randn(num_edges, 3)
    receiver, sender = torch.randn(num_atoms, width), torch.randn(num_atoms, width)
    weights = torch.randn(num_atoms, 9, width)

    def summed(messages: Tensor) -> Tensor:
        return torch.zeros(num_atoms, 9, width, dtype=messages.dtype).index_add(0, index[0], messages)

    def plain_messages(places: Tensor, parts: Tensor, table: Tensor) -> Tensor:
        return summed(spread(interpolated(places, table)) * parts[index[1]])

    def plain_first(directions: Tensor, places: Tensor, receiver: Tensor, sender: Tensor, table: Tensor) -> Tensor:
        outer = directions[:, :, None] * directions[:, None, :]
        third = directions.square().sum(1) / 3
        symmetric = outer - third[:, None, None] * torch.eye(3, dtype=outer.dtype)
        numbers = symmetric[:, [0, 0, 0, 1, 1], [0, 1, 2, 1, 2]]
        shape = torch.cat([torch.ones_like(third)[:, None], directions, numbers], dim=1)
        pair = (receiver[index[0]] + sender[index[1]])[:, None]
        return summed(spread(interpolated(places, table)) * shape[:, :, None] * pair)

    def compiled_messages(places: Tensor, parts: Tensor, table: Tensor) -> Tensor:
        return tensor_messages(plan_of(index, directions, torch.ones(num_edges), places), parts, table)

    def compiled_first(directions: Tensor, places: Tensor, receiver: Tensor, sender: Tensor, table: Tensor) -> Tensor:
        return first_tensors(plan_of(index, directions, torch.ones(num_edges), places), receiver, sender, table)

    def gradients(function: Any, given: list[Tensor]) -> list[Tensor]:
        given = [value.detach().requires_grad_() for value in given]
        sums = function(*given)
        return [sums.detach(), *torch.autograd.grad((sums * weights.to(sums)).sum(), given)]

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for fused, plain, given in (
            (compiled_messages, plain_messages, [places, parts, table]),
            (compiled_first, plain_first, [directions, places, receiver, sender, table]),
        ):
            found = gradients(fused, given)
            exact = gradients(plain, [value.double() for value in given])
            for one, other in zip(found, exact, strict=True):
                close(one, other)
    finally:
        torch.set_num_threads(before)


def test_a_table_of_the_used_knots_alone_gives_the_same() -> None:
    torch.manual_seed(4)
    table = torch.randn(770, 2, 16)
    places = distances_in_knots(torch.cat([torch.zeros(5), 1.0 + 3.4 * torch.rand(60), torch.tensor([4.5, 9.0])]), 4.5)
    used, inside = used_knots(places, 770)
    assert len(used) < 200 and bool((used.diff() > 0).all())
    torch.testing.assert_close(tabulated_filters(inside, table[used]), tabulated_filters(places, table))
    assert used_knots(places[:0], 770)[0].tolist() == [0, 1]


def test_an_activated_table_holds_the_activation_and_its_slope() -> None:
    torch.manual_seed(6)
    inputs = [2 * torch.randn(30, 2, 48), torch.randn(48)]
    weights = torch.randn(30, 2, 48)

    def plain(rows: Tensor, bias: Tensor) -> Tensor:
        z = rows[:, 0] + bias
        gate = torch.sigmoid(z)
        return torch.stack([z * gate, (gate + z * gate * (1 - gate)) * rows[:, 1]], dim=1)

    def both(function: Any, given: list[Tensor]) -> list[Tensor]:
        given = [value.detach().requires_grad_() for value in given]
        table = function(*given)
        return [table.detach(), *torch.autograd.grad((table * weights.to(table)).sum(), given)]

    exact = both(plain, [value.double() for value in inputs])
    for found, expected in zip(both(activated_table, inputs), exact, strict=True):
        close(found, expected, 2e-6)


# ---- networks --------------------------------------------------------------------------------------------------------


def weight_gradients(encoder: Encoder, *given: Any) -> dict[str, Tensor]:
    """Of a loss in which every output counts."""
    encoder.zero_grad()
    scalars, vectors = encoder(*given)
    generator = torch.Generator().manual_seed(5)
    noise = encoder.predicted_noise(*given)
    loss = sum(
        (found * torch.randn(found.shape, generator=generator, dtype=torch.float64).to(found)).sum()
        for found in (scalars, vectors, noise)
    )
    loss.backward()
    return {name: weight.grad.clone() for name, weight in encoder.named_parameters() if weight.grad is not None}


CASES: dict[str, tuple[int, float, dict[str, Any]]] = {
    "dense": (50, 7.0, {}),
    "atoms without neighbours": (12, 60.0, {}),
    "capped": (50, 5.0, {"max_neighbors": 6, "neighbor_rule": "nearest", "smooth": False}),
    "crowded": (50, 5.0, {"max_neighbors": 6}),
    "every neighbour": (40, 7.0, {"neighbor_rule": "full"}),
    "one atom": (1, 7.0, {}),
    "nothing": (0, 7.0, {}),
}


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("architecture", ["torchmd-et", "tensornet"])
def test_training_has_the_gradients_of_plain_pytorch(architecture: str, case: str, mode: str) -> None:
    num_atoms, size, changes = CASES[case]
    changes = {**changes, "architecture": architecture}
    encoder, (numbers, positions, batch) = encoder_of(**changes).train(mode == "train"), molecules(num_atoms, size)
    assert encoder.network.is_fused(positions, encoder.network.norm.weight)
    found = weight_gradients(encoder, numbers, positions, batch)
    exact = weight_gradients(copy.deepcopy(encoder).double(), numbers, positions.double(), batch)
    assert found.keys() == exact.keys() and len(found) > 20
    for name in found:
        close(found[name], exact[name])


@pytest.mark.parametrize(("width", "num_heads"), WIDTHS)
def test_training_of_every_width_has_the_gradients_of_plain_pytorch(width: int, num_heads: int) -> None:
    encoder, given = encoder_of(width, num_heads), molecules(40)
    found = weight_gradients(encoder, *given)
    exact = weight_gradients(copy.deepcopy(encoder).double(), given[0], given[1].double(), given[2])
    for name in exact:
        close(found[name], exact[name])


@pytest.mark.parametrize("scripted", [False, True])
@pytest.mark.parametrize(
    ("architecture", "smooth"), [("torchmd-et", False), ("torchmd-et", True), ("tensornet", False)]
)
def test_a_frozen_network_has_the_forces_of_plain_pytorch(architecture: str, scripted: bool, smooth: bool) -> None:
    encoder, (numbers, positions, batch) = encoder_of(64, 8, architecture, smooth=smooth), molecules(50)
    encoder.requires_grad_(False).eval()

    def forces(network: Any, places: Tensor) -> Tensor:
        places = places.detach().requires_grad_()
        scalars, vectors = network(numbers, places, batch)
        return torch.autograd.grad(scalars.square().sum() + vectors.sum(), places)[0]

    compiled = encoder.network.is_fused(positions.clone().requires_grad_(), encoder.network.norm.weight)
    assert compiled == (architecture == "torchmd-et")
    called: Any = torch.jit.freeze(torch.jit.script(encoder)) if scripted else encoder
    found = [forces(called, positions) for _ in range(3)]  # TorchScript may rewrite itself after the first call
    exact = forces(copy.deepcopy(encoder).double(), positions.double())
    for one in found:
        close(one, exact, TABLE_SLOPES if compiled else 1e-5)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("wanted", ["scalars", "vectors"])
@pytest.mark.parametrize(("width", "num_heads"), WIDTHS)
def test_gradients_by_the_edges_of_every_width_are_those_of_plain_pytorch(
    width: int, num_heads: int, wanted: str, threads: int
) -> None:
    encoder, (numbers, positions, _) = (
        encoder_of(width, num_heads, max_neighbors=15, neighbor_rule="nearest"),
        molecules(300, 12.0),
    )
    encoder.requires_grad_(False).eval()
    index, vectors, distances = encoder.edges(positions)
    assert index.shape[1] > 4000

    def gradients(network: Encoder, *edges: Tensor) -> tuple[Tensor, ...]:
        given = [value.detach().requires_grad_() for value in edges]
        scalars, carried = network.encode(numbers, index, given[0], given[1])
        chosen = scalars.square() if wanted == "scalars" else carried * torch.tensor([[[1.0], [2.0], [-3.0]]])
        return torch.autograd.grad(chosen.sum(), given)

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = gradients(encoder, vectors, distances)
    finally:
        torch.set_num_threads(before)
    exact = gradients(copy.deepcopy(encoder).double(), vectors.double(), distances.double())
    for one, other in zip(found, exact, strict=True):
        own = index[0] == index[1]
        close(one[~own], other[~own], TABLE_SLOPES)


@pytest.mark.parametrize("num_atoms", [0, 1])
def test_atoms_alone_feel_no_force(num_atoms: int) -> None:
    encoder, (numbers, positions, _) = encoder_of().requires_grad_(False).eval(), molecules(num_atoms)
    places = positions.requires_grad_()
    scalars, vectors = encoder(numbers, places)
    assert scalars.shape == (num_atoms, 32) and vectors.shape == (num_atoms, 3, 32)
    force = torch.autograd.grad(scalars.sum() + vectors.sum(), places)[0]
    assert torch.equal(force, torch.zeros(num_atoms, 3))


def test_the_whole_network_as_one_operator_gives_the_features_of_its_layers() -> None:
    encoder, (numbers, positions, batch) = encoder_of(64, 8).requires_grad_(False).eval(), molecules(50)
    layers = encoder(numbers, positions, batch)
    whole = encoder(numbers, positions.clone().requires_grad_(), batch)
    for one, other in zip(whole, layers, strict=True):
        assert one.grad_fn is not None and other.grad_fn is None
        torch.testing.assert_close(one.detach(), other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


# ---- which form is used ----------------------------------------------------------------------------------------------


def test_training_on_forces_and_wide_numbers_use_plain_pytorch() -> None:
    encoder, (numbers, positions, batch) = encoder_of(), molecules(30)
    weight = encoder.network.norm.weight
    assert encoder.network.is_fused(positions, weight)
    assert not encoder.network.is_fused(positions.clone().requires_grad_(), weight)
    places = positions.clone().requires_grad_()
    energy = encoder(numbers, places, batch)[0].square().sum()
    force = torch.autograd.grad(energy, places, create_graph=True)[0]
    force.square().sum().backward()
    grad = encoder.network.layers[0].radial.weight.grad
    assert grad is not None and float(grad.abs().max()) > 0
    assert not encoder.double().network.is_fused(positions.double(), encoder.network.norm.weight)


def test_second_derivatives_of_the_compiled_form_are_refused_with_the_remedy() -> None:
    encoder, (numbers, positions, batch) = encoder_of().requires_grad_(False).eval(), molecules(30)

    def curvature() -> Tensor:
        places = positions.clone().requires_grad_()
        energy = encoder(numbers, places, batch)[0].square().sum()
        force = torch.autograd.grad(energy, places, create_graph=True)[0]
        return torch.autograd.grad(force.square().sum(), places)[0]

    with pytest.raises(RuntimeError, match=r"first derivatives only.*use_compiled\(False\)"):
        curvature()
    encoder.network.use_compiled(False)
    assert float(curvature().abs().max()) > 0


def test_weights_that_were_thawed_after_their_table_was_made_get_their_gradients() -> None:
    encoder, given = encoder_of().requires_grad_(False).eval(), molecules(30)
    expected = weight_gradients(copy.deepcopy(encoder).requires_grad_(True).train(), *given)
    found = weight_gradients(encoder.requires_grad_(True), *given)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_weights_that_change_are_seen_at_once_in_training() -> None:
    encoder, given = encoder_of(), molecules(30)
    with torch.no_grad():
        before = weight_values(encoder, *given)
        for weight in encoder.parameters():
            weight.mul_(1.2)
    after = weight_values(encoder, *given)
    exact = weight_values(copy.deepcopy(encoder).double(), given[0], given[1].double(), given[2])
    assert float((after - before).abs().max()) > 0.01
    close(after, exact)


def weight_values(encoder: Encoder, *given: Any) -> Tensor:
    """The scalars, as a pass in training computes them."""
    with torch.enable_grad():
        return encoder(*given)[0].detach()


def test_two_networks_with_tables_do_not_disturb_each_other() -> None:
    encoder, given = encoder_of(), molecules(30)
    average = torch.optim.swa_utils.AveragedModel(encoder)
    average.eval()
    table = average.module.network.layers[0].table
    with torch.no_grad():
        first = average.module(*given)[0]
        second = average.module(*given)[0]
    assert average.module.network.layers[0].table is table and torch.equal(first, second)
    average.train()
    average.update_parameters(encoder)
    assert average.module.network.layers[0].table.size(0) == 0
