"""Forces from an encoder: against the encoder itself, their symmetries, and the energy they are derived from."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from small_encoders import small_encoder, small_encoder_force
from torch import Tensor

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.specs.codec import spec_from_json, spec_to_json
from openmm_gnn.base.specs.encoder import Architecture, NeighborRule
from openmm_gnn.base.specs.force import EncoderForceSpec
from openmm_gnn.graph.neighbor_list import NeighborList
from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs
from openmm_gnn.learning.training.frames import random_rotation
from openmm_gnn.networks.encoder_force import EncoderForce
from openmm_gnn.networks.encoders.encoder import Encoder, start_from, transferred_spec
from openmm_gnn.networks.force_model import PairList
from openmm_gnn.networks.weights import load_model, save_network

ARCHITECTURES = list(Architecture)
KINDS = [False, True]
EXACT = 1e-9
"""Of the largest force, float64."""
BOX = np.array([[0.9, 0.0, 0.0], [0.2, 0.95, 0.0], [-0.3, 0.25, 1.0]])
"""Triclinic, and wide enough for one image of each neighbour within 0.4 nm."""


def cluster(num_atoms: int = 14, edge: float = 0.65) -> tuple[Tensor, Tensor]:
    """Species and positions in nm, no two atoms closer than 0.11 nm."""
    generator = np.random.default_rng(4)
    places: list[np.ndarray] = []
    while len(places) < num_atoms:
        tried = generator.uniform(0, edge, size=3)
        if all(np.linalg.norm(tried - place) > 0.11 for place in places):
            places.append(tried)
    return torch.from_numpy(generator.integers(0, 3, size=num_atoms)), torch.from_numpy(np.array(places))


def exact(model: EncoderForce) -> EncoderForce:
    return copy.deepcopy(model).double().eval()


def energy_and_forces(
    model: EncoderForce, species: Tensor, positions: Tensor, box: Tensor | None = None
) -> tuple[float, Tensor]:
    pairs, vectors, distances = neighbor_pairs(positions, model.spec.neighbors.cutoff, box, full=False)
    with torch.no_grad():
        energy, forces = model.network_energy_and_forces(species, PairList(pairs, vectors, distances))
    return float(energy), forces


def assert_same(forces: Tensor, expected: Tensor, tolerance: float = EXACT) -> None:
    assert float((forces - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("box", [None, torch.from_numpy(BOX)], ids=["open", "periodic"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features_are_those_of_the_encoder_by_its_own_search_in_angstrom(
    architecture: Architecture, box: Tensor | None
) -> None:
    model = exact(small_encoder_force(architecture))
    species, positions = cluster()
    encoder = Encoder(model.spec.encoder).double()
    encoder.load_state_dict(model.encoder.state_dict())
    numbers = torch.tensor(model.spec.elements)[species]
    features = encoder.eval()(numbers, 10 * positions, box_vectors=None if box is None else 10 * box)
    expected = model.force_scale * model.head(*features)[1]
    assert_same(energy_and_forces(model, species, positions, box)[1], expected.detach())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("conservative", KINDS, ids=["direct", "conservative"])
def test_forces_turn_with_the_molecule_and_follow_a_renumbering(architecture: Architecture, conservative: bool) -> None:
    model = exact(small_encoder_force(architecture, conservative=conservative))
    species, positions = cluster()
    energy, forces = energy_and_forces(model, species, positions)
    rotation = torch.from_numpy(random_rotation(np.random.default_rng(1)))
    turned = energy_and_forces(model, species, positions @ rotation.T + 0.7)
    assert turned[0] == pytest.approx(energy, rel=1e-10)
    assert_same(turned[1], forces @ rotation.T)
    order = torch.randperm(len(species))
    permuted = energy_and_forces(model, species[order], positions[order])
    assert permuted[0] == pytest.approx(energy, rel=1e-10)
    assert_same(permuted[1], forces[order])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_conservative_forces_are_minus_the_gradient_and_sum_to_nothing_in_a_box(architecture: Architecture) -> None:
    model = exact(small_encoder_force(architecture, conservative=True))
    (species, positions), box = cluster(), torch.from_numpy(BOX)
    _, forces = energy_and_forces(model, species, positions, box)
    assert float(forces.sum(dim=0).abs().max()) <= EXACT * float(forces.abs().max())
    for atom, axis in ((0, 0), (5, 1), (13, 2)):
        energies = []
        for step in (1e-5, -1e-5):
            moved = positions.clone()
            moved[atom, axis] += step
            energies.append(energy_and_forces(model, species, moved, box)[0])
        slope = (energies[0] - energies[1]) / 2e-5
        assert float(forces[atom, axis]) == pytest.approx(-slope, abs=1e-6 * float(forces.abs().max()))


def test_energies_of_molecules_far_apart_add_up() -> None:
    model = exact(small_encoder_force(conservative=True))
    species, positions = cluster()
    one = energy_and_forces(model, species, positions)[0]
    two = energy_and_forces(model, species.repeat(2), torch.cat([positions, positions + 5.0]))[0]
    assert two == pytest.approx(2 * one, rel=1e-12)


def jump_at_the_cutoff(model: EncoderForce) -> tuple[float, float]:
    """How much energy and forces change when a lone atom comes 2e-7 nm nearer and so within reach of another one.

    Of the largest force; the energy as if it were one over 1 nm.
    """
    species, positions = cluster()
    outwards = positions[0] - positions.mean(dim=0)
    outermost = int((positions @ outwards).argmax())
    lone = 1 - min(outermost, 1)
    found = []
    for offset in (-1e-7, 1e-7):
        placed = positions.clone()
        placed[lone] = placed[outermost] + outwards / outwards.norm() * (model.spec.neighbors.cutoff + offset)
        found.append(energy_and_forces(model, species, placed))
    scale = float(found[0][1].abs().max())
    return abs(found[0][0] - found[1][0]) / scale, float((found[0][1] - found[1][1]).abs().max()) / scale


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("conservative", KINDS, ids=["direct", "conservative"])
def test_nothing_jumps_when_a_neighbour_comes_within_the_cutoff(architecture: Architecture, conservative: bool) -> None:
    model = exact(small_encoder_force(architecture, conservative=conservative))
    energy, force = jump_at_the_cutoff(model)
    assert energy < 1e-6 and force < 1e-4


def test_the_published_messages_of_torchmd_et_would_jump() -> None:
    model = exact(small_encoder_force())
    for layer in model.encoder.network.layers:  # type: ignore[union-attr]
        layer.smooth = False
    assert jump_at_the_cutoff(model.eval())[1] > 1e-2


def test_the_mean_force_is_taken_from_each_frame_of_a_batch() -> None:
    model = exact(small_encoder_force(remove_net_force=True))
    species, positions = cluster()
    both, batch = torch.cat([positions, 1.05 * positions + 9.0]), torch.arange(2).repeat_interleave(len(species))
    pairs, vectors, distances = neighbor_pairs(both, model.spec.neighbors.cutoff, None, full=False)
    forces = model(species.repeat(2), PairList(pairs, vectors, distances), batch)
    alone = energy_and_forces(model, species, positions)[1]
    assert_same(forces[: len(species)], alone)
    assert float(forces[len(species) :].sum(dim=0).abs().max()) < EXACT * float(forces.abs().max())
    assert float(forces[len(species) :].abs().max()) > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("conservative", KINDS, ids=["direct", "conservative"])
def test_padding_and_pairs_of_the_skin_change_nothing(architecture: Architecture, conservative: bool) -> None:
    model = exact(small_encoder_force(architecture, conservative=conservative))
    species, positions = cluster()
    expected = energy_and_forces(model, species, positions)[1]
    padded = NeighborList(model.spec.neighbors.cutoff, 0.1, 30, static_shape=True)(positions)
    assert int((padded[0] < 0).sum()) > 0 and float(padded[2].max()) > model.spec.neighbors.cutoff
    with torch.no_grad():
        assert_same(model(species, PairList(*padded)), expected)


@pytest.mark.parametrize("conservative", KINDS, ids=["direct", "conservative"])
def test_atoms_alone_have_no_forces(conservative: bool) -> None:
    model = small_encoder_force(conservative=conservative)
    none = PairList(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0, 3), torch.zeros(0))
    energy, forces = model.network_energy_and_forces(torch.tensor([0, 1]), none)
    assert forces.shape == (2, 3) and float(forces.abs().max()) == 0.0
    assert (float(energy) != 0.0) is conservative


def test_known_elements_keep_their_features_and_new_ones_are_named() -> None:
    pretrained = small_encoder()
    spec = transferred_spec(pretrained.spec, (1, 6, 17), NeighborRule.FADING, smooth=True)
    encoder = Encoder(spec)
    assert spec.max_atomic_number == 17 and spec.elements == (1, 6, 7, 8, 17)
    assert start_from(encoder, pretrained) == (1, 17)
    species, positions = cluster()
    numbers = torch.tensor([6, 7, 8])[species]
    for found, expected in zip(
        encoder.eval()(numbers, 10 * positions.float()), pretrained(numbers, 10 * positions.float()), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    table = encoder.network.embedding.weight  # type: ignore[union-attr]
    assert not torch.equal(table[1], table[17]) and bool((table[17] != 0).any())


def test_direct_forces_begin_as_the_denoising_head_turned_about() -> None:
    pretrained = small_encoder(neighbor_rule=NeighborRule.FULL)
    model = small_encoder_force(elements=(6, 7, 8))
    species, positions = cluster()
    numbers = torch.tensor([6, 7, 8])[species]
    noise = pretrained.eval().predicted_noise(numbers, 10 * positions.float()) / pretrained.noise_scale
    forces = energy_and_forces(model, species, positions.float())[1]
    assert_same(forces, -model.force_scale * noise, tolerance=1e-4)


def test_an_encoder_of_another_shape_is_refused() -> None:
    with pytest.raises(SpecError, match="pretrained encoder fits"):
        small_encoder_force().start_from(small_encoder(width=32))


@pytest.mark.parametrize("conservative", KINDS, ids=["direct", "conservative"])
def test_a_bundle_holds_all_of_it(conservative: bool, tmp_path: Path) -> None:
    model = small_encoder_force(conservative=conservative, remove_net_force=True, skin=0.05, max_neighbors=40)
    loaded = load_model(save_network(model, tmp_path / "model.safetensors", {"where": "a test"}))
    assert loaded.spec == model.spec == spec_from_json(spec_to_json(model.spec))
    assert loaded.spec.metadata == {"where": "a test"}
    assert loaded.spec.neighbors.cutoff == pytest.approx(0.4) and loaded.spec.neighbors.max_neighbors == 40
    species, positions = cluster()
    assert isinstance(loaded, EncoderForce)
    again = energy_and_forces(copy.deepcopy(loaded).double(), species, positions)
    before = energy_and_forces(copy.deepcopy(model).double(), species, positions)
    assert torch.equal(again[1], before[1])  # float64 is plain PyTorch for both


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"elements": ()}, "at least one"),
        ({"elements": (6, 6)}, "each atomic number once"),
        ({"elements": (6, 9)}, "max_atomic_number"),
        ({"head_width": 0}, "head_width is 0"),
        ({"skin": -0.1}, "skin is -0.1"),
        ({"force_scale": 0.0}, "force_scale"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(changes: dict[str, object], message: str) -> None:
    spec = small_encoder_force().spec
    with pytest.raises(SpecError, match=message):
        dataclasses.replace(spec, **changes)  # type: ignore[arg-type]


def test_the_nearest_neighbours_are_no_rule_for_forces() -> None:
    with pytest.raises(SpecError, match="forces jump"):
        EncoderForceSpec(small_encoder().spec, (6,))
