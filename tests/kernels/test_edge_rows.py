"""CUDA's operators of encoders against the plain PyTorch of the models, in the grid emulator and on a device."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cuda_backends import Backend
from torch import Tensor

from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.kernels import encoder_messages
from openmm_gnn.kernels.encoder_messages import EdgePlan, attention_messages, edge_rows
from openmm_gnn.networks.encoders.encoder import Encoder
from openmm_gnn.networks.encoders.equivariant_blocks import EdgeNetwork

WIDTHS = [(16, 16), (16, 4), (32, 2), (48, 1), (64, 8), (128, 8), (256, 4)]
"""Width and number of heads: strands of 16 threads to one, heads of one channel to 64."""
CUTOFF = 4.5


def encoder_of(architecture: str, width: int = 32, num_heads: int = 4, **changes: Any) -> Encoder:
    torch.manual_seed(1)
    encoder = Encoder(EncoderSpec(architecture, 2, CUTOFF, width, num_radial=16, num_heads=num_heads, **changes))
    with torch.no_grad():  # an untrained network has no vectors worth comparing
        for name, weight in encoder.named_parameters():
            if name.endswith("bias"):
                weight.normal_(0, 0.3)
    return encoder.requires_grad_(False).eval()


def molecule(num_atoms: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """At 0.1 atoms per cubic angstrom, the last one alone: 38 neighbours of an atom inside."""
    generator = torch.Generator().manual_seed(2)
    positions = (10 * num_atoms) ** (1 / 3) * torch.rand(num_atoms, 3, generator=generator)
    positions[-1] = 1e3
    return torch.randint(1, 10, (num_atoms,), generator=generator).to(device), positions.to(device)


@pytest.fixture
def decisions(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Fills up with what each network decided; on the CPU its networks believe that they are on a GPU."""
    seen: list[bool] = []
    decide = EdgeNetwork.is_fused

    def watched(self: EdgeNetwork, vectors: Tensor, weight: Tensor) -> bool:
        seen.append(decide(self, vectors, weight))
        return seen[-1]

    monkeypatch.setattr(EdgeNetwork, "is_fused", watched)
    if device.type == "cpu":
        monkeypatch.setattr(encoder_messages, "on_cuda", lambda tensor: tensor.dtype == torch.float32)
    return seen


def assert_close(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], tolerance: float = 2e-5) -> None:
    for mine, other in zip(found, expected, strict=True):
        scale = float(other.abs().max())
        assert scale > 1e-4
        torch.testing.assert_close(mine.cpu().double(), other.cpu().double(), rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize(("num_atoms", "num_edges"), [(40, 700), (3, 0), (0, 0), (1, 5), (2500, 9000)])
def test_rows_hold_each_edge_once_in_order(backend: Backend, num_atoms: int, num_edges: int) -> None:
    generator = torch.Generator().manual_seed(4)
    index = torch.randint(-1, max(num_atoms, 1), (2, num_edges), generator=generator)
    distances = 1.2 * CUTOFF * torch.rand(num_edges, generator=generator)
    rows = backend.operators.edge_rows(backend.place(index), backend.place(distances), CUTOFF, 1, num_atoms, True)
    assert rows.dtype == torch.int32 and rows.shape == (2 * (num_atoms + 1 + num_edges),)
    for receivers, part in zip(index.flip(0), rows.cpu().chunk(2), strict=True):
        starts, order = part[: num_atoms + 1], part[num_atoms + 1 :]
        kept = ((index >= 0).all(dim=0) & (distances < CUTOFF)).nonzero().squeeze(1)
        counts = torch.bincount(receivers[kept], minlength=num_atoms)
        assert starts.tolist() == [0, *counts.cumsum(0).tolist()]
        assert torch.equal(order[: len(kept)].long(), kept[receivers[kept].argsort(stable=True)])


@pytest.mark.parametrize("rule", ["nearest", "full", "fading"])
@pytest.mark.parametrize(("width", "num_heads"), WIDTHS)
@pytest.mark.parametrize("architecture", ["torchmd-et", "visnet", "tensornet"])
def test_encoders_equal_plain_torch(
    device: torch.device, decisions: list[bool], architecture: str, width: int, num_heads: int, rule: str
) -> None:
    encoder = encoder_of(architecture, width, num_heads, neighbor_rule=rule, smooth=rule == "fading").to(device)
    numbers, positions = molecule(24 if width > 100 else 40, device)
    found = encoder(numbers, positions)
    expected = encoder.double()(numbers, positions.double())
    assert decisions == [True, False]
    assert_close(found, expected)


@pytest.mark.parametrize("architecture", ["torchmd-et", "visnet", "tensornet"])
def test_edges_in_any_order_and_beyond_the_cutoff(
    device: torch.device, decisions: list[bool], architecture: str
) -> None:
    """Rows of more edges than a tile holds, mixed up, and with those that padding makes."""
    encoder = encoder_of(architecture, neighbor_rule="full").to(device)
    numbers, positions = molecule(90, device)
    index, vectors, distances = encoder.edges(0.6 * positions)
    assert int(torch.bincount(index[1]).max()) > 64
    expected = encoder.encode(numbers, index, vectors, distances)
    far = torch.tensor([[0.0, 0.0, CUTOFF]], device=device).expand(50, 3)
    padding = torch.zeros((2, 50), dtype=torch.int64, device=device)
    order = torch.randperm(index.shape[1] + 50).to(device)
    found = encoder.encode(
        numbers,
        torch.cat([index, padding], dim=1)[:, order],
        torch.cat([vectors, far])[order],
        torch.cat([distances, far[:, 2]])[order],
    )
    assert decisions == [True, True]
    assert_close(found, expected, 2e-6)


@pytest.mark.parametrize("architecture", ["torchmd-et", "visnet", "tensornet"])
def test_the_same_bits_at_every_call(device: torch.device, decisions: list[bool], architecture: str) -> None:
    encoder, given = encoder_of(architecture).to(device), molecule(50, device)
    first = encoder(*given)
    for _ in range(3):
        assert all(torch.equal(mine, other) for mine, other in zip(encoder(*given), first, strict=True))


def gradient(encoder: Encoder, numbers: Tensor, positions: Tensor) -> Tensor:
    """By the positions, of a sum over all features with weights of either sign."""
    places = positions.detach().requires_grad_()
    scalars, vectors = encoder(numbers, places)
    factors = torch.sin(torch.arange(vectors.numel(), device=vectors.device)).view_as(vectors).to(vectors.dtype)
    total = (vectors * factors).sum() + (scalars * factors[:, 0]).sum()
    return torch.autograd.grad(total, places)[0]


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("rule", ["nearest", "full"])
@pytest.mark.parametrize(("width", "num_heads"), WIDTHS)
def test_gradients_equal_those_of_plain_torch(
    device: torch.device, decisions: list[bool], width: int, num_heads: int, rule: str, smooth: bool
) -> None:
    encoder = encoder_of("torchmd-et", width, num_heads, neighbor_rule=rule, smooth=smooth)
    encoder = encoder.eval().to(device)
    numbers, positions = molecule(24 if width > 100 else 40, device)
    found = gradient(encoder, numbers, 0.7 * positions)
    fused = set(decisions)
    expected = gradient(encoder.double(), numbers, 0.7 * positions.double())
    assert fused == {True} and not decisions[-1]
    assert_close((found, found), (expected, expected))


def test_features_have_gradients_without_geometry_and_weights_none(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(6)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator).to(device)

    index = torch.randint(0, 9, (2, 40), generator=generator).to(device)
    rows = edge_rows(index, torch.zeros(40, device=device), CUTOFF, 1, 9, True)
    features, table = [normal(9, 80).requires_grad_(), normal(9, 3, 16).requires_grad_()], normal(7, 2, 64)
    geometry = [normal(40, 3), normal(40), 6 * torch.rand(40, generator=generator).double().to(device)]
    nothing = torch.empty(0, device=device)

    def plan(directions: Tensor, envelope: Tensor, places: Tensor) -> EdgePlan:
        return EdgePlan(index, rows, directions, envelope, places, nothing, nothing, True)

    scalars, vectors = attention_messages(plan(*geometry), *features, table, 4)
    alone = torch.autograd.grad(scalars.sum() + vectors.square().sum(), features)
    with_geometry = [x.clone().requires_grad_() for x in geometry]
    scalars, vectors = attention_messages(plan(*with_geometry), *features, table, 4)
    together = torch.autograd.grad(
        scalars.sum() + vectors.square().sum(), [*features, *with_geometry], create_graph=True
    )
    for mine, other in zip(alone, together, strict=False):
        assert torch.equal(mine, other)
    with pytest.raises(RuntimeError, match="have first derivatives only"):
        together[0].sum().backward()
    scalars, _ = attention_messages(plan(*geometry), *features, table.requires_grad_(), 4)
    with pytest.raises(RuntimeError, match="no gradients of weights"):
        scalars.sum().backward()


def test_what_has_no_compiled_gradients_is_plain_torch(device: torch.device, decisions: list[bool]) -> None:
    numbers, positions = molecule(20, device)
    for architecture in ("visnet", "tensornet"):
        scalars, _ = encoder_of(architecture).to(device)(numbers, positions.requires_grad_())
        assert scalars.requires_grad
    encoder = encoder_of("torchmd-et").to(device).requires_grad_(True).eval()
    encoder(numbers, positions.detach())
    with torch.no_grad():
        encoder(numbers, positions)
    encoder.network.use_compiled(False)
    with torch.no_grad():
        encoder(numbers, positions)
    assert decisions == [False, False, False, True, False]


@pytest.mark.parametrize("architecture", ["torchmd-et", "visnet", "tensornet"])
def test_under_autocast_messages_stay_float32(device: torch.device, decisions: list[bool], architecture: str) -> None:
    encoder, given = encoder_of(architecture).to(device), molecule(30, device)
    exact = encoder(*given)
    with torch.autocast(device.type, torch.bfloat16):
        coarse = encoder(*given)
    assert decisions == [True, True]
    assert_close((coarse[0].float(), coarse[1].float()), exact, 0.03)


@pytest.mark.parametrize("width", [16, 64])
def test_products_of_tensors_equal_those_of_the_cpu(backend: Backend, width: int) -> None:
    first, second = (torch.randn(37, 9, width, generator=torch.Generator().manual_seed(k)) for k in (1, 2))
    cpu = torch.ops.openmm_gnn
    for name, given in (
        ("scaled_tensors", [first]),
        ("tensor_products", [first, second]),
        ("tensor_squares", [first, second]),
    ):
        found = getattr(backend.operators, name)(*map(backend.place, given), 1)
        torch.testing.assert_close(found.cpu(), getattr(cpu, name)(*given, 1), rtol=1e-5, atol=4e-6)


def test_filters_of_a_table_equal_those_of_the_cpu(backend: Backend) -> None:
    generator = torch.Generator().manual_seed(8)
    places = 13 * torch.rand(300, generator=generator, dtype=torch.float64) - 1
    table = torch.randn(11, 2, 48, generator=generator)
    found = backend.operators.tabulated_filters(backend.place(places), backend.place(table), 1)
    expected = torch.ops.openmm_gnn.tabulated_filters(places, table, 1)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=4e-6)  # some roundings of four products


def test_wrong_shapes_are_refused_in_words(backend: Backend) -> None:
    operators, place = backend.operators, backend.place
    index, distances = place(torch.tensor([[0, 1, 1], [0, 0, 1]])), place(torch.ones(3))
    rows = operators.edge_rows(index, distances, CUTOFF, 0, 2, False)
    geometry = place(torch.zeros(3, 3)), distances, place(torch.zeros(3, dtype=torch.float64))
    table, parts = place(torch.zeros(5, 2, 48)), place(torch.zeros(2, 9, 16))
    with pytest.raises(RuntimeError, match="features of 272 channels in heads of 272: give a multiple of 16, at most"):
        wide = place(torch.zeros(2, 9, 272)), place(torch.zeros(5, 2, 816))
        operators.tensor_messages(index, rows, *geometry, *wide, 1)
    with pytest.raises(RuntimeError, match=r"rows has shape \(6\): expected \(7\)"):
        operators.tensor_messages(index, rows, *geometry, place(torch.zeros(3, 9, 16)), table, 1)
    with pytest.raises(RuntimeError, match=r"places has shape \(2\): expected \(3\)"):
        operators.tensor_messages(index, rows, *geometry[:2], geometry[2][:2], parts, table, 1)
    with pytest.raises(RuntimeError, match=r"a filter table has shape \(5, 2, 32\): expected \(any, 2, 48\)"):
        operators.tensor_messages(index, rows, *geometry, parts, table[:, :, :32].contiguous(), 1)
