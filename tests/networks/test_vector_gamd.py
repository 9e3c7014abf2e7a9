"""Symmetries of the vector network, its energy form against finite differences, and its pair term."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.specs.codec import spec_from_json, spec_to_json
from openmm_gnn.base.specs.force import NeighborSpec, VectorGAMDSpec
from openmm_gnn.graph.neighbor_list import NeighborList
from openmm_gnn.graph.topology_tables import separation_table, species_table
from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs
from openmm_gnn.kernels.radial_pairs import pair_types
from openmm_gnn.learning.training.frames import random_rotation
from openmm_gnn.md.systems.fluids import water_topology
from openmm_gnn.networks.force_model import PairList
from openmm_gnn.networks.vector_gamd import VectorGAMD
from openmm_gnn.networks.weights import load_model, make_model, save_network

MOLECULES, CUTOFF = 6, 0.45
TOPOLOGY = water_topology(MOLECULES, 0.8)
SPECIES, PARTNERS = species_table(TOPOLOGY, (1, 8)), separation_table(TOPOLOGY)


def model_of(**changes: Any) -> VectorGAMD:
    torch.manual_seed(5)
    model = make_model(
        VectorGAMDSpec(NeighborSpec(CUTOFF), (1, 8), width=16, num_radial=8, force_scale=50.0, **changes)
    )
    assert isinstance(model, VectorGAMD)
    return model.eval()


def water_positions() -> Tensor:
    generator = np.random.default_rng(4)
    centers = generator.uniform(0, 0.8, (MOLECULES, 1, 3))
    molecule = np.array([[0, 0, 0], [0.0957, 0, 0], [-0.024, 0.0927, 0]])
    turned = np.stack([molecule @ random_rotation(generator).T for _ in range(MOLECULES)])
    return torch.from_numpy((centers + turned).reshape(-1, 3))


def forces_of(model: VectorGAMD, positions: Tensor, box: Tensor | None = None, species: Tensor = SPECIES) -> Tensor:
    pairs, vectors, distances = neighbor_pairs(positions, CUTOFF, box, full=False)
    types = pair_types(pairs, species, PARTNERS, 2)
    dtype = next(model.parameters()).dtype
    return model(species, PairList(pairs, vectors.to(dtype), distances.to(dtype), types))


@pytest.mark.parametrize("conservative", [False, True])
def test_rotated_positions_give_rotated_forces_and_mirrored_ones_mirrored(conservative: bool) -> None:
    model, positions = model_of(conservative=conservative), water_positions()
    forces = forces_of(model, positions)
    assert float(forces.detach().abs().max()) > 1
    turn = torch.from_numpy(random_rotation(np.random.default_rng(1)))
    for change in (turn, turn @ torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))):
        turned = forces_of(model, positions @ change.T + 3.0)
        torch.testing.assert_close(turned, forces @ change.T.float(), rtol=1e-3, atol=1e-4 * float(forces.abs().max()))


@pytest.mark.parametrize("conservative", [False, True])
def test_net_force_and_net_torque_vanish(conservative: bool) -> None:
    positions = water_positions()
    forces = forces_of(model_of(conservative=conservative), positions).double()
    scale = float(forces.abs().sum())
    assert float(forces.sum(dim=0).abs().max()) < 1e-6 * scale
    torque = torch.linalg.cross(positions - positions.mean(dim=0), forces).sum(dim=0)
    assert float(torque.abs().max()) < 1e-6 * scale


def test_exchanging_two_equal_molecules_exchanges_their_forces() -> None:
    model, positions = model_of(), water_positions()
    order = torch.tensor([3, 4, 5, 0, 1, 2, *range(6, 3 * MOLECULES)])
    torch.testing.assert_close(
        forces_of(model, positions)[order], forces_of(model, positions[order]), rtol=1e-4, atol=1e-3
    )


def test_vectors_see_what_distances_to_neighbours_do_not() -> None:
    """One hydrogen turned about the axis through its neighbours: their pairs' distances stay, the forces do not."""
    species = torch.tensor([1, 1, 0, 0])
    partners = torch.full((2, 4, 1), -1)
    forces = []
    for angle in (0.3, 2.0):
        far = [0.6, 0.25 * np.cos(angle), 0.25 * np.sin(angle)]
        positions = torch.tensor([[0, 0, 0], [0.3, 0, 0], [0.0, 0.25, 0], far], dtype=torch.float64)
        pairs, vectors, distances = neighbor_pairs(positions, 0.4, None, full=False)
        assert pairs.shape[1] == 4  # the hydrogens see an oxygen each, not one another
        types = pair_types(pairs, species, partners, 2)
        forces.append(model_of()(species, PairList(pairs, vectors.float(), distances.float(), types)))
    assert float((forces[0][:2, 0] - forces[1][:2, 0]).abs().max()) > 1e-3


def test_forces_do_not_jump_where_a_pair_crosses_the_cutoff() -> None:
    model, species, partners = model_of(), torch.tensor([1, 0, 1]), torch.full((2, 3, 1), -1)
    forces = []
    for distance in (CUTOFF - 1e-6, CUTOFF + 1e-6):
        positions = torch.tensor([[0, 0, 0], [distance, 0, 0], [0.1, 0.2, 0]], dtype=torch.float64)
        pairs, vectors, distances = neighbor_pairs(positions, CUTOFF, None, full=False)
        types = pair_types(pairs, species, partners, 2)
        forces.append(model(species, PairList(pairs, vectors.float(), distances.float(), types)))
    torch.testing.assert_close(*forces, rtol=1e-4, atol=1e-3)


def test_conservative_forces_are_minus_the_gradient_of_the_energy() -> None:
    model, positions = model_of(conservative=True).double(), water_positions()

    def energy(positions: Tensor) -> float:
        pairs, vectors, distances = neighbor_pairs(positions, CUTOFF, None, full=False)
        types = pair_types(pairs, SPECIES, PARTNERS, 2)
        return float(model.network_energy_and_forces(SPECIES, PairList(pairs, vectors, distances, types))[0])

    forces, step = forces_of(model, positions), 1e-5
    for atom, axis in ((0, 0), (4, 1), (11, 2)):
        moved = [positions.clone(), positions.clone()]
        moved[0][atom, axis] -= step
        moved[1][atom, axis] += step
        slope = (energy(moved[1]) - energy(moved[0])) / (2 * step)
        assert float(forces[atom, axis]) == pytest.approx(-slope, rel=1e-5, abs=1e-4)


def test_the_compiled_and_the_plain_path_give_the_same_conservative_forces() -> None:
    model, positions = model_of(conservative=True), water_positions()
    fused = forces_of(model, positions)
    plain = forces_of(model.train(), positions)  # training differentiates twice, which the operators do not
    torch.testing.assert_close(fused, plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))


def test_a_conservative_model_can_be_trained_on_forces() -> None:
    model = model_of(conservative=True).train()
    loss = forces_of(model, water_positions()).square().mean()
    loss.backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and bool(torch.isfinite(weight.grad).all()), name
    assert float(model.layers[0].radial.grad.abs().max()) > 0


def test_a_bundle_keeps_spec_weights_and_pair_term(tmp_path: Path) -> None:
    model = model_of(pair_cutoff=0.7, pair_radial=20)
    assert model.pair_term is not None
    model.pair_term.table.normal_()
    save_network(model, tmp_path / "model.safetensors")
    back = load_model(tmp_path / "model.safetensors")
    assert isinstance(back, VectorGAMD) and back.spec == model.spec and back.pair_term is not None
    torch.testing.assert_close(back.pair_term.table, model.pair_term.table)
    torch.testing.assert_close(forces_of(back, water_positions()), forces_of(model, water_positions()))
    assert spec_from_json(spec_to_json(model.spec)) == model.spec


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 24}, "width is 24: give a multiple of 16"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"num_radial": 3}, "num_radial is 3"),
        ({"pair_cutoff": 0.01}, "pair_cutoff is 0.01 nm"),
        ({"min_distance": 0.5}, "min_distance is 0.5 nm"),
        ({"elements": (1, 1)}, "give each atomic number once"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        VectorGAMDSpec(**{"neighbors": NeighborSpec(CUTOFF), "elements": (1, 8), **changes})


def test_kinds_of_pairs_are_asked_for() -> None:
    pairs, vectors, distances = neighbor_pairs(water_positions(), CUTOFF, None, full=False)
    with pytest.raises(ValueError, match="give `types`"):
        model_of()(SPECIES, PairList(pairs, vectors.float(), distances.float()))


@pytest.mark.parametrize("fused", [True, False])
def test_padding_of_a_static_list_changes_nothing(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list on a GPU is padded, and holds pairs between cutoff and cutoff + skin too."""
    model, positions = model_of(pair_cutoff=0.6, pair_radial=12), water_positions()
    assert model.pair_term is not None
    model.pair_term.table[:, :-3] = torch.randn(9, 9)
    if not fused:
        monkeypatch.setattr(VectorGAMD, "is_fused", lambda self, vectors: False)
    results = []
    for static in (False, True):
        near, far = NeighborList(CUTOFF, 0.1, static_shape=static), NeighborList(0.6, 0.1, static_shape=static)
        pairs, vectors, distances = near(positions)
        types = pair_types(pairs, SPECIES, PARTNERS, 2)
        forces = model(SPECIES, PairList(pairs, vectors.float(), distances.float(), types))
        pairs, vectors, distances = far(positions)
        types = pair_types(pairs, SPECIES, PARTNERS, 2)
        results.append(forces + model.pair_term(pairs, types, vectors.float(), distances.float(), len(positions))[0])
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-3)
