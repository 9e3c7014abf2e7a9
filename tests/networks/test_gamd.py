"""GAMD: symmetries, continuity at the cutoff, decoders, and a per-edge reference written out plainly."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from openmm_gnn.base.specs.force import Decoder, GAMDSpec, NeighborSpec
from openmm_gnn.networks.force_model import PairList
from openmm_gnn.networks.gamd import GAMD

CUTOFF = 0.9
DECODERS = list(Decoder)


def make_spec(**changes: object) -> GAMDSpec:
    spec = GAMDSpec(
        neighbors=NeighborSpec(CUTOFF), elements=(18, 8), width=16, num_layers=2, num_radial=12, force_scale=30.0
    )
    return dataclasses.replace(spec, **changes)


def make_model(**changes: object) -> GAMD:
    torch.manual_seed(1)
    return GAMD(make_spec(**changes)).double().eval()


def half_pairs(positions: Tensor, cutoff: float = CUTOFF) -> PairList:
    """Pairs i < j of a cluster in open space, by comparing all with all."""
    i, j = torch.triu_indices(len(positions), len(positions), offset=1)
    vectors = positions[j] - positions[i]
    distances = vectors.norm(dim=1)
    near = distances < cutoff
    return PairList(torch.stack([i[near], j[near]]), vectors[near], distances[near])


def forces_of(model: GAMD, positions: Tensor, species: Tensor, **kwargs: Tensor) -> Tensor:
    return model(species, half_pairs(positions), **kwargs)


@pytest.fixture
def cluster() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    positions = torch.rand((30, 3), generator=generator, dtype=torch.float64) * 1.6
    return positions, torch.randint(0, 2, (30,), generator=generator)


def rotation() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    q, _ = torch.linalg.qr(torch.randn((3, 3), generator=generator, dtype=torch.float64))
    return q * torch.linalg.det(q)


def test_pair_decoder_turns_its_forces_with_the_atoms(cluster: tuple[Tensor, Tensor]) -> None:
    positions, species = cluster
    model, q = make_model(), rotation()
    turned = forces_of(model, positions @ q.T, species)
    torch.testing.assert_close(turned, forces_of(model, positions, species) @ q.T, rtol=0, atol=1e-10)


def test_pair_decoder_has_neither_net_force_nor_net_torque(cluster: tuple[Tensor, Tensor]) -> None:
    positions, species = cluster
    forces = forces_of(make_model(), positions, species)
    assert forces.abs().max() > 1e-2
    assert forces.sum(dim=0).abs().max() < 1e-10
    assert torch.linalg.cross(positions, forces).sum(dim=0).abs().max() < 1e-10


def test_net_force_of_a_node_decoder_is_removed_frame_by_frame(cluster: tuple[Tensor, Tensor]) -> None:
    positions, species = cluster
    kept = make_model(decoder=Decoder.NODE)
    removed = make_model(decoder=Decoder.NODE, remove_net_force=True)
    batch = (torch.arange(30) >= 12).to(torch.int64)
    pairs, vectors, distances, _ = half_pairs(positions)
    same = batch[pairs[0]] == batch[pairs[1]]
    inputs = (species, PairList(pairs[:, same], vectors[same], distances[same]))
    for frame in (0, 1):
        assert kept(*inputs)[batch == frame].sum(dim=0).abs().max() > 1e-3
        assert removed(*inputs, batch=batch)[batch == frame].sum(dim=0).abs().max() < 1e-10


@pytest.mark.parametrize("decoder", DECODERS)
def test_order_of_atoms_and_direction_of_pairs_do_not_matter(decoder: Decoder, cluster: tuple[Tensor, Tensor]) -> None:
    positions, species = cluster
    model = make_model(decoder=decoder)
    expected = forces_of(model, positions, species)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(forces_of(model, positions[order], species[order]), expected[order], rtol=0, atol=1e-10)
    pairs, vectors, distances, _ = half_pairs(positions)
    torch.testing.assert_close(
        model(species, PairList(pairs.flip(0), -vectors, distances)), expected, rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("decoder", DECODERS)
def test_forces_are_smooth_where_a_neighbour_enters(decoder: Decoder) -> None:
    model = make_model(decoder=decoder)
    species = torch.zeros(3, dtype=torch.int64)
    forces = []
    for distance in (CUTOFF - 1e-4, CUTOFF + 1e-4):
        positions = torch.tensor([[0.0, 0, 0], [0.4, 0, 0], [0.4 + distance, 0, 0]], dtype=torch.float64)
        forces.append(forces_of(model, positions, species))
    torch.testing.assert_close(forces[0], forces[1], rtol=0, atol=1e-7)


@pytest.mark.parametrize("decoder", DECODERS)
def test_padding_changes_nothing(decoder: Decoder, cluster: tuple[Tensor, Tensor]) -> None:
    positions, species = cluster
    model = make_model(decoder=decoder)
    pairs, vectors, distances, _ = half_pairs(positions)
    padded = model(
        species,
        PairList(
            torch.cat([pairs, torch.full((2, 5), -1)], dim=1),
            torch.cat([vectors, torch.zeros((5, 3), dtype=torch.float64)]),
            torch.cat([distances, torch.full((5,), 2 * CUTOFF, dtype=torch.float64)]),
        ),
    )
    torch.testing.assert_close(padded, model(species, PairList(pairs, vectors, distances)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("decoder", DECODERS)
def test_an_atom_without_neighbours_and_no_atoms_at_all_give_finite_forces(decoder: Decoder) -> None:
    model = make_model(decoder=decoder)
    for count in (0, 1):
        forces = forces_of(model, torch.zeros((count, 3), dtype=torch.float64), torch.zeros(count, dtype=torch.int64))
        assert forces.shape == (count, 3)
        assert torch.isfinite(forces).all()


def test_a_bond_changes_the_forces_of_its_pair(cluster: tuple[Tensor, Tensor]) -> None:
    positions, species = cluster
    model = make_model(use_bonds=True, num_layers=0)
    pairs, vectors, distances, _ = half_pairs(positions)
    none = torch.zeros(pairs.shape[1], dtype=torch.int64)
    one = none.clone()
    one[4] = int(species.max() + 1) * int(species.max() + 2) // 2
    with_bond, without = (model(species, PairList(pairs, vectors, distances, types)) for types in (one, none))
    changed = (with_bond - without).norm(dim=1)
    assert set(torch.nonzero(changed > 1e-8).flatten().tolist()) == set(pairs[:, 4].tolist())
    with pytest.raises(ValueError, match="uses bonds"):
        model(species, PairList(pairs, vectors, distances))


@pytest.mark.parametrize("decoder", DECODERS)
def test_projections_per_node_equal_equation_2_per_edge(decoder: Decoder, cluster: tuple[Tensor, Tensor]) -> None:
    """One message layer against the paper's formula, a Python loop over directed edges."""
    positions, species = cluster
    model = make_model(decoder=decoder, num_layers=1)
    layer = model.layers[0]
    pairs, vectors, distances, _ = half_pairs(positions)
    unit = vectors / distances[:, None]
    radial = model.edge_radial(model.radial_basis(distances))
    nodes = model.node_embedding(species)
    hidden = layer.norm(nodes)
    sums = torch.zeros_like(hidden)
    for column, (first, second) in enumerate(pairs.T.tolist()):
        for source, target, sign in ((first, second, 1.0), (second, first, -1.0)):
            edge = radial[column]
            if model.edge_direction is not None:
                edge = edge + model.edge_direction(sign * unit[column])
            edge = layer.edge(model.edge_out(edge))
            phi = layer.gate(
                torch.nn.functional.silu(layer.source(hidden[source]) + layer.target(hidden[target]) + edge)
            )
            sums[target] += phi * hidden[source] * model.envelope(distances[column])
    expected = nodes + layer.update_out(torch.nn.functional.silu(layer.update_self(hidden) + layer.update_sum(sums)))
    forward_edges = model.edge_out(radial + (0 if model.edge_direction is None else model.edge_direction(unit)))
    backward_edges = forward_edges
    if model.edge_direction is not None:
        backward_edges = model.edge_out(radial - model.edge_direction(unit))
    envelope = model.envelope(distances)[:, None]
    got = layer(nodes, forward_edges, backward_edges, pairs[0], pairs[1], envelope)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("decoder", DECODERS)
def test_torchscript_and_eager_agree_for_any_number_of_atoms(decoder: Decoder, cluster: tuple[Tensor, Tensor]) -> None:
    positions, species = cluster
    model = make_model(decoder=decoder)
    scripted = torch.jit.script(model)
    for count in (30, 7, 19):
        inputs = (species[:count], half_pairs(positions[:count]))
        torch.testing.assert_close(scripted(*inputs), model(*inputs), rtol=0, atol=1e-12)
