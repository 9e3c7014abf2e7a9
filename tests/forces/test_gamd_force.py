"""The network as an openmm.Force: on every platform and backend of this machine, the forces of the plain network."""

from __future__ import annotations

import copy

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit

from openmm_gnn.base.errors import BackendError, TopologyError
from openmm_gnn.base.specs.force import Decoder, GAMDSpec, NeighborSpec
from openmm_gnn.forces import python_force, torch_force
from openmm_gnn.forces.backends import Backend, available_backends
from openmm_gnn.forces.gamd_force import gamd_force
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.networks.force_model import PairList
from openmm_gnn.networks.gamd import GAMD
from openmm_gnn.networks.weights import FORCE_MODELS, load_model, shipped_names

PLATFORMS = [openmm.Platform.getPlatform(index).getName() for index in range(openmm.Platform.getNumPlatforms())]
BACKENDS = available_backends()
WHERE = [(backend, platform) for backend in BACKENDS for platform in PLATFORMS]
TOLERANCE = 1e-5
"""Of the largest force: networks compute in float32."""


def random_model(decoder: Decoder, elements: tuple[int, ...] = (18,), cutoff: float = 0.7, **changes: object) -> GAMD:
    torch.manual_seed(2)
    spec = GAMDSpec(
        NeighborSpec(cutoff),
        elements,
        decoder=decoder,
        width=16,
        num_layers=2,
        num_radial=12,
        force_scale=100.0,
        **changes,  # type: ignore[arg-type]
    )
    return GAMD(spec).eval()


def plain_forces(model: GAMD, positions: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Forces on argon from the bare network in float64: all pairs, minimum image in a box wider than two cutoffs."""
    assert 2 * model.spec.neighbors.cutoff < np.diag(box).min()
    i, j = np.triu_indices(len(positions), k=1)
    vectors = positions[j] - positions[i]
    vectors -= np.round(vectors @ np.linalg.inv(box)) @ box
    distances = np.linalg.norm(vectors, axis=1)
    near = distances < model.spec.neighbors.cutoff
    with torch.no_grad():
        forces = copy.deepcopy(model).double()(
            torch.zeros(len(positions), dtype=torch.int64),
            PairList(
                torch.from_numpy(np.stack([i[near], j[near]])),
                torch.from_numpy(vectors[near]),
                torch.from_numpy(distances[near]),
            ),
        )
    return forces.numpy()


def context_of(force: openmm.Force, num_atoms: int, box: np.ndarray | None, platform: str) -> openmm.Context:
    system = openmm.System()
    for _ in range(num_atoms):
        system.addParticle(39.9)
    if box is not None:
        system.setDefaultPeriodicBoxVectors(*box)
    system.addForce(force)
    return openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform))


def forces_at(context: openmm.Context, positions: np.ndarray) -> np.ndarray:
    context.setPositions(positions)
    return context.getState(getForces=True).getForces(asNumpy=True)._value


def assert_close(forces: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(forces, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


@pytest.fixture(scope="module")
def argon() -> tuple[app.Topology, np.ndarray, np.ndarray]:
    system = load_system("argon")
    positions = system.positions + np.random.default_rng(0).normal(scale=0.02, size=system.positions.shape)
    assert system.box_vectors is not None
    return system.topology, positions, system.box_vectors


def test_some_backend_works_here() -> None:
    assert BACKENDS, (torch_force.why_unavailable(), python_force.why_unavailable())


@pytest.mark.parametrize(("backend", "platform"), WHERE)
@pytest.mark.parametrize("decoder", list(Decoder))
def test_forces_in_openmm_are_those_of_the_plain_network(
    backend: Backend, platform: str, decoder: Decoder, argon: tuple[app.Topology, np.ndarray, np.ndarray]
) -> None:
    topology, positions, box = argon
    model = random_model(decoder)
    context = context_of(gamd_force(model, topology, backend), len(positions), box, platform)
    expected = plain_forces(model, positions, box)
    assert_close(forces_at(context, positions), expected)
    assert context.getState(getEnergy=True).getPotentialEnergy()._value == 0.0
    moved = positions + np.random.default_rng(1).normal(scale=0.004, size=positions.shape)  # within the skin
    assert_close(forces_at(context, moved), plain_forces(model, moved, box))
    far = positions[::-1].copy()  # a rebuild
    assert_close(forces_at(context, far), plain_forces(model, far, box))


@pytest.mark.parametrize(("backend", "platform"), WHERE)
@pytest.mark.parametrize("name", [name for name in shipped_names(FORCE_MODELS) if name.startswith("gamd-argon")])
def test_shipped_argon_models_give_the_same_forces_everywhere(
    backend: Backend, platform: str, name: str, argon: tuple[app.Topology, np.ndarray, np.ndarray]
) -> None:
    model = load_model(name)
    topology, positions, box = argon
    context = context_of(gamd_force(name, topology, backend), len(positions), box, platform)
    assert_close(forces_at(context, positions), plain_forces(model, positions, box))


@pytest.mark.parametrize(("backend", "platform"), WHERE)
def test_atoms_translated_by_box_vectors_feel_the_same(
    backend: Backend, platform: str, argon: tuple[app.Topology, np.ndarray, np.ndarray]
) -> None:
    topology, positions, box = argon
    context = context_of(gamd_force(random_model(Decoder.PAIR), topology, backend), len(positions), box, platform)
    before = forces_at(context, positions)
    shifts = np.random.default_rng(3).integers(-3, 4, size=positions.shape)
    assert_close(forces_at(context, positions + shifts @ box), before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_changed_box_is_seen(backend: Backend, argon: tuple[app.Topology, np.ndarray, np.ndarray]) -> None:
    topology, positions, box = argon
    model = random_model(Decoder.PAIR)
    context = context_of(gamd_force(model, topology, backend), len(positions), box, "Reference")
    forces_at(context, positions)
    for scale in (1.03, 0.98):
        context.setPeriodicBoxVectors(*(scale * box))
        assert_close(forces_at(context, scale * positions), plain_forces(model, scale * positions, scale * box))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cluster_in_open_space_needs_no_box(backend: Backend) -> None:
    topology = app.Topology()
    chain = topology.addChain()
    for _ in range(20):
        topology.addAtom("Ar", app.Element.getBySymbol("Ar"), topology.addResidue("AR", chain))
    model = random_model(Decoder.PAIR)
    positions = np.random.default_rng(5).uniform(0, 1.2, size=(20, 3))
    context = context_of(gamd_force(model, topology, backend), 20, None, "Reference")
    assert_close(forces_at(context, positions), plain_forces(model, positions, np.eye(3) * 100))


@pytest.mark.parametrize("backend", BACKENDS)
def test_virtual_sites_are_not_seen_and_get_no_force(backend: Backend) -> None:
    water = app.Topology()
    chain = water.addChain()
    for _ in range(4):
        residue = water.addResidue("HOH", chain)
        oxygen = water.addAtom("O", app.element.oxygen, residue)
        for name in ("H1", "H2"):
            water.addBond(oxygen, water.addAtom(name, app.element.hydrogen, residue))
        water.addAtom("M", None, residue)
    water.setPeriodicBoxVectors(np.eye(3) * 1.5 * unit.nanometer)
    positions = np.random.default_rng(8).uniform(0, 1.5, size=(16, 3))
    model = random_model(Decoder.PAIR, elements=(1, 8), use_bonds=True)
    context = context_of(gamd_force(model, water, backend), 16, np.eye(3) * 1.5, "Reference")
    forces = forces_at(context, positions)
    sites = np.arange(16) % 4 == 3
    assert np.abs(forces[sites]).max() == 0.0
    assert np.abs(forces[~sites]).max() > 1e-3
    positions[sites] += 0.3
    assert_close(forces_at(context, positions), forces)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_system_with_the_force_survives_serialisation(
    backend: Backend, argon: tuple[app.Topology, np.ndarray, np.ndarray]
) -> None:
    topology, positions, box = argon
    model = random_model(Decoder.PAIR)
    force = gamd_force(model, topology, backend)
    again = openmm.XmlSerializer.clone(force)
    assert_close(
        forces_at(context_of(again, len(positions), box, "Reference"), positions), plain_forces(model, positions, box)
    )


def test_unknown_elements_and_backends_are_refused_in_words(
    argon: tuple[app.Topology, np.ndarray, np.ndarray],
) -> None:
    topology, *_ = argon
    with pytest.raises(TopologyError, match=r"atom 0 \(Ar of AR1\).*Ar.*atomic numbers \[8\]"):
        gamd_force(random_model(Decoder.PAIR, elements=(8,)), topology)
    with pytest.raises(BackendError, match="torchforce.*pythonforce"):
        gamd_force(random_model(Decoder.PAIR), topology, backend="abacus")
    with pytest.raises(FileNotFoundError, match="gamd-xenon"):
        gamd_force("gamd-xenon", topology)
    for backend, module in ((Backend.TORCHFORCE, torch_force), (Backend.PYTHONFORCE, python_force)):
        if module.why_unavailable() is not None:
            with pytest.raises(BackendError, match="doctor"):
                gamd_force(random_model(Decoder.PAIR), topology, backend=backend)
