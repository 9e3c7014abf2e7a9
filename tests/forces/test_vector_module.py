"""The vector network with its pair term inside OpenMM: every backend and platform gives what eager torch gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit

from openmm_gnn.base.specs.force import NeighborSpec, VectorGAMDSpec
from openmm_gnn.forces.backends import available_backends
from openmm_gnn.forces.gamd_force import gamd_force
from openmm_gnn.forces.modules.exports import export
from openmm_gnn.forces.modules.openmm_module import script_module
from openmm_gnn.graph.topology_tables import separation_table, species_table
from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs
from openmm_gnn.kernels.radial_pairs import pair_types
from openmm_gnn.md.systems.fluids import lattice_sites, water_topology
from openmm_gnn.networks.force_model import PairList
from openmm_gnn.networks.pair_term import grid_sizes
from openmm_gnn.networks.vector_gamd import VectorGAMD
from openmm_gnn.networks.weights import load_model

MOLECULES, EDGE, CUTOFF, REACH = 30, 1.1, 0.4, 0.5
TOPOLOGY = water_topology(MOLECULES, EDGE)
MOLECULE = np.array([[0, 0, 0], [0.0957, 0, 0], [-0.024, 0.0927, 0]])
POSITIONS = (lattice_sites(MOLECULES, EDGE)[:, None] + MOLECULE).reshape(-1, 3)
POSITIONS = POSITIONS + np.random.default_rng(0).normal(0, 0.005, POSITIONS.shape)


def model_of(conservative: bool = False) -> VectorGAMD:
    torch.manual_seed(6)
    model = VectorGAMD(
        VectorGAMDSpec(
            NeighborSpec(CUTOFF), (1, 8), width=16, pair_cutoff=REACH, pair_radial=12, charge_width=0.15,
            conservative=conservative, force_scale=20.0,
        )
    )  # fmt: skip
    assert model.pair_term is not None
    model.pair_term.table[:, :-3] = 3 * torch.randn(9, 9)
    assert model.pair_term.charge_term is not None
    model.pair_term.charge_term.charges.copy_(torch.tensor([4.0, -8.0]))
    return model.eval()


def eager(model: VectorGAMD) -> tuple[float, np.ndarray]:
    """Energy and forces put together by hand."""
    positions, box = torch.from_numpy(POSITIONS), EDGE * torch.eye(3, dtype=torch.float64)
    species, partners = species_table(TOPOLOGY, (1, 8)), separation_table(TOPOLOGY)
    pairs, vectors, distances = neighbor_pairs(positions, CUTOFF, box, full=False)
    types = pair_types(pairs, species, partners, 2)
    energy, forces = model.network_energy_and_forces(
        species, PairList(pairs, vectors.float(), distances.float(), types)
    )
    assert model.pair_term is not None
    pairs, vectors, distances = neighbor_pairs(positions, REACH, box, full=False)
    types = pair_types(pairs, species, partners, 2)
    pair_forces, pair_energy = model.pair_term(pairs, types, vectors.float(), distances.float(), len(positions))
    assert model.pair_term.charge_term is not None
    charge_forces, charge_energy = model.pair_term.charge_term(positions, species, box, grid_sizes([EDGE] * 3, 0.15))
    assert float(charge_forces.abs().max()) > 1
    pair_forces, pair_energy = pair_forces + charge_forces, pair_energy + charge_energy
    total = energy + pair_energy if model.conservative else energy
    return float(total), (forces + pair_forces).detach().double().numpy()


def context_of(model: VectorGAMD, backend: str, platform: str) -> openmm.Context:
    system = openmm.System()
    for atom in TOPOLOGY.atoms():
        system.addParticle(atom.element.mass)
    system.setDefaultPeriodicBoxVectors(*(EDGE * np.eye(3)))
    system.addForce(gamd_force(model, TOPOLOGY, backend=backend))
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(platform))
    context.setPositions(POSITIONS)
    return context


def energy_and_forces(context: openmm.Context) -> tuple[float, np.ndarray]:
    state = context.getState(energy=True, forces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    return energy, state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)


@pytest.mark.parametrize("conservative", [False, True])
@pytest.mark.parametrize("backend", [backend.value for backend in available_backends()])
def test_every_platform_and_backend_gives_the_eager_forces(
    conservative: bool, backend: str, platform_name: str
) -> None:
    model = model_of(conservative)
    expected_energy, expected = eager(model)
    energy, forces = energy_and_forces(context_of(model, backend, platform_name))
    assert np.abs(expected).max() > 10
    np.testing.assert_allclose(forces, expected, atol=2e-5 * np.abs(expected).max())
    assert energy == pytest.approx(expected_energy, rel=1e-5, abs=1e-4)


def test_forces_of_an_energy_model_are_minus_its_energys_slope_in_openmm() -> None:
    context = context_of(model_of(conservative=True), available_backends()[0].value, "Reference")
    _, forces = energy_and_forces(context)
    direction = np.random.default_rng(2).normal(size=forces.shape)
    direction /= np.linalg.norm(direction)
    energies = []
    for step in (-2e-4, 2e-4):
        context.setPositions(POSITIONS + step * direction)
        energies.append(energy_and_forces(context)[0])
    slope = (energies[1] - energies[0]) / 4e-4
    assert -(forces * direction).sum() == pytest.approx(slope, rel=1e-2)


def test_an_exported_file_gives_the_same_model_back(tmp_path: Path) -> None:
    model = model_of()
    path = export(model, TOPOLOGY, tmp_path / "water.pt")
    back = load_model(path)
    assert isinstance(back, VectorGAMD) and back.spec == model.spec
    assert back.pair_term is not None and model.pair_term is not None
    torch.testing.assert_close(back.pair_term.table, model.pair_term.table)
    assert back.pair_term.charge_term is not None and back.pair_term.charge_term.charges.tolist() == [4.0, -8.0]
    np.testing.assert_allclose(eager(back)[1], eager(model)[1], atol=1e-4)


def test_sites_without_an_element_are_not_seen_and_get_no_force() -> None:
    modeller = app.Modeller(TOPOLOGY, POSITIONS * unit.nanometer)
    modeller.addExtraParticles(app.ForceField("tip4pew.xml"))
    positions = torch.tensor(modeller.positions.value_in_unit(unit.nanometer), dtype=torch.float64)
    model = model_of()
    _, forces = script_module(model, modeller.topology)(positions, EDGE * torch.eye(3, dtype=torch.float64))
    site = torch.tensor([atom.element is None for atom in modeller.topology.atoms()])
    assert int(site.sum()) == MOLECULES and not forces[site].any()
    np.testing.assert_allclose(forces[~site].numpy(), eager(model)[1], atol=1e-3)


def test_a_charge_term_without_a_box_is_refused() -> None:
    with pytest.raises(torch.jit.Error, match="needs a periodic box"):
        script_module(model_of(), TOPOLOGY)(torch.from_numpy(POSITIONS))
