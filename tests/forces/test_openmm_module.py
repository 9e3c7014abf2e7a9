"""Exported modules: frozen equals eager, moves by box vectors change nothing, forces are gradients of energies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from finite_differences import finite_difference_deviation
from openmm import app
from torch import Tensor, nn

from openmm_gnn.base.errors import DataError, OpenMMGNNError, TopologyError
from openmm_gnn.base.specs.codec import spec_from_json
from openmm_gnn.base.specs.force import Decoder, GAMDSpec, NeighborSpec
from openmm_gnn.base.version_rules import torchscript_words
from openmm_gnn.forces.modules import openmm_module
from openmm_gnn.forces.modules.exports import export
from openmm_gnn.forces.modules.openmm_module import (
    OpenMMModule,
    check_export,
    frozen_deviation,
    script_module,
    translation_deviation,
)
from openmm_gnn.graph.neighbor_list import NeighborList
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.networks.gamd import GAMD
from openmm_gnn.networks.weights import load_model


@pytest.fixture(scope="module")
def argon() -> tuple[app.Topology, Tensor, Tensor]:
    system = load_system("argon")
    noise = np.random.default_rng(0).normal(scale=0.02, size=system.positions.shape)
    return system.topology, torch.from_numpy(system.positions + noise), torch.from_numpy(system.box_vectors)


@pytest.fixture(params=list(Decoder))
def model(request: pytest.FixtureRequest) -> GAMD:
    torch.manual_seed(4)
    spec = GAMDSpec(NeighborSpec(0.7), (18,), decoder=request.param, width=16, num_layers=2, num_radial=12)
    return GAMD(spec).eval()


class LennardJonesModule(nn.Module):
    """A conservative module with an energy, made only to test the path of gradients through the neighbour list."""

    def __init__(self) -> None:
        super().__init__()
        self.neighbors = NeighborList(0.7, 0.1, 96)

    def forward(self, positions: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
        x = positions.detach().requires_grad_(True)
        _, _, distances = self.neighbors(x, box)
        u = (0.34 / distances) ** 6
        energy = 4.0 * ((u * u - u) * (1 - (distances / 0.7).clamp(max=1.0)) ** 3).sum()
        gradient = torch.autograd.grad([energy], [x])[0]
        assert gradient is not None
        return energy.detach(), -gradient


def test_checks_pass_for_an_exported_network(model: GAMD, argon: tuple[app.Topology, Tensor, Tensor]) -> None:
    topology, positions, box = argon
    check_export(script_module(model, topology), OpenMMModule(model, topology), positions, box)


def test_frozen_and_eager_agree_in_both_dtypes(model: GAMD, argon: tuple[app.Topology, Tensor, Tensor]) -> None:
    topology, positions, box = argon
    for dtype in (torch.float32, torch.float64):
        scripted = script_module(model, topology)
        x, h = positions.to(dtype), box.to(dtype)
        assert frozen_deviation(scripted, OpenMMModule(model, topology), x, h) < 1e-6
        energy, forces = scripted(x, h)
        assert energy.dtype == forces.dtype == dtype
        assert forces.shape == x.shape
        assert forces.is_contiguous()


def test_the_translation_check_notices_a_module_without_minimum_image(
    argon: tuple[app.Topology, Tensor, Tensor],
) -> None:
    class Naive(nn.Module):
        def forward(self, positions: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
            return positions.sum(), -positions

    _, positions, box = argon
    assert translation_deviation(Naive(), positions, box) > 1.0
    with pytest.raises(OpenMMGNNError, match="translated by box vectors"):
        check_export(torch.jit.script(Naive()), Naive(), positions, box)


def test_forces_of_a_conservative_module_are_finite_differences_of_its_energy(
    argon: tuple[app.Topology, Tensor, Tensor],
) -> None:
    _, positions, box = argon
    eager = LennardJonesModule()
    assert finite_difference_deviation(eager, positions, box) < 1e-6
    scripted = torch.jit.script(LennardJonesModule().eval())
    assert finite_difference_deviation(scripted, positions, box) < 1e-6
    frozen = torch.jit.freeze(scripted)
    torch.testing.assert_close(frozen(positions, box)[1], eager(positions, box)[1], rtol=0, atol=1e-9)


def test_a_saved_module_carries_its_spec_and_its_network(
    model: GAMD, argon: tuple[app.Topology, Tensor, Tensor], tmp_path: Path
) -> None:
    topology, positions, box = argon
    path = export(model, topology, tmp_path / "argon.pt")
    loaded = torch.jit.load(str(path))
    assert spec_from_json(loaded.spec_json) == model.spec
    assert spec_from_json(torch.jit.freeze(loaded, preserved_attrs=["spec_json"]).spec_json) == model.spec
    torch.testing.assert_close(loaded(positions, box)[1], OpenMMModule(model, topology)(positions, box)[1])
    back = load_model(path)
    assert back.spec == model.spec
    for name, tensor in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor)


def test_foreign_torchscript_and_garbage_are_refused(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "other.pt"))
    with pytest.raises(DataError, match="carries no spec_json: give a module that `openmm-gnn export` wrote"):
        load_model(tmp_path / "other.pt")
    (tmp_path / "garbage.pt").write_bytes(b"garbage")
    with pytest.raises(DataError, match="not a TorchScript module"):
        load_model(tmp_path / "garbage.pt")


def test_wrong_numbers_of_atoms_and_no_topology_are_refused(
    model: GAMD, argon: tuple[app.Topology, Tensor, Tensor]
) -> None:
    topology, positions, box = argon
    with pytest.raises(ValueError, match="257 positions came in.*258 particles"):
        OpenMMModule(model, topology)(positions[:-1], box)
    with pytest.raises(TopologyError, match="NoneType"):
        script_module(model, None)
    with pytest.raises(TopologyError, match="no atoms"):
        script_module(model, app.Topology())


def test_a_python_without_torchscript_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule is asked for Python 3.14, since no test runs there."""
    assert torchscript_words((3, 13)) is None
    monkeypatch.setattr(openmm_module, "torchscript_words", lambda: torchscript_words((3, 14)))
    with pytest.warns(UserWarning, match=r"PyTorch does not support on Python 3\.14; .* Remedy: take Python 3.11"):
        openmm_module.to_torchscript(nn.Linear(2, 2))
