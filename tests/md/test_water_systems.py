"""The named waters against the figures of their papers, and their labels against finite differences of the energy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.data.labels.settings import LabelSettings
from openmm_gnn.data.labels.teacher import label
from openmm_gnn.data.labels.trajectories import LabelledTrajectory
from openmm_gnn.graph.topology_tables import real_atoms
from openmm_gnn.md.simulation_system import LabelledForces, SimulationSystem
from openmm_gnn.md.systems.fluids import amoeba_water, tip3p, tip4pew, water_topology
from openmm_gnn.md.systems.structure_files import Constraints, ForceFieldSettings
from openmm_gnn.md.systems.systems import load_system

KCAL = 4.184
OH_LENGTH, HH_LENGTH = 0.09572, 2 * 0.09572 * np.sin(np.deg2rad(104.52) / 2)


def only(system: openmm.System, kind: type) -> openmm.Force:
    (force,) = (force for force in system.getForces() if isinstance(force, kind))
    return force


@pytest.fixture(scope="module")
def tip4p() -> SimulationSystem:
    return tip4pew()


def test_both_rigid_waters_have_the_settings_of_the_gamd_paper(tip4p: SimulationSystem) -> None:
    for water, molecules in ((tip3p(), 258), (tip4p, 251)):
        assert water.topology.getNumResidues() == molecules
        np.testing.assert_allclose(water.box_vectors, np.eye(3) * 2.0)
        assert (water.temperature, water.time_step_ps, water.friction_per_ps) == (300.0, 0.002, 1.0)
        assert water.thermostat.value == "nose-hoover"
        force = only(water.system, openmm.NonbondedForce)
        assert force.getNonbondedMethod() == openmm.NonbondedForce.PME
        assert force.getEwaldErrorTolerance() == 1e-5
        assert force.getCutoffDistance() == 1.0 * unit.nanometer
        assert force.getUseSwitchingFunction() and force.getSwitchingDistance() == 0.85 * unit.nanometer
        assert water.system.getNumConstraints() == 3 * molecules
        lengths = [water.system.getConstraintParameters(k)[2]._value for k in range(3 * molecules)]
        expected = [OH_LENGTH] * (2 * molecules) + [HH_LENGTH] * molecules
        np.testing.assert_allclose(np.sort(lengths), np.sort(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "charges", "sigma", "epsilon"),
    [
        # Jorgensen et al., J. Chem. Phys. 79, 926 (1983), table I: A = 582.0e3, C = 595.0 in kcal/mol and angstrom.
        ("tip3p", [-0.834, 0.417, 0.417], (582.0e3 / 595.0) ** (1 / 6) / 10, 595.0**2 / (4 * 582.0e3) * KCAL),
        # Horn et al., J. Chem. Phys. 120, 9665 (2004), table I.
        ("tip4pew", [0.0, 0.52422, 0.52422, -1.04844], 0.316435, 0.16275 * KCAL),
    ],
)
def test_rigid_waters_have_the_charges_and_radii_of_their_papers(
    name: str, charges: list[float], sigma: float, epsilon: float
) -> None:
    water = load_system(name)
    force = only(water.system, openmm.NonbondedForce)
    for particle in range(force.getNumParticles()):
        charge, radius, depth = (value._value for value in force.getParticleParameters(particle))
        site = particle % len(charges)
        assert charge == pytest.approx(charges[site], abs=1e-9)
        if site == 0:
            assert radius == pytest.approx(sigma, rel=2e-4) and depth == pytest.approx(epsilon, rel=1e-3)
        else:
            assert depth == 0.0


def test_the_charge_site_of_tip4pew_has_no_mass_and_is_not_seen_by_a_network(tip4p: SimulationSystem) -> None:
    masses = tip4p.masses.reshape(251, 4)
    assert tip4p.system.getNumParticles() == 4 * 251 and (masses[:, 3] == 0).all() and (masses[:, :3] > 0).all()
    assert len(real_atoms(tip4p.topology)) == 753
    context = openmm.Context(
        tip4p.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(tip4p.positions)
    context.applyConstraints(1e-8)
    context.computeVirtualSites()
    sites = context.getState(positions=True).getPositions(asNumpy=True)._value.reshape(251, 4, 3)
    middle = sites[:, 1] + sites[:, 2] - 2 * sites[:, 0]
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    # 0.125 angstrom from the oxygen on the bisector (Horn et al. 2004, table I)
    np.testing.assert_allclose(sites[:, 3] - sites[:, 0], 0.0125 * middle, atol=2e-6)


def test_molecules_start_whole_and_apart(tip4p: SimulationSystem) -> None:
    oxygens = tip4p.positions[::4]
    vectors = oxygens[None] - oxygens[:, None]
    distances = np.linalg.norm(vectors - 2.0 * np.round(vectors / 2.0), axis=-1) + 2.0 * np.eye(251)
    assert distances.min() > 0.22
    assert np.abs(np.linalg.norm(tip4p.positions[1::4] - oxygens, axis=1) - OH_LENGTH).max() < 0.003


def test_amoeba_water_is_that_of_ren_and_ponder() -> None:
    water = amoeba_water(190)
    multipoles, dispersion = only(water.system, openmm.AmoebaMultipoleForce), only(water.system, openmm.AmoebaVdwForce)
    assert water.system.getNumConstraints() == 0
    assert multipoles.getNonbondedMethod() == openmm.AmoebaMultipoleForce.PME
    assert multipoles.getPolarizationType() == openmm.AmoebaMultipoleForce.Mutual
    assert (multipoles.getCutoffDistance()._value, dispersion.getCutoffDistance()._value) == (0.7, 0.9)
    # Ren and Ponder, J. Phys. Chem. B 107, 5933 (2003): charges and polarisabilities (angstrom^3) of oxygen, hydrogen.
    for atom, charge, polarity in ((0, -0.51966, 0.837), (1, 0.25983, 0.496), (2, 0.25983, 0.496)):
        parameters = multipoles.getMultipoleParameters(atom)
        assert parameters[0]._value == pytest.approx(charge, abs=1e-6)
        assert parameters[-1]._value * 1000 == pytest.approx(polarity, abs=1e-6)
    assert water.box_vectors[0, 0] == pytest.approx(2.0 * (190 / 258) ** (1 / 3))  # the paper's density
    assert water.bonded_substeps == 4 and water.thermostat.value == "langevin"


@pytest.mark.parametrize(("name", "molecules", "least"), [("tip3p", 257, 258), ("amoeba-water", 100, 189)])
def test_a_box_narrower_than_two_cutoffs_is_refused_in_words(name: str, molecules: int, least: int) -> None:
    with pytest.raises(SpecError, match=f"{molecules} molecules fill a box of .* give at least {least}"):
        load_system(name, num_molecules=molecules)


# ---- labels ----------------------------------------------------------------------------------------------------------


def test_labels_of_water_with_a_charge_site_are_gradients_of_its_energy(
    tip4p: SimulationSystem, tmp_path: Path
) -> None:
    """Atoms are moved against each other, which rigid water never does: no constraint force may be in the label."""
    data = label(
        tip4p, tmp_path / "data", LabelSettings((), (1,), frames=1, stride=2, equilibration=0.0), progress=False
    )
    (trajectory,) = data.trajectories
    positions, forces = np.array(trajectory.positions[0]), np.array(trajectory.forces[0])
    context = openmm.Context(
        tip4p.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )

    def energy(moved: np.ndarray) -> float:
        context.setPositions(moved)
        context.computeVirtualSites()
        return context.getState(energy=True).getPotentialEnergy()._value

    step, largest = 1e-4, float(np.abs(forces).max())
    for atom, axis in ((0, 0), (1, 1), (2, 2), (402, 0), (401, 1)):
        shift = np.zeros_like(positions)
        shift[atom, axis] = step
        slope = (energy(positions + shift) - energy(positions - shift)) / (2 * step)
        # Pairs that cross the cutoff of the direct sum bring steps of the energy, which are in no force: 0.6 of 890.
        assert forces[atom, axis] == pytest.approx(-slope, abs=2e-3 * largest)
    real = np.array(real_atoms(tip4p.topology))
    assert np.abs(forces[real].sum(axis=0)).max() < 0.02 * largest  # nothing of the sites' pull is lost
    context.setPositions(positions)
    context.computeVirtualSites()
    sites = context.getState(positions=True).getPositions(asNumpy=True)._value
    np.testing.assert_allclose(positions, sites, atol=1e-5)


@pytest.fixture(scope="module")
def flexible(tmp_path_factory: pytest.TempPathFactory) -> tuple[SimulationSystem, LabelledTrajectory]:
    """64 flexible molecules labelled with their non-bonded forces, 8 ps with bonds every 0.5 fs, the rest every 2."""
    folder = tmp_path_factory.mktemp("flexible")
    edge = 1.3
    topology = water_topology(64, edge)
    sites = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3) * edge / 4
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 3, 3)))[0]
    angle = np.deg2rad(104.52)
    molecule = OH_LENGTH * np.array([[0, 0, 0], [1, 0, 0], [np.cos(angle), np.sin(angle), 0]])
    with (folder / "box.pdb").open("w") as file:
        app.PDBFile.writeFile(topology, (sites + molecule @ turned).reshape(-1, 3) * unit.nanometer, file)
    system = load_system(
        folder / "box.pdb", force_field=ForceFieldSettings(("tip3p.xml",), 0.6, Constraints.NONE, flexible_water=True)
    )
    data = label(
        system,
        folder / "data",
        LabelSettings(
            seeds=(1,), frames=200, stride=20, equilibration=2.0, friction=10.0, forces=LabelledForces.NONBONDED
        ),
        progress=False,
    )
    return system, data.trajectories[0]


def bonded_forces(positions: np.ndarray) -> np.ndarray:
    """Of flexible TIP3P as tip3p.xml has it: two harmonic bonds and a harmonic angle per molecule."""
    x = torch.from_numpy(positions).requires_grad_()
    oxygen, first, second = x[0::3], x[1::3], x[2::3]
    one, two = first - oxygen, second - oxygen
    cosine = (one * two).sum(1) / (one.norm(dim=1) * two.norm(dim=1))
    stretch = ((one.norm(dim=1) - 0.09572) ** 2 + (two.norm(dim=1) - 0.09572) ** 2).sum() * 462750.4 / 2
    bend = ((torch.arccos(cosine) - 1.82421813418) ** 2).sum() * 836.8 / 2
    return -torch.autograd.grad(stretch + bend, x)[0].numpy()


def test_nonbonded_labels_are_all_forces_less_the_bonded_ones(
    flexible: tuple[SimulationSystem, LabelledTrajectory],
) -> None:
    system, trajectory = flexible
    context = openmm.Context(
        system.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    for frame in (0, 199):
        positions = np.array(trajectory.positions[frame])
        context.setPositions(positions)
        every = context.getState(forces=True).getForces(asNumpy=True)._value
        bonded = bonded_forces(positions)
        assert np.abs(bonded).max() > 500
        expected = every - bonded
        tolerance = 2e-4 * np.abs(every).max()
        np.testing.assert_allclose(trajectory.forces[frame], expected, rtol=0, atol=tolerance)


def test_substeps_of_the_bonded_forces_keep_the_temperature(
    flexible: tuple[SimulationSystem, LabelledTrajectory],
) -> None:
    system, trajectory = flexible
    assert system.bonded_substeps == 4
    masses = system.masses[:, None]
    kinetic = 0.5 * (masses * np.asarray(trajectory.records["velocities"], dtype=np.float64) ** 2).sum(axis=2)
    for atoms in (slice(0, None, 3), slice(1, None, 3), slice(2, None, 3)):  # energy flows to no kind of atom
        temperature = kinetic[:, atoms].mean() * 2 / (3 * BOLTZMANN_KJ_MOL_K)
        assert temperature == pytest.approx(300.0, rel=0.06)
    assert kinetic.mean() * 2 / (3 * BOLTZMANN_KJ_MOL_K) == pytest.approx(300.0, rel=0.03)
