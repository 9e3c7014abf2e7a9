"""The compiled loops of encoders against the plain PyTorch of the same modules, and when which of them is used."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.networks.encoders.encoder import Encoder
from openmm_gnn.networks.encoders.equivariant_blocks import EdgeNetwork

WIDTHS = [(16, 16), (16, 4), (32, 2), (48, 1), (64, 8), (64, 2)]
"""Width and number of heads: several heads in one register, one in one, one in two."""


def encoder_of(architecture: str, width: int = 32, num_heads: int = 4, **changes: Any) -> Encoder:
    torch.manual_seed(1)
    spec = EncoderSpec(
        architecture, 2, 4.5, width=width, num_radial=16, num_heads=num_heads, noise_scale=0.2, **changes
    )
    encoder = Encoder(spec).requires_grad_(False)
    with torch.no_grad():  # an untrained network has no vectors worth comparing
        for name, weight in encoder.named_parameters():
            if name.endswith("bias"):
                weight.normal_(0, 0.3)
    return encoder.eval()


def molecule(num_atoms: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    positions = 7 * torch.rand(num_atoms, 3, generator=generator)
    return torch.randint(1, 10, (num_atoms,), generator=generator), positions


def was_fused(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Fills up with what each call decided."""
    decisions: list[bool] = []
    decide = EdgeNetwork.is_fused

    def watched(self: EdgeNetwork, vectors: Tensor, weight: Tensor) -> bool:
        decisions.append(decide(self, vectors, weight))
        return decisions[-1]

    monkeypatch.setattr(EdgeNetwork, "is_fused", watched)
    return decisions


@pytest.mark.parametrize("rule", ["nearest", "full", "fading"])
@pytest.mark.parametrize(("width", "num_heads"), WIDTHS)
@pytest.mark.parametrize("architecture", ["torchmd-et", "visnet", "tensornet"])
def test_compiled_and_plain_loops_agree(
    architecture: str, width: int, num_heads: int, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"neighbor_rule": rule, "smooth": rule == "fading"}
    encoder, (numbers, positions) = encoder_of(architecture, width, num_heads, **changes), molecule()
    decisions = was_fused(encoder, monkeypatch)
    fused = encoder(numbers, positions)
    plain = encoder.double()(numbers, positions.double())
    assert decisions == [True, False]
    for found, expected in zip(fused, plain, strict=True):
        scale = float(expected.abs().max())
        assert scale > 1e-4
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("architecture", ["torchmd-et", "visnet", "tensornet"])
def test_several_threads_and_any_order_of_edges_give_the_same(architecture: str, threads: int) -> None:
    encoder, (numbers, positions) = encoder_of(architecture), molecule(300)
    positions = 2.5 * positions
    index, vectors, distances = encoder.edges(positions)
    assert index.shape[1] > 4000
    expected = encoder.encode(numbers, index, vectors, distances)
    order = torch.randperm(index.shape[1])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = encoder.encode(numbers, index[:, order], vectors[order], distances[order])
    finally:
        torch.set_num_threads(before)
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_gradients_training_and_other_dtypes_use_the_plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, (numbers, positions) = encoder_of("visnet"), molecule()
    decisions = was_fused(encoder, monkeypatch)
    encoder(numbers, positions.requires_grad_())[0].sum().backward()
    assert positions.grad is not None and float(positions.grad.abs().max()) > 0
    with torch.no_grad():
        encoder(numbers, positions)
        encoder.train()(numbers, positions)
        encoder.double().eval()(numbers, positions.double())
    assert decisions == [False, True, False, False]
    encoder.float().requires_grad_(True).eval()
    encoder(numbers, positions.detach())[0].sum().backward()
    assert decisions[-1] is False and encoder.network.combine.weight.grad is not None


@pytest.mark.parametrize("architecture", ["torchmd-et", "visnet", "tensornet"])
def test_weights_of_sixteen_bits_see_distances_of_thirty_two(architecture: str) -> None:
    encoder, (numbers, positions) = encoder_of(architecture), molecule()
    exact = encoder(numbers, positions)
    coarse = copy.deepcopy(encoder).to(torch.bfloat16).eval()
    assert coarse.network.basis.centers.dtype == torch.float32
    for found, expected in zip(coarse(numbers, positions), exact, strict=True):
        assert found.dtype == torch.bfloat16
        assert float((found.float() - expected).norm() / expected.norm()) < 0.02


def test_a_width_that_the_operators_do_not_take_uses_the_plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    for width, num_heads in ((24, 3), (48, 4)):
        encoder = encoder_of("torchmd-et", width, num_heads)
        decisions = was_fused(encoder, monkeypatch)
        assert bool(torch.isfinite(encoder(*molecule())[0]).all())
        assert decisions[-1] is False


def test_tables_follow_the_weights() -> None:
    first, second, given = encoder_of("tensornet"), encoder_of("tensornet"), molecule()
    with torch.no_grad():
        for weight in second.parameters():
            weight.mul_(1.1)
    second.eval()
    first.load_state_dict(second.state_dict())
    assert not any("table" in name for name in first.state_dict())
    for encoder in (first, copy.deepcopy(second), second.train().eval()):
        torch.testing.assert_close(encoder(*given)[0].double(), second.double()(given[0], given[1].double())[0],
                                   rtol=1e-4, atol=1e-5)  # fmt: skip
        second.float()


def test_operators_refuse_what_does_not_fit() -> None:
    encoder, (numbers, positions) = encoder_of("torchmd-et"), molecule(5)
    index, vectors, distances = encoder.edges(positions)
    with pytest.raises(RuntimeError, match="holds atom 5: there are 5"):
        encoder.encode(numbers, index + 1, vectors, distances)
    with pytest.raises(RuntimeError, match="shape"):
        encoder.encode(numbers, index, vectors[:-1], distances[:-1])
