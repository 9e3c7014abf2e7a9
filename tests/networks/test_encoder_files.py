"""Encoders from files: complete, safe, with the hyper-parameters that the tensors show; errors in words."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.specs.codec import spec_from_json, spec_to_json
from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.base.specs.force import FORCE_SPECS, GAMDSpec, NeighborSpec
from openmm_gnn.networks.encoders.encoder import Encoder, encoder_hash
from openmm_gnn.networks.encoders.geom2vec_checkpoint import DENALI_ELEMENTS, trained_elements
from openmm_gnn.networks.weights import load_encoder, load_model, make_model, read_bundle, save_network, write_bundle

SMALL = EncoderSpec("visnet", 2, 4.0, width=16, num_radial=8, elements=(1, 6, 8), noise_scale=0.2)
ET, VISNET, TENSORNET = "et_l6_h64_rbf64_r75.pth", "visnet_l6_h64_rbf64_r75.pth", "tensornet_l3_h64_rbf32_r5.pth"


def tensors_of(path: Path) -> dict[str, Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (ET, EncoderSpec("torchmd-et", 6, 7.5, elements=DENALI_ELEMENTS, noise_scale=0.2)),
        (VISNET, EncoderSpec("visnet", 6, 7.5, elements=DENALI_ELEMENTS, noise_scale=0.2)),
        (
            TENSORNET,
            EncoderSpec(
                "tensornet",
                3,
                5.0,
                num_radial=32,
                max_atomic_number=127,
                elements=DENALI_ELEMENTS,
                noise_scale=0.2,
            ),
        ),
    ],
)
def test_hyper_parameters_are_read_from_the_tensors(
    geom2vec_data: Path, tmp_path: Path, name: str, expected: EncoderSpec
) -> None:
    nameless = tmp_path / "weights"
    nameless.symlink_to(geom2vec_data / name)
    encoder = load_encoder(nameless)
    assert encoder.spec == expected
    assert not encoder.training and not any(weight.requires_grad for weight in encoder.parameters())
    assert encoder.spec.is_continuous and load_encoder(nameless, "full").spec.is_continuous
    published = load_encoder(nameless, "nearest").spec
    assert published.neighbor_rule == "nearest" and not published.smooth and not published.is_continuous


def test_a_visnet_of_nine_layers_has_nine(geom2vec_data: Path, tmp_path: Path) -> None:
    """Public ones exist; the published factory builds six layers and drops the rest without a word."""
    short = tensors_of(geom2vec_data / VISNET)
    long = dict(short)
    layer = re.compile(r"representation_model\.vis_mp_layers\.(\d)\.(.*)")
    for name, tensor in short.items():
        if (found := layer.fullmatch(name)) is not None:
            number, rest = int(found[1]), found[2]
            for copy in [number] if number < 4 else [4, 5, 6, 7] if number == 4 else [8]:
                long[f"representation_model.vis_mp_layers.{copy}.{rest}"] = tensor.clone()
    for name in list(long):
        if name.startswith("representation_model.vis_mp_layers.5."):
            long[name] = short[name.replace("layers.5.", "layers.4.")]
    torch.save(long, tmp_path / "visnet_l9.pth")
    encoder = load_encoder(tmp_path / "visnet_l9.pth")
    assert encoder.spec.num_layers == len(encoder.network.layers) == 9
    scalars, _ = encoder(torch.tensor([6, 7]), torch.tensor([[0.0, 0, 0], [1.4, 0, 0]]))
    assert bool(torch.isfinite(scalars).all())


def test_a_checkpoint_without_the_denoising_head_makes_features_all_the_same(
    geom2vec_data: Path, tmp_path: Path
) -> None:
    weights = {k: v for k, v in tensors_of(geom2vec_data / ET).items() if not k.startswith("output_model_noise")}
    torch.save(weights, tmp_path / "headless.pth")
    encoder = load_encoder(tmp_path / "headless.pth")
    assert encoder.spec.noise_scale == 0 and encoder.noise_head is None


def rename(weights: dict[str, Tensor]) -> None:
    weights["representation_model.extra.weight"] = torch.zeros(3)


def drop(weights: dict[str, Tensor]) -> None:
    del weights["representation_model.attention_layers.3.q_proj.bias"]


def drop_layer(weights: dict[str, Tensor]) -> None:
    for name in [name for name in weights if ".attention_layers.3." in name]:
        del weights[name]


def reshape(weights: dict[str, Tensor]) -> None:
    weights["representation_model.attention_layers.0.o_proj.weight"] = torch.zeros(64, 64)


def poison(weights: dict[str, Tensor]) -> None:
    weights["representation_model.out_norm.weight"][5] = float("nan")


def train_basis(weights: dict[str, Tensor]) -> None:
    weights["representation_model.distance_expansion.betas"][5] += 10


def drop_basis(weights: dict[str, Tensor]) -> None:
    del weights["representation_model.distance_expansion.betas"]


def cast_names(weights: dict[Any, Tensor]) -> None:
    weights.clear()
    weights["linear.weight"] = torch.zeros(2, 2)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (rename, "has 1 tensors that this network does not, such as representation_model.extra.weight"),
        (drop, r"has no tensor representation_model.attention_layers.3.q_proj.bias"),
        (drop_layer, r"has layers \[0, 1, 2, 4, 5\]"),
        (reshape, "do not fit its spec"),
        (poison, "network.norm.weight of .* is not finite"),
        (train_basis, "hides the cutoff; give a checkpoint with a fixed expnorm basis"),
        (drop_basis, "has no tensor .*betas"),
        (cast_names, "holds linear.weight, ...: none of torchmd-et, visnet and tensornet"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_by_name(
    geom2vec_data: Path, tmp_path: Path, damage: Any, message: str
) -> None:
    weights = tensors_of(geom2vec_data / ET)
    damage(weights)
    path = tmp_path / "damaged.pth"
    torch.save(weights, path)
    with pytest.raises(DataError, match=message) as caught:
        load_encoder(path)
    assert str(path) in str(caught.value)


class Payload:
    """What must never run when a checkpoint is read."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"representation_model.embedding.weight": Payload(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(DataError, match="holds more than tensors.*reading it could run its code"):
        load_encoder(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", b"PK\x03\x04" + bytes(40)])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "foreign.pth").write_bytes(content)
    with pytest.raises(DataError, match="foreign.pth"):
        load_encoder(tmp_path / "foreign.pth")


def test_a_checkpoint_cut_short_and_one_of_other_things_are_refused(tmp_path: Path) -> None:
    torch.save({"representation_model.embedding.weight": torch.zeros(100, 64)}, tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cut.pth"):
        load_encoder(tmp_path / "cut.pth")
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(DataError, match="holds dict and not named tensors"):
        load_encoder(tmp_path / "other.pth")


def test_a_name_that_is_nothing_lists_what_there_is() -> None:
    with pytest.raises(FileNotFoundError, match="no encoder 'vizznet': give one of the shipped names"):
        load_encoder("vizznet")


def test_a_bundle_keeps_spec_weights_and_hash(tmp_path: Path) -> None:
    encoder = Encoder(SMALL)
    save_network(encoder, tmp_path / "small.safetensors", {"data": "none"})
    back = load_encoder(tmp_path / "small.safetensors")
    assert back.spec == SMALL and back.spec.metadata == {"data": "none"}
    assert encoder_hash(back) == encoder_hash(encoder) and not back.training
    assert load_encoder(tmp_path / "small.safetensors", "index").spec.neighbor_rule == "index"
    with pytest.raises(SpecError, match="'near': give one of"):
        load_encoder(tmp_path / "small.safetensors", "near")


def test_weights_that_are_missing_unknown_or_not_finite_are_refused(tmp_path: Path) -> None:
    encoder = Encoder(SMALL)
    text, weights = read_bundle(save_network(encoder, tmp_path / "good.safetensors"))
    name = "network.embedding.weight"
    damaged = weights[name].clone()
    damaged[3, 1] = torch.nan
    for change, message in (
        ({name: damaged}, f"weight {name} of .*other.* is not finite"),
        ({name: weights[name][1:]}, "do not fit its spec: .*size mismatch"),
        ({"extra": torch.zeros(3)}, "do not fit its spec: .*Unexpected"),
    ):
        with pytest.raises(DataError, match=f"(?s){message}"):
            load_encoder(write_bundle({**weights, **change}, text, tmp_path / "other.safetensors"))
    weights.pop(name)
    with pytest.raises(DataError, match="(?s)do not fit its spec: .*Missing"):
        load_encoder(write_bundle(weights, text, tmp_path / "other.safetensors"))
    (tmp_path / "empty.safetensors").touch()
    with pytest.raises(DataError, match="empty: it was cut short"):
        load_encoder(tmp_path / "empty.safetensors")


def test_bundles_of_encoders_and_of_force_models_are_told_apart(tmp_path: Path) -> None:
    save_network(Encoder(SMALL), tmp_path / "encoder.safetensors")
    save_network(make_model(GAMDSpec(NeighborSpec(0.5), (18,))), tmp_path / "force.safetensors")
    with pytest.raises(DataError, match="is an encoder's.*load_encoder"):
        load_model(tmp_path / "encoder.safetensors")
    with pytest.raises(DataError, match="a force model's: load it with load_model"):
        load_encoder(tmp_path / "force.safetensors")


def test_a_spec_survives_json() -> None:
    assert spec_from_json(spec_to_json(SMALL), EncoderSpec) == SMALL
    with pytest.raises(SpecError, match="unknown or missing fields"):
        spec_from_json(spec_to_json(SMALL).replace("num_radial", "radials"), EncoderSpec)
    older = spec_to_json(SMALL).replace(', "smooth": true', "")
    assert not spec_from_json(older, EncoderSpec).smooth
    with pytest.raises(SpecError, match="load_encoder"):
        spec_from_json(spec_to_json(SMALL), *FORCE_SPECS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 0}, "num_layers is 0"),
        ({"width": 20}, "width is 20: give an even multiple of num_heads"),
        ({"cutoff": 0.0}, "cutoff is 0.0"),
        ({"length_unit": "bohr"}, "length_unit is 'bohr'"),
        ({"elements": (6, 6)}, "give each atomic number once"),
        ({"elements": (6, 120)}, r"from 1 to max_atomic_number \(99\)"),
        ({"noise_scale": -1.0}, "noise_scale is -1.0"),
        ({"max_neighbors": 0}, "max_neighbors is 0"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        EncoderSpec(**{"architecture": "visnet", "num_layers": 1, "cutoff": 5.0, **changes})


def test_the_training_set_is_known_only_where_the_embeddings_show_it() -> None:
    assert trained_elements(torch.randn(100, 64)) == ()
    rows = torch.full((100, 64), 0.3)
    rows[[1, 3, 11, 12, 14, 19, 20]] = 1.0
    assert trained_elements(rows) == DENALI_ELEMENTS
    rows[33] = 1.0
    assert trained_elements(rows) == ()
