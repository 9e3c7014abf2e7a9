"""Every equivariant module of the CV network after 100 training steps, in float64: rotation, mirror, translation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from token_frames import MIRROR, random_tokens, rotation, train, turned
from torch import Tensor, nn

from openmm_gnn.networks.tokens.equivariant_layers import (
    EquivariantDropout,
    EquivariantLinear,
    EquivariantNorm,
    EquivariantTransformer,
    GatedFeedForward,
    GatedProjection,
    LinearQueryKey,
    LocalQueryKey,
)
from openmm_gnn.networks.tokens.residue_graph import GeometricPerceptron, ResidueGraphConvolution, SubGVP
from openmm_gnn.networks.tokens.token_mixers import EquivariantMerger

FRAMES, TOKENS, WIDTH = 3, 9, 8
CHAINS = (0, 0, 0, 0, 0, 1, 1, 1, 1)
WINDOWS = ((0, 1, 2), (3, 4), (5, 6, 7), (8,))


class OfTokens(nn.Module):
    """A module on scalars and vectors, as one on tokens and places."""

    def __init__(self, module: nn.Module, places: bool, flat: bool = False) -> None:
        super().__init__()
        self.module, self.places, self.flat = module, places, flat

    def forward(self, tokens: Tensor, coordinates: Tensor) -> Tensor:
        scalars, vectors = tokens[:, :, 0], tokens[:, :, 1:]
        if self.flat:
            new, new_vectors = self.module(scalars.flatten(0, 1), vectors.flatten(0, 1))
            scalars, vectors = new.view(FRAMES, TOKENS, -1), new_vectors.view(FRAMES, TOKENS, 3, -1)
        else:
            scalars, vectors = self.module(scalars, vectors, *([coordinates] if self.places else []))
        return torch.cat([scalars.unsqueeze(2), vectors], dim=2)


def transformer(local: bool, chiral: bool = False) -> OfTokens:
    query_keys = [LocalQueryKey(WIDTH, CHAINS, chiral) if local else LinearQueryKey(WIDTH) for _ in range(2)]
    return OfTokens(EquivariantTransformer(WIDTH, query_keys, 2, 0.1), places=False)


def convolution(gated: bool, chiral: bool = False) -> OfTokens:
    return OfTokens(ResidueGraphConvolution(WIDTH, 0.8, gated, chiral), places=True)


MODULES: dict[str, Callable[[], OfTokens]] = {
    "linear": lambda: OfTokens(EquivariantLinear(WIDTH, WIDTH), places=False),
    "gated projection": lambda: OfTokens(GatedProjection(WIDTH, WIDTH), places=False),
    "norm": lambda: OfTokens(EquivariantNorm(WIDTH), places=False),
    "feed forward": lambda: OfTokens(GatedFeedForward(WIDTH, 0.1), places=False),
    "merger": lambda: OfTokens(EquivariantMerger(WINDOWS, WIDTH), places=False),
    "perceptron": lambda: OfTokens(GeometricPerceptron((WIDTH, WIDTH), (WIDTH, WIDTH)), places=False, flat=True),
    "SubGVP": lambda: OfTokens(SubGVP(WIDTH, 2, 0.8, 0.1), places=True),
    "attention": lambda: transformer(local=False),
    "local attention": lambda: transformer(local=True),
    "chiral local attention": lambda: transformer(local=True, chiral=True),
    "graph convolution": lambda: convolution(gated=False),
    "gated graph convolution": lambda: convolution(gated=True),
    "chiral graph convolution": lambda: convolution(gated=True, chiral=True),
}
TRAINED: dict[str, OfTokens] = {}


def trained(name: str) -> OfTokens:
    """The module after 40 steps towards targets that turn with nothing, so that any slip can be learned."""
    if name not in TRAINED:
        torch.manual_seed(1)
        module = MODULES[name]().double()
        before = {name: weight.detach().clone() for name, weight in module.named_parameters()}
        tokens, places = random_tokens(FRAMES, TOKENS, WIDTH, seed=5)
        targets = torch.randn_like(module(tokens, places))
        losses = train(module.parameters(), lambda: (module(tokens, places) - targets).square().mean())
        assert losses[-1] < losses[0]
        for weight_name, weight in module.named_parameters():
            # A softmax does not feel the bias of the keys, which is the same for all of them.
            if not weight_name.endswith("key.bias"):
                assert float((weight.detach() - before[weight_name]).abs().max()) > 1e-3, weight_name
        TRAINED[name] = module.eval().requires_grad_(False)
    return TRAINED[name]


@pytest.mark.parametrize("name", MODULES)
def test_what_goes_in_turned_and_moved_comes_out_turned(name: str) -> None:
    module, turn = trained(name), rotation()
    tokens, places = random_tokens(FRAMES, TOKENS, WIDTH)
    found = module(turned(tokens, turn), places @ turn.T + 3.0)
    expected = turned(module(tokens, places), turn)
    assert float(expected[:, :, 1:].abs().max()) > 1e-2
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", MODULES)
def test_what_goes_in_mirrored_comes_out_mirrored_unless_chiral(name: str) -> None:
    module = trained(name)
    tokens, places = random_tokens(FRAMES, TOKENS, WIDTH)
    found = module(turned(tokens, MIRROR), places @ MIRROR.T)
    change = float((found - turned(module(tokens, places), MIRROR)).abs().max())
    if name.startswith("chiral"):
        assert change > 1e-3
    else:
        assert change <= 1e-9


@pytest.mark.parametrize("name", [name for name in MODULES if name != "perceptron"])  # which has rows, no frames
def test_a_frame_has_the_same_result_in_any_batch(name: str) -> None:
    module = trained(name)
    tokens, places = random_tokens(FRAMES, TOKENS, WIDTH)
    torch.testing.assert_close(module(tokens[1:2], places[1:2]), module(tokens, places)[1:2], rtol=0, atol=1e-12)


def test_dropout_takes_whole_vectors_and_keeps_the_mean() -> None:
    scalars = torch.ones(50, 40, 16, dtype=torch.float64)
    vectors = (
        torch.ones(50, 40, 3, 16, dtype=torch.float64) * torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)[:, None]
    )
    dropout = EquivariantDropout(0.25)
    kept, kept_vectors = dropout(scalars, vectors)
    shares = kept_vectors / vectors
    torch.testing.assert_close(shares, shares[:, :, :1].expand_as(shares))
    assert float((shares[:, :, 0] == 0).double().mean()) == pytest.approx(0.25, abs=0.01)
    assert float(kept.mean()) == pytest.approx(1, abs=0.02) and float(shares.mean()) == pytest.approx(1, abs=0.02)
    assert dropout.eval()(scalars, vectors)[1] is vectors


@pytest.mark.parametrize("name", [name for name in MODULES if "graph" in name or name == "SubGVP"])
def test_nothing_jumps_when_a_neighbour_crosses_the_cutoff(name: str) -> None:
    module = trained(name)
    tokens, _ = random_tokens(FRAMES, TOKENS, WIDTH)
    places = torch.zeros(FRAMES, TOKENS, 3, dtype=torch.float64)
    places[:, :, 0] = torch.arange(TOKENS) * 0.5  # each within 0.8 nm of its next neighbours alone
    made = []
    for distance in (0.8 - 1e-6, 0.8 + 1e-6):
        places[:, -1, 0] = places[:, -2, 0] + distance
        made.append(module(tokens, places))
    places[:, -1, 0] = places[:, -2, 0] + 0.4
    assert float((made[0] - module(tokens, places)).abs().max()) > 1e-3
    torch.testing.assert_close(made[0], made[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MODULES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    module = trained(name)
    tokens, places = random_tokens(FRAMES, TOKENS, WIDTH, seed=8)
    weights = torch.randn_like(module(tokens, places))

    def value(tokens: Tensor, places: Tensor) -> Tensor:
        return (module(tokens, places) * weights).sum()

    for given in (tokens, places) if module.places else (tokens,):
        given.requires_grad_()
        (slopes,) = torch.autograd.grad(value(tokens, places), given, allow_unused=True)
        given.requires_grad_(False)
        change = torch.randn_like(given)
        step = 1e-6 * change
        if given is tokens:
            difference = value(tokens + step, places) - value(tokens - step, places)
        else:
            difference = value(tokens, places + step) - value(tokens, places - step)
        along = 0.0 if slopes is None else float((slopes * change).sum())
        assert along == pytest.approx(float(difference) / 2e-6, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", MODULES)
def test_vectors_without_length_have_gradients_without_nan(name: str) -> None:
    module = trained(name)
    tokens = torch.zeros(FRAMES, TOKENS, 4, WIDTH, dtype=torch.float64, requires_grad=True)
    places = torch.zeros(FRAMES, TOKENS, 3, dtype=torch.float64, requires_grad=True)
    made = module(tokens, places)
    made.square().sum().backward()
    assert bool(torch.isfinite(made).all()) and tokens.grad is not None and bool(torch.isfinite(tokens.grad).all())
    assert places.grad is None or bool(torch.isfinite(places.grad).all())
