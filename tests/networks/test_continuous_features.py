"""Features do not jump: neither where an atom comes within reach of another, nor where two change ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from openmm_gnn.graph.edges import encoder_edges
from openmm_gnn.networks.encoders.encoder import Encoder
from openmm_gnn.networks.weights import load_encoder

SHIPPED = ["peptide-et", "biomolecule-et", "biomolecule-et-small"]
PUBLIC = ["et_l6_h64_rbf64_r75.pth", "visnet_l6_h64_rbf64_r75.pth", "tensornet_l3_h64_rbf32_r5.pth"]
JUMP = 1e-9
"""Largest change of a feature over the largest feature, float64, where atoms move by 2e-12 of the cutoff: slopes of
the features are below 100 per cutoff."""
COMPILED = 2e-5
"""The same of the compiled operators, which have tables in float32: what they differ from plain PyTorch by. Atoms move
by 2e-7 of the cutoff, which float32 can tell."""


def encoder_named(name: str, request: pytest.FixtureRequest, rule: str | None = None) -> Encoder:
    folder: Path | None = request.getfixturevalue("geom2vec_data") if name in PUBLIC else None
    return load_encoder(name if folder is None else folder / name, rule)


def lattice(cutoff: float) -> tuple[Tensor, Tensor]:
    """64 atoms in disorder, of which more than 40 are within the cutoff of the one in the middle."""
    generator = torch.Generator().manual_seed(1)
    axis = torch.arange(4)
    places = 0.27 * cutoff * (torch.cartesian_prod(axis, axis, axis) + 0.1 * torch.rand(64, 3, generator=generator))
    return torch.tensor([6, 7, 8])[torch.randint(0, 3, (64,), generator=generator)], places.double()


def crossing(encoder: Encoder, step: float) -> tuple[Tensor, Tensor, Tensor]:
    """An atom just without and just within reach of the first one of a lattice, which it comes to from outside."""
    numbers, places = lattice(encoder.cutoff)
    away = torch.tensor([-1.0, -0.3, -0.2], dtype=torch.float64)
    away /= away.norm()

    def at(distance: float) -> Tensor:
        return torch.cat([places, (places[0] + distance * away)[None]])

    def reached(distance: float) -> bool:
        given = (encoder.cutoff, encoder.neighbor_rule, encoder.max_neighbors)
        index, _, _ = encoder_edges(at(distance), *given)
        return bool(((index[0] == 64) & (index[1] == 0)).any())

    near, far = 0.5 * encoder.cutoff, 1.1 * encoder.cutoff
    assert reached(near) and not reached(far)
    while far - near > 0.1 * step * encoder.cutoff:
        middle = 0.5 * (near + far)
        near, far = (middle, far) if reached(middle) else (near, middle)
    step *= encoder.cutoff
    return torch.cat([numbers, numbers[:1]]), at(near - step), at(far + step)


def exchange(encoder: Encoder, step: float) -> tuple[Tensor, Tensor, Tensor]:
    """The 32nd and the 33rd neighbour of an atom, itself being the first, just before and after they change ranks."""
    numbers, places = lattice(encoder.cutoff)
    distances = (places - places[21]).norm(dim=1)
    first, second = distances.argsort()[31:33].tolist()
    middle = 0.5 * (distances[first] + distances[second])
    assert middle < encoder.cutoff
    found = []
    for change in (-step * encoder.cutoff, step * encoder.cutoff):
        moved = places.clone()
        for atom, length in ((first, middle + change), (second, middle - change)):
            moved[atom] = places[21] + (places[atom] - places[21]) * (length / distances[atom])
        found.append(moved)
    return numbers, found[0], found[1]


def jump(encoder: Encoder, numbers: Tensor, before: Tensor, after: Tensor) -> float:
    """Largest change of a feature, over the largest feature; of scalars or of vectors."""
    dtype = encoder.network.norm.weight.dtype
    with torch.no_grad():
        ends = [encoder(numbers, places.to(dtype)) for places in (before, after)]
    return max(float((first - second).abs().max() / first.abs().max()) for first, second in zip(*ends, strict=True))


@pytest.mark.parametrize("event", [crossing, exchange])
@pytest.mark.parametrize("name", SHIPPED + PUBLIC)
def test_no_feature_jumps(name: str, event: object, request: pytest.FixtureRequest) -> None:
    encoder = encoder_named(name, request)
    assert encoder.spec.is_continuous
    assert jump(encoder, *event(encoder, 1e-7)) < COMPILED  # type: ignore[operator]
    encoder = encoder.double()
    assert jump(encoder, *event(encoder, 1e-12)) < JUMP  # type: ignore[operator]


@pytest.mark.parametrize("name", ["peptide-et", *PUBLIC])
def test_published_features_do(name: str, request: pytest.FixtureRequest) -> None:
    encoder = encoder_named(name, request, "nearest").double()
    assert not encoder.spec.is_continuous
    assert jump(encoder, *exchange(encoder, 1e-12)) > 1e-2
    if "tensornet" not in name:
        assert jump(encoder, *crossing(encoder, 1e-12)) > 1e-3


def test_a_reach_shrinks_with_crowding_and_near_distances_stay() -> None:
    cutoff = 5.0
    _, places = lattice(cutoff)
    every = encoder_edges(places, cutoff, "full", 32)
    sparse = encoder_edges(places[:8], cutoff, "fading", 32)
    for found, expected in zip(sparse, encoder_edges(places[:8], cutoff, "full", 32), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for most in (32, 16):  # of 8 the first shell of a lattice, of 6 or more besides the atom, is too large a part
        index, vectors, distances = encoder_edges(places, cutoff, "fading", most)
        assert bool((distances < cutoff).all())
        torch.testing.assert_close(vectors.norm(dim=1), distances)
        true = (places[index[0]] - places[index[1]]).norm(dim=1)
        assert bool((distances >= true - 1e-12).all()) and index.shape[1] < every[0].shape[1]
        near = true < 0.4 * cutoff * (most / 64) ** (1 / 3)
        torch.testing.assert_close(distances[near], true[near])
        assert 0.8 * most < float(torch.bincount(index[1]).double().mean()) < 1.3 * most  # shells of a lattice


def test_stretched_edges_have_the_gradient_of_finite_differences() -> None:
    _, places = lattice(5.0)
    weights = torch.randn(64, dtype=torch.float64)

    def value(places: Tensor) -> Tensor:
        index, vectors, distances = encoder_edges(places, 5.0, "fading", 16)
        fading = (1 - distances / 5.0).square()
        return (weights[index[0]] * fading * (distances + vectors[:, 0] * vectors[:, 1])).sum()

    places.requires_grad_()
    (gradient,) = torch.autograd.grad(value(places), places)
    for atom, axis in ((0, 0), (21, 1), (40, 2)):
        change = torch.zeros_like(places)
        change[atom, axis] = 1e-6
        with torch.no_grad():
            slope = float(value(places + change) - value(places - change)) / 2e-6
        assert float(gradient[atom, axis]) == pytest.approx(slope, rel=1e-6, abs=1e-7)
