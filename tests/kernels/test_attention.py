"""The attention kernel against the textbook, and what it keeps in memory."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from openmm_gnn.kernels.attention import attend, attention_weights, join_heads, split_heads
from openmm_gnn.networks.tokens.token_mixers import SubFormer

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6}


def heads(tokens: int, width: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Query and key of 4 channels per head, values of `width`."""
    return [torch.randn(2, 3, tokens, size, dtype=dtype, requires_grad=True) for size in (4, 4, width)]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])
@pytest.mark.parametrize("width", [4, 16])
@pytest.mark.parametrize("tokens", [1, 7, 70])
def test_values_and_gradients_are_those_of_the_textbook(tokens: int, width: int, dtype: torch.dtype) -> None:
    given = heads(tokens, width, dtype)
    results = []
    for call in (attend, lambda q, k, v, scale: attention_weights(q, k, scale) @ v, torch.jit.script(attend)):
        heard = call(*given, 0.5)
        results.append([heard.detach(), *torch.autograd.grad(heard.square().sum(), given)])
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=100 * TOLERANCE[dtype])


def test_heads_are_split_and_joined_again() -> None:
    channels = torch.randn(2, 5, 12)
    split = split_heads(channels, 3)
    assert torch.equal(split[1, 2, 4], channels[1, 4, 8:]) and torch.equal(join_heads(split), channels)


def memory_mb(what: str) -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize("name", ["equivariant", "subformer"])
def test_a_training_step_of_many_tokens_never_holds_the_matrix_of_the_weights(name: str) -> None:
    """4000 tokens and 4 heads: the matrix alone is 244 MB in float32, with dropout asked for as well."""
    if not Path("/proc/self/clear_refs").is_file():
        pytest.skip("the peak of memory can be reset on Linux alone")
    from openmm_gnn.networks.tokens.equivariant_layers import EquivariantTransformer, LinearQueryKey

    module: torch.nn.Module = SubFormer(16, 1, 4, 0.1, own_token=True)
    given = [torch.randn(1, 4000, 16)]
    if name == "equivariant":
        module = EquivariantTransformer(16, [LinearQueryKey(16)], 4, 0.1)
        given.append(torch.randn(1, 4000, 3, 16))
    module.train()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_mb("VmRSS")
    made = module(*given)
    sum(part.square().sum() for part in (made if isinstance(made, tuple) else (made,))).backward()
    assert memory_mb("VmHWM") - before < 0.4 * 4 * 4000**2 * 4 / 2**20


@pytest.mark.gpu
def test_half_precision_on_a_gpu_gives_nearly_the_textbook() -> None:
    """Through the flash-attn package where it is installed."""
    given = [tensor.detach().cuda() for tensor in heads(300, 16, torch.float32)]
    expected = attention_weights(given[0], given[1], 1 / math.sqrt(4)) @ given[2]
    found = attend(*[tensor.bfloat16() for tensor in given], 1 / math.sqrt(4))
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.05)
