"""The CV network as a whole: its invariances after training, its forms, files and refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import openmm.app
import pytest
import torch
from safetensors.torch import load_file, save_file
from token_frames import MIRROR, random_tokens, rotation, train, turned
from torch import Tensor

from openmm_gnn import Featurizer
from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.base.specs.tokens import CVNetworkSpec, Mixer
from openmm_gnn.md.systems.systems import named_peptide
from openmm_gnn.networks.encoders.encoder import Encoder
from openmm_gnn.networks.tokens.cv_network import CVNetwork
from openmm_gnn.networks.weights import load_cv_network, read_bundle, save_network, write_bundle

BASE = CVNetworkSpec(7, 8, 2, width=16, num_heads=2, chains=(0, 0, 0, 0, 1, 1, 1))
MERGED = {"merging": "equivariant", "window": 2, "global_token": True, "pooling": "token"}
KINDS: dict[str, dict[str, Any]] = {
    **{mixer.value: {"mixer": mixer} for mixer in Mixer},
    **{f"{mixer}, merged": {"mixer": mixer, **MERGED} for mixer in ("subformer-gvp", "equivariant-attention")},
    "mlp, flattened": {"mixer": "mlp", "pooling": "flatten", "softmax": True},
    "subformer, scalar merging": {"mixer": "subformer", "merging": "scalar", "window": 3, "pooling": "sum"},
    "attention, all": {
        "mixer": "equivariant-attention",
        "graph_convolution": "chiral",
        "local_attention": "chiral",
        "merging": "equivariant",
        "groups": ((0, 3), (1, 2), (4,), (5, 6)),
    },
}
TRAINED: dict[str, CVNetwork] = {}


def network(kind: str) -> CVNetwork:
    """In float64 and evaluation mode, after 40 steps towards random targets."""
    if kind not in TRAINED:
        torch.manual_seed(1)
        made = CVNetwork(dataclasses.replace(BASE, **KINDS[kind])).double()
        tokens, places = random_tokens(4, 7, 8, seed=3)
        targets = torch.rand(4, 2, dtype=torch.float64)
        losses = train(made.parameters(), lambda: (made(tokens, places) - targets).square().mean())
        assert losses[-1] < 0.7 * losses[0]
        TRAINED[kind] = made.eval().requires_grad_(False)
    return TRAINED[kind]


def test_a_mixer_has_the_hidden_width_along_the_tokens_that_is_asked_for() -> None:
    shapes = []
    for hidden in (None, 5):
        made = CVNetwork(dataclasses.replace(BASE, mixer="submixer", token_hidden=hidden))
        shapes.append([list(value.shape) for name, value in made.named_parameters() if "token_widened.weight" in name])
    assert shapes == [[[14, 7]] * BASE.num_layers, [[5, 7]] * BASE.num_layers]
    with pytest.raises(SpecError, match="token_hidden is 0"):
        dataclasses.replace(BASE, token_hidden=0)


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_of_a_trained_network_do_not_change_when_the_molecule_turns_or_moves(kind: str) -> None:
    made, turn = network(kind), rotation()
    tokens, places = random_tokens(5, 7, 8)
    expected = made(tokens, places)
    assert float(expected.std(dim=0).min()) > 1e-3
    torch.testing.assert_close(made(turned(tokens, turn), places @ turn.T - 5.0), expected, rtol=0, atol=1e-9)
    mirrored = made(turned(tokens, MIRROR), places @ MIRROR)
    if "all" in kind:
        assert float((mirrored - expected).abs().max()) > 1e-4
    else:
        torch.testing.assert_close(mirrored, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_to_torchscript_it_gives_the_same_with_the_same_gradients(kind: str) -> None:
    made = network(kind)
    scripted = torch.jit.script(made)
    given = random_tokens(3, 7, 8)
    results = []
    for form in (made, scripted, scripted):  # a scripted graph is optimised in its second call
        inputs = [tensor.clone().requires_grad_() for tensor in given]
        outputs = form(*inputs)
        slopes = torch.autograd.grad((outputs * torch.tensor([1.0, -2.0])).sum(), inputs, allow_unused=True)
        results.append([outputs.detach(), *[torch.zeros(()) if slope is None else slope for slope in slopes]])
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(kind: str) -> None:
    made = network(kind)
    given = [tensor.requires_grad_() for tensor in random_tokens(2, 7, 8, seed=6)]
    slopes = torch.autograd.grad(made(*given).sum(), given, allow_unused=True)
    changes = [1e-6 * torch.randn_like(tensor) for tensor in given]
    with torch.no_grad():
        ahead = made(*[tensor + change for tensor, change in zip(given, changes, strict=True)]).sum()
        back = made(*[tensor - change for tensor, change in zip(given, changes, strict=True)]).sum()
    pairs = zip(slopes, changes, strict=True)
    along = sum(float((slope * change).sum()) for slope, change in pairs if slope is not None)
    assert along == pytest.approx(float(ahead - back) / 2, rel=1e-5, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_fewer_bits_give_nearly_the_same(kind: str, dtype: torch.dtype) -> None:
    made = network(kind)
    short = CVNetwork(made.spec)
    short.load_state_dict(made.state_dict())
    tokens, places = random_tokens(3, 7, 8)
    found = short.to(dtype).eval()(tokens.to(dtype), places.to(dtype))
    assert found.dtype == dtype
    scale = float(made(tokens, places).abs().max())
    allowed = (1e-5 if dtype == torch.float32 else 0.2) * max(scale, 1.0)
    torch.testing.assert_close(found.double().detach(), made(tokens, places), rtol=0, atol=allowed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_network_is_the_same_again(kind: str, tmp_path: Path) -> None:
    made = network(kind)
    path = save_network(made, tmp_path / "network.safetensors", {"lag_ps": 5.0})
    again = load_cv_network(path)
    assert again.spec == made.spec and again.spec.metadata == {"lag_ps": 5.0} and not again.training
    given = random_tokens(3, 7, 8)
    assert torch.equal(again(*given), made(*given))


def test_chains_do_not_hear_of_each_other_before_the_mixer() -> None:
    """A window that went across would let the last token of one chain change the first of the next."""
    spec = dataclasses.replace(BASE, mixer="mlp", merging="equivariant", window=3, pooling="flatten")
    made = CVNetwork(spec).double().eval()
    assert spec.merged_tokens == ((0, 1, 2), (3,), (4, 5, 6))
    tokens, places = random_tokens(1, 7, 8)
    changed = tokens.clone()
    changed[0, 3] += 1.0
    mixed, other = made._mixed(tokens, places), made._mixed(changed, places)
    assert torch.equal(mixed[:, [0, 2]], other[:, [0, 2]]) and not torch.equal(mixed[:, 1], other[:, 1])


def test_attention_maps_are_the_weights_that_forward_uses() -> None:
    """With values of one channel per head known, what is heard is the map times the values."""
    for kind in ("subformer", "equivariant-attention", "subformer-gvp, merged", "equivariant-attention, merged"):
        made = network(kind)
        maps = made.attention_maps(*random_tokens(2, 7, 8))
        extra = {"subformer-gvp, merged": 2, "equivariant-attention, merged": 1}.get(kind, 0)
        size = (4 if "merged" in kind else 7) + extra
        assert [tuple(weights.shape) for weights in maps] == [(2, size, size)] * 2
        for weights in maps:
            torch.testing.assert_close(weights.sum(dim=2), torch.ones(2, size, dtype=torch.float64))
    with pytest.raises(SpecError, match="the mixer 'submixer' has no attention to show"):
        network("submixer").attention_maps(*random_tokens(2, 7, 8))


def test_statistics_standardise_what_comes_in() -> None:
    tokens, places = random_tokens(50, 7, 8)
    scale = torch.rand(7, 8, dtype=torch.float64) + 0.5
    raw = tokens.clone()
    raw[:, :, 0] = raw[:, :, 0] * scale + 3.0
    raw[:, :, 1:] *= 2 * scale[:, None]
    made = network("equivariant-attention")
    other = CVNetwork(made.spec).double().eval()
    other.load_state_dict(made.state_dict())
    other.set_input_statistics(torch.full((8,), 3.0), scale, 2 * scale)
    torch.testing.assert_close(other(raw, places), made(tokens, places), rtol=0, atol=1e-9)


def test_what_never_varied_is_left_at_its_scale() -> None:
    made = CVNetwork(BASE)
    made.set_input_statistics(torch.zeros(8), torch.zeros(8), torch.zeros(8))
    assert bool((made.scalar_scale == 1).all()) and bool((made.vector_scale == 1).all())


def test_an_output_map_turns_the_outputs_and_is_saved(tmp_path: Path) -> None:
    made = CVNetwork(BASE).double().eval()
    given = random_tokens(3, 7, 8)
    mean, matrix = torch.tensor([0.5, -1.0]), torch.tensor([[2.0], [3.0]])
    expected = (made(*given) - mean) @ matrix.double()
    made.set_output_map(mean, matrix)
    assert made.num_outputs == 1
    torch.testing.assert_close(made(*given), expected)
    again = load_cv_network(save_network(made, tmp_path / "mapped.safetensors"))
    assert again.num_outputs == 1 and torch.equal(again(*given), made(*given))


def test_memberships_are_positive_and_add_up_to_one() -> None:
    outputs = network("mlp, flattened")(*random_tokens(6, 7, 8))
    assert bool((outputs > 0).all())
    torch.testing.assert_close(outputs.sum(dim=1), torch.ones(6, dtype=torch.float64))


@pytest.mark.parametrize(
    ("tokens", "places", "message"),
    [
        ((3, 6, 4, 8), (3, 6, 3), r"tokens of shape \[3, 6, 4, 8\]: give \(frames, 7, 4, 8\)"),
        ((3, 7, 3, 8), (3, 7, 3), "give .frames, 7, 4, 8"),
        ((7, 4, 8), (7, 3), "give .frames, 7, 4, 8"),
        ((3, 7, 4, 8), (2, 7, 3), r"coordinates of shape \[2, 7, 3\]: give \(3, 7, 3\)"),
    ],
)
def test_other_shapes_are_refused(tokens: tuple[int, ...], places: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CVNetwork(BASE)(torch.zeros(tokens), torch.zeros(places))


def test_statistics_and_maps_that_do_not_fit_are_refused() -> None:
    made = CVNetwork(BASE)
    fine = torch.ones(8)
    with pytest.raises(SpecError, match=r"scalar_std has the shape \(3,\): give \(7, 8\) or \(8,\)"):
        made.set_input_statistics(fine, torch.ones(3), fine)
    with pytest.raises(SpecError, match="vector_scale has entries that are not finite, or negative"):
        made.set_input_statistics(fine, fine, -fine)
    with pytest.raises(SpecError, match=r"shapes \(3,\) and \(2, 2\)"):
        made.set_output_map(torch.zeros(3), torch.eye(2))
    with pytest.raises(SpecError, match="output map is not finite"):
        made.set_output_map(torch.zeros(2), torch.full((2, 2), float("nan")))


def test_a_bundle_whose_weights_do_not_fit_is_refused(tmp_path: Path) -> None:
    path = save_network(CVNetwork(BASE), tmp_path / "network.safetensors")
    spec_json, weights = read_bundle(path)
    for change, message in (
        ({"head.0.bias": torch.zeros(3)}, "do not fit its spec"),
        ({"extra": torch.zeros(3)}, "do not fit its spec"),
        ({"head.0.bias": torch.full((16,), float("nan"))}, "weight head.0.bias of .* is not finite"),
    ):
        with pytest.raises(DataError, match=message):
            load_cv_network(write_bundle({**weights, **change}, spec_json, tmp_path / "other.safetensors"))
    weights.pop("output_mean")
    with pytest.raises(DataError, match="do not fit its spec"):
        load_cv_network(write_bundle(weights, spec_json, tmp_path / "other.safetensors"))
    save_file(load_file(path), tmp_path / "bare.safetensors")
    with pytest.raises(DataError, match="was not written by openmm_gnn"):
        load_cv_network(tmp_path / "bare.safetensors")


def reordered(topology: openmm.app.Topology, generator: np.random.Generator) -> tuple[openmm.app.Topology, np.ndarray]:
    """The topology with the atoms of each residue in another order, and the old index of each new atom."""
    other, order, made = openmm.app.Topology(), [], {}
    for chain in topology.chains():
        new_chain = other.addChain(chain.id)
        for residue in chain.residues():
            new_residue = other.addResidue(residue.name, new_chain, residue.id)
            for atom in generator.permutation(np.array(list(residue.atoms()), dtype=object)):
                made[atom] = other.addAtom(atom.name, atom.element, new_residue)
                order.append(atom.index)
    for first, second in topology.bonds():
        other.addBond(made[first], made[second])
    return other, np.array(order)


@pytest.fixture(scope="module")
def chignolin_twice() -> list[tuple[Tensor, Tensor]]:
    """Tokens and places of chignolin; and of the same turned, moved, and with each residue's atoms in another order."""
    chignolin = named_peptide("chignolin")
    torch.manual_seed(2)
    encoder = Encoder(EncoderSpec("torchmd-et", 1, 5.0, width=8, num_radial=8, num_heads=2)).eval()
    positions = np.array(chignolin.positions)
    other_topology, order = reordered(chignolin.topology, np.random.default_rng(3))
    assert (order != np.arange(len(order))).any()
    found = []
    for topology, places in (
        (chignolin.topology, positions),
        (other_topology, (positions @ rotation().numpy().T + 2.0)[order]),
    ):
        featurizer = Featurizer(encoder, topology, dtype="float64")
        # The featurizer's own coordinates are float32, of which 1e-9 would say little.
        anchors = places[list(featurizer.tokens.anchor_atoms)]
        np.testing.assert_allclose(featurizer.coordinates(places), anchors, atol=1e-6)
        found.append((torch.from_numpy(featurizer.features(places))[None], torch.from_numpy(anchors)[None]))
    return found


@pytest.mark.parametrize("mixer", Mixer)
def test_the_order_of_a_residues_atoms_does_not_matter(
    chignolin_twice: list[tuple[Tensor, Tensor]], mixer: Mixer
) -> None:
    """Through the featurizer, after training, together with a rotation and a translation."""
    one, other = chignolin_twice
    made = CVNetwork(CVNetworkSpec(10, 8, 2, mixer, width=16, num_heads=2, graph_convolution="geometric")).double()
    noisy = [tensor.repeat(4, *[1] * (tensor.ndim - 1)) for tensor in one]
    noisy = [tensor + 0.1 * torch.randn_like(tensor) for tensor in noisy]
    targets = torch.randn(4, 2, dtype=torch.float64)
    train(made.parameters(), lambda: (made(*noisy) - targets).square().mean(), steps=20)
    torch.testing.assert_close(made.eval()(*other), made(*one), rtol=0, atol=1e-9)
