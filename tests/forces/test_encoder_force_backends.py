"""Forces from an encoder as an openmm.Force: on every platform and backend the forces of the plain network."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm import app
from rounding import rounding_of_sum, rounding_of_table_slopes
from small_encoders import small_encoder_force

from openmm_gnn.base.errors import TopologyError
from openmm_gnn.base.specs.encoder import Architecture
from openmm_gnn.forces.backends import Backend, available_backends
from openmm_gnn.forces.gamd_force import gamd_force
from openmm_gnn.forces.modules.exports import export
from openmm_gnn.forces.multiple_time_step import accelerate
from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.networks.encoder_force import EncoderForce
from openmm_gnn.networks.force_model import PairList
from openmm_gnn.networks.weights import load_model

DIRECT = rounding_of_sum(16 * 10, 1.0)
"""Share of the largest force: ten layers in a row with sums of 16 terms, as large as the results, are 3e-6 off."""
CONSERVATIVE = rounding_of_table_slopes(769)
"""Share of the largest force: filters are tables, and a force is at least a filter's value over the cutoff; 1.4e-4."""
Box = np.ndarray | None
ELEMENTS = (1, 6, 7, 8)


@pytest.fixture(scope="module")
def peptide() -> tuple[app.Topology, np.ndarray]:
    system = load_system("alanine-dipeptide")
    return system.topology, system.positions


def plain_forces(
    model: EncoderForce, topology: app.Topology, positions: np.ndarray, box: np.ndarray | None
) -> tuple[float, np.ndarray]:
    """Energy and forces of the bare network in float64."""
    numbers = [atom.element.atomic_number for atom in topology.atoms()]
    species = torch.tensor([model.spec.elements.index(number) for number in numbers])
    pairs = neighbor_pairs(
        torch.from_numpy(positions.copy()),
        model.spec.neighbors.cutoff,
        None if box is None else torch.from_numpy(box),
        full=False,
    )
    with torch.no_grad():
        energy, forces = copy.deepcopy(model).double().eval().network_energy_and_forces(species, PairList(*pairs))
    return float(energy), forces.numpy()


def state_at(force: openmm.Force, positions: np.ndarray, box: np.ndarray | None, platform: str) -> openmm.State:
    system = openmm.System()
    for _ in positions:
        system.addParticle(12.0)
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*box)
    system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform))
    context.setPositions(positions)
    return context.getState(getForces=True, getEnergy=True)


def assert_close(forces: np.ndarray, expected: np.ndarray, conservative: bool = False) -> None:
    tolerance = CONSERVATIVE if conservative else DIRECT
    np.testing.assert_allclose(forces, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("box", [None, np.eye(3) * 1.2], ids=["open", "periodic"])
@pytest.mark.parametrize("conservative", [False, True], ids=["direct", "conservative"])
def test_forces_in_openmm_are_those_of_the_plain_network(
    backend: Backend,
    conservative: bool,
    box: np.ndarray | None,
    platform_name: str,
    peptide: tuple[app.Topology, np.ndarray],
) -> None:
    topology, positions = peptide
    model = small_encoder_force(elements=ELEMENTS, conservative=conservative)
    force = gamd_force(model, topology, backend, periodic=box is not None)
    state = state_at(force, positions, box, platform_name)
    expected = plain_forces(model, topology, positions, box)[1]
    assert_close(state.getForces(asNumpy=True)._value, expected, conservative)


@pytest.mark.parametrize(
    ("architecture", "conservative"), [(Architecture.VISNET, False), (Architecture.TENSORNET, True)]
)
def test_other_architectures_do_the_same(
    architecture: Architecture, conservative: bool, peptide: tuple[app.Topology, np.ndarray]
) -> None:
    topology, positions = peptide
    model = small_encoder_force(architecture, elements=ELEMENTS, conservative=conservative)
    state = state_at(gamd_force(model, topology), positions, None, "Reference")
    expected = plain_forces(model, topology, positions, None)[1]
    assert_close(state.getForces(asNumpy=True)._value, expected, conservative)


@pytest.mark.parametrize("conservative", [False, True], ids=["direct", "conservative"])
def test_an_exported_module_is_a_model_again(
    conservative: bool, peptide: tuple[app.Topology, np.ndarray], tmp_path: Path
) -> None:
    topology, positions = peptide
    model = small_encoder_force(elements=ELEMENTS, conservative=conservative)
    loaded = load_model(export(model, topology, tmp_path / "peptide.pt"))
    assert isinstance(loaded, EncoderForce) and loaded.spec == model.spec
    energy, forces = torch.jit.load(str(tmp_path / "peptide.pt"))(torch.from_numpy(positions.copy()))
    expected = plain_forces(loaded, topology, positions, None)
    assert_close(forces.numpy(), expected[1], conservative)
    if conservative:
        assert float(energy) == pytest.approx(expected[0], abs=1e-5 * abs(expected[0]) + 1e-4)


def test_an_element_it_was_not_trained_on_is_named(peptide: tuple[app.Topology, np.ndarray]) -> None:
    with pytest.raises(TopologyError, match=r"element N \(atomic number 7\).*train one that has this element"):
        gamd_force(small_encoder_force(elements=(1, 6, 8)), peptide[0])


def test_as_the_inner_force_of_a_multiple_time_step_it_cancels_from_the_sum() -> None:
    start = load_system("alanine-dipeptide")
    model = small_encoder_force(elements=ELEMENTS, remove_net_force=True)
    model.spec.metadata["data"] = [{"forces": "nonbonded"}]
    system, integrator = accelerate(start.system, start.topology, model, inner_steps=2)
    reference = openmm.Platform.getPlatformByName("Reference")
    contexts = [
        openmm.Context(system, integrator, reference),
        openmm.Context(start.system, openmm.VerletIntegrator(0.001), reference),
    ]
    found = []
    for context in contexts:
        context.setPositions(start.positions)
        found.append(context.getState(getForces=True).getForces(asNumpy=True)._value)
    assert_close(*found)
    integrator.step(2)
    moved = contexts[0].getState(getPositions=True).getPositions(asNumpy=True)._value
    assert np.isfinite(moved).all()
