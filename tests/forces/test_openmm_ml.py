"""The potential `gamd` of openmm-ml, asked what openmm-ml's own tests ask of its potentials, on every platform."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import openmm
import pytest
from openmm import app
from small_water import water_on_a_lattice
from warm_python import run_python

from openmm_gnn.base.errors import SpecError, TopologyError
from openmm_gnn.base.specs.force import GAMDSpec, NeighborSpec, VectorGAMDSpec
from openmm_gnn.forces.backends import available_backends
from openmm_gnn.forces.gamd_force import gamd_force
from openmm_gnn.md.systems.fluids import water_topology
from openmm_gnn.networks.force_model import ForceModel
from openmm_gnn.networks.gamd import GAMD
from openmm_gnn.networks.weights import make_model, save_network

EDGE, MOLECULES = 1.8, 27
SUBSET = [5, 3, 4, 30, 31, 32]
"""Two molecules, one of them in another order than the topology's."""
TOLERANCE = {"Reference": 1e-5, "CPU": 2e-5, "OpenCL": 2e-5, "CUDA": 2e-5, "HIP": 2e-5}
"""Of the largest force: networks compute in float32, and all platforms but Reference too."""


@pytest.fixture(scope="module")
def potential_class() -> type:
    openmmml = pytest.importorskip("openmmml", reason="openmm-ml is not installed (it needs OpenMM 8.6.1 or newer)")
    return openmmml.MLPotential


@pytest.fixture
def direct() -> GAMD:
    """A network without an energy."""
    return GAMD(GAMDSpec(NeighborSpec(0.5), (1, 8), width=12, num_radial=8, force_scale=200.0)).eval()


@pytest.fixture(params=["direct", "conservative"])
def model(request: pytest.FixtureRequest, direct: GAMD) -> ForceModel:
    """The same, and a network with an energy that knows bonds."""
    if request.param == "direct":
        return direct
    spec = VectorGAMDSpec(NeighborSpec(0.5), (1, 8), width=16, num_radial=8, conservative=True, force_scale=200.0)
    return make_model(spec).eval()


def positions() -> np.ndarray:
    """Molecules on a lattice, each distorted; some lie across the faces of the box."""
    generator = np.random.default_rng(2)
    return water_on_a_lattice(3, EDGE / 3) + generator.normal(scale=0.008, size=(3 * MOLECULES, 3))


def molecular_mechanics(topology: app.Topology) -> openmm.System:
    """Flexible water with a cutoff: all forces are sums over pairs and molecules, so that parts can be subtracted.

    Without a reaction field, which the exceptions do not feel that openmm-ml makes of the subset's pairs.
    """
    system = app.ForceField("tip3p.xml").createSystem(
        topology, nonbondedMethod=app.CutoffPeriodic, nonbondedCutoff=0.8, rigidWater=False
    )
    (nonbonded,) = (force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    nonbonded.setReactionFieldDielectric(1.0)
    nonbonded.setUseDispersionCorrection(False)  # of all atoms, whatever becomes of their pairs
    return system


def forces_and_energy(
    system: openmm.System, where: np.ndarray, platform: str, **parameters: float
) -> tuple[np.ndarray, float]:
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform))
    context.setPositions(where)
    for name, value in parameters.items():
        context.setParameter(name, value)
    state = context.getState(getForces=True, getEnergy=True)
    return state.getForces(asNumpy=True)._value, state.getPotentialEnergy()._value


def forces(system: openmm.System, where: np.ndarray, platform: str, **parameters: float) -> np.ndarray:
    return forces_and_energy(system, where, platform, **parameters)[0]


def assert_close(found: np.ndarray, expected: np.ndarray, platform: str) -> None:
    assert np.abs(expected).max() > 1.0
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[platform] * np.abs(expected).max())


def network_alone(model: ForceModel, subset: list[int] | None, where: np.ndarray) -> tuple[np.ndarray, float]:
    """Our own force on these atoms, in a System of nothing else, and its energy."""
    topology = water_topology(MOLECULES if subset is None else len(subset) // 3, EDGE)
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(np.eye(3) * EDGE))
    for atom in topology.atoms():
        system.addParticle(atom.element.mass)
    system.addForce(gamd_force(model, topology))
    chosen = np.arange(len(where)) if subset is None else np.sort(subset)
    spread = np.zeros_like(where)
    spread[chosen], energy = forces_and_energy(system, where[chosen], "Reference")
    return spread, energy


def test_a_pure_system_has_the_forces_of_the_network(
    potential_class: type, model: ForceModel, platform_name: str
) -> None:
    system = potential_class("gamd", model=model).createSystem(water_topology(MOLECULES, EDGE))
    found, energy = forces_and_energy(system, positions(), platform_name)
    expected, expected_energy = network_alone(model, None, positions())
    assert_close(found, expected, platform_name)
    assert energy == pytest.approx(expected_energy, rel=1e-5)
    assert (energy == 0.0) == isinstance(model, GAMD)
    assert any(isinstance(force, openmm.CMMotionRemover) for force in system.getForces())


def test_molecules_translated_by_box_vectors_feel_the_same(
    potential_class: type, direct: GAMD, platform_name: str
) -> None:
    system = potential_class("gamd", model=direct).createSystem(water_topology(MOLECULES, EDGE))
    shifts = np.repeat(np.random.default_rng(4).integers(-2, 3, (MOLECULES, 3)), 3, axis=0) * EDGE
    before, after = (forces(system, where, platform_name) for where in (positions(), positions() + shifts))
    assert_close(after, before, platform_name)


def test_a_mixed_system_replaces_exactly_the_forces_within_the_subset(
    potential_class: type, model: ForceModel, platform_name: str
) -> None:
    topology = water_topology(MOLECULES, EDGE)
    everything = molecular_mechanics(topology)
    mixed = potential_class("gamd", model=model).createMixedSystem(topology, everything, SUBSET)
    within = np.zeros((3 * MOLECULES, 3))
    within[np.sort(SUBSET)], energy_within = forces_and_energy(
        molecular_mechanics(water_topology(2, EDGE)), positions()[np.sort(SUBSET)], "Reference"
    )
    all_forces, all_energy = forces_and_energy(everything, positions(), "Reference")
    network_forces, network_energy = network_alone(model, SUBSET, positions())
    found, energy = forces_and_energy(mixed, positions(), platform_name)
    assert_close(found, all_forces - within + network_forces, platform_name)
    assert np.abs(network_forces).max() > 100 * TOLERANCE[platform_name] * np.abs(all_forces).max()
    expected = all_energy - energy_within + network_energy
    assert energy == pytest.approx(expected, rel=1e-4)


def test_interpolation_gives_the_force_field_at_0_the_mixed_system_at_1_and_the_mean_between(
    potential_class: type, model: ForceModel, platform_name: str
) -> None:
    topology = water_topology(MOLECULES, EDGE)
    everything = molecular_mechanics(topology)
    potential = potential_class("gamd", model=model)
    between = potential.createMixedSystem(topology, everything, SUBSET, interpolate=True)
    mixed = potential.createMixedSystem(topology, everything, SUBSET)
    at_0 = forces(everything, positions(), platform_name)
    at_1, energy_at_1 = forces_and_energy(mixed, positions(), platform_name)
    energies = []
    for weight in (0.0, 1.0, 0.25):
        found, energy = forces_and_energy(between, positions(), platform_name, lambda_interpolate=weight)
        assert_close(found, (1 - weight) * at_0 + weight * at_1, platform_name)
        energies.append(energy)
    assert energies[1] == pytest.approx(energy_at_1, rel=1e-5)
    assert energies[2] == pytest.approx(0.75 * energies[0] + 0.25 * energies[1], rel=1e-5)


def test_a_bundle_is_found_by_its_path_and_the_force_group_is_kept(
    potential_class: type, direct: GAMD, tmp_path: object
) -> None:
    topology = water_topology(MOLECULES, EDGE)
    bundle = save_network(direct, f"{tmp_path}/water.safetensors") or f"{tmp_path}/water.safetensors"
    mixed = potential_class("gamd", model=bundle).createMixedSystem(
        topology, molecular_mechanics(topology), SUBSET, forceGroup=7
    )
    (ours,) = (force for force in mixed.getForces() if force.getForceGroup() == 7)
    assert ours.getName() == "GAMDForceWithoutEnergy"


def test_a_cluster_in_open_space_needs_no_box(potential_class: type, direct: GAMD) -> None:
    topology = water_topology(MOLECULES, EDGE)
    topology.setPeriodicBoxVectors(None)
    system = potential_class("gamd", model=direct).createSystem(topology)
    assert not system.usesPeriodicBoundaryConditions()
    wide = water_topology(MOLECULES, 30.0)
    far = potential_class("gamd", model=direct).createSystem(wide)
    assert_close(*(forces(which, positions(), "Reference") for which in (system, far)), "Reference")


def test_wrong_arguments_are_refused_in_words(potential_class: type, direct: GAMD) -> None:
    topology = water_topology(MOLECULES, EDGE)
    for arguments, message in (
        ({}, "needs a model"),
        ({"model": direct, "precision": "single"}, r"no arguments \['precision'\]"),
    ):
        with pytest.raises(SpecError, match=message):
            potential_class("gamd", **arguments)
    potential = potential_class("gamd", model=direct)
    with pytest.raises(SpecError, match=r"no arguments \['device'\]"):
        potential.createSystem(topology, device="cpu")
    nonbonded = GAMD(GAMDSpec(NeighborSpec(0.5), (1, 8), metadata={"data": [{"forces": "nonbonded"}]}))
    with pytest.raises(SpecError, match="trained on non-bonded forces"):
        potential_class("gamd", model=nonbonded)
    argon = GAMD(GAMDSpec(NeighborSpec(0.5), (18,)))
    with pytest.raises(TopologyError, match="is element O"):
        potential_class("gamd", model=argon).createSystem(topology)


def test_the_potential_offers_all_that_openmm_ml_asks_for(potential_class: type, direct: GAMD) -> None:
    from openmmml.mlpotential import MLPotentialImpl

    asked = {name for name in vars(MLPotentialImpl) if not name.startswith("_")} - {"createMixedSystem"}
    assert asked == {"addForces", "getMLLongRange", "getSupportedEmbeddings"}
    ours = potential_class("gamd", model=direct)._impl
    assert [name for name in asked if not callable(getattr(ours, name, None))] == []
    assert potential_class("gamd", model=direct).getSupportedEmbeddings() == ["mechanical"]


@pytest.mark.parametrize("first", ["openmmml", "openmm_gnn.forces.openmm_ml"])
def test_our_file_and_openmm_ml_can_be_imported_in_any_order(potential_class: type, first: str) -> None:
    program = f"import {first}, openmmml, openmm_gnn.forces.openmm_ml; print(openmmml.MLPotential.__name__)"
    told = run_python("-c", program)
    assert told.stdout.strip() == "MLPotential", told.stderr


def test_importing_openmm_ml_imports_no_torch(potential_class: type) -> None:
    """openmm-ml loads our entry point whenever it is imported, also by those who use other potentials."""
    program = (
        "import sys, openmmml; from openmmml.mlpotential import MLPotential as P; "
        "assert 'gamd' in P._implFactories, 'not registered'; print('torch' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert told.stdout.strip() == "False", told.stderr


# ---- without openmm-ml -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", available_backends())
def test_a_force_on_some_atoms_sees_and_moves_only_them(backend: str, direct: GAMD) -> None:
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(np.eye(3) * EDGE))
    for _ in range(3 * MOLECULES):
        system.addParticle(1.0)
    system.addForce(gamd_force(direct, water_topology(MOLECULES, EDGE), backend, atoms=SUBSET))
    where = positions()
    expected, _ = network_alone(direct, SUBSET, where)
    assert_close(forces(system, where, "Reference"), expected, "Reference")
    others = np.setdiff1d(np.arange(3 * MOLECULES), SUBSET)
    where[others] += 0.3
    assert_close(forces(system, where, "Reference"), expected, "Reference")


@pytest.mark.parametrize("atoms", [[0, 0], [81], [-1], []])
def test_atoms_that_cannot_be_chosen_are_refused_in_words(atoms: list[int], direct: GAMD) -> None:
    with pytest.raises(TopologyError, match="cannot be chosen of 81"):
        gamd_force(direct, water_topology(MOLECULES, EDGE), atoms=atoms)
