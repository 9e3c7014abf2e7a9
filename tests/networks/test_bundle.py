"""Bundles: what is saved comes back; damaged and foreign files are refused in words."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.specs.codec import spec_from_json, spec_to_json
from openmm_gnn.base.specs.force import Decoder, GAMDSpec, NeighborSpec
from openmm_gnn.networks.gamd import GAMD
from openmm_gnn.networks.weights import FORCE_MODELS, load_model, save_network, shipped_names


@pytest.fixture
def model() -> GAMD:
    return GAMD(
        GAMDSpec(
            NeighborSpec(0.5, skin=0.05, max_neighbors=40),
            elements=(8, 1),
            decoder=Decoder.NODE,
            width=8,
            num_layers=1,
            num_radial=6,
            use_bonds=True,
            metadata={"figures": {"mae": 0.1}},
        )
    )


def test_a_saved_model_comes_back_with_its_spec_and_metadata(model: GAMD, tmp_path: Path) -> None:
    loaded = load_model(save_network(model, tmp_path / "m.safetensors"))
    assert loaded.spec == model.spec
    assert loaded.spec.metadata == {"figures": {"mae": 0.1}}
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_a_bundle_cut_short_is_refused(model: GAMD, tmp_path: Path) -> None:
    path = save_network(model, tmp_path / "m.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="cut short"):
        load_model(path)


def test_a_foreign_torchscript_module_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "linear.pt"))
    with pytest.raises(DataError, match="carries no spec_json: give a module that `openmm-gnn export` wrote"):
        load_model(tmp_path / "linear.pt")


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "m.safetensors")
    with pytest.raises(DataError, match="not written by openmm_gnn"):
        load_model(tmp_path / "m.safetensors")


def test_weights_that_are_not_finite_are_refused(model: GAMD, tmp_path: Path) -> None:
    with torch.no_grad():
        model.edge_radial.weight[0, 0] = torch.nan
    path = save_network(model, tmp_path / "m.safetensors")
    with pytest.raises(DataError, match=r"edge_radial\.weight"):
        load_model(path)


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(FileNotFoundError, match="shipped names"):
        load_model("gamd-unobtainium")
    for name in shipped_names(FORCE_MODELS):
        assert load_model(name).spec.elements


def test_a_spec_survives_json_and_refuses_what_it_does_not_know(model: GAMD) -> None:
    text = spec_to_json(model.spec)
    assert spec_from_json(text) == model.spec
    for wrong, message in (
        ("nonsense", "not JSON"),
        (text.replace('"version": 1', '"version": 99'), "version 99"),
        (text.replace('"width"', '"girth"'), "unknown or missing"),
        (text.replace('"kind": "gamd"', '"kind": "other"'), "kind"),
    ):
        with pytest.raises(SpecError, match=message):
            spec_from_json(wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"elements": ()},
        {"elements": (8, 8)},
        {"width": 0},
        {"num_layers": -1},
        {"min_distance": 0.6},
        {"force_scale": float("nan")},
        {"envelope_exponent": 1},
    ],
)
def test_a_spec_checks_itself_at_birth(model: GAMD, change: dict) -> None:
    with pytest.raises(SpecError):
        dataclasses.replace(model.spec, **change)
    with pytest.raises(SpecError, match="cutoff"):
        NeighborSpec(-1.0)
