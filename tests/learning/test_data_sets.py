"""Data sets of several topologies, boxes and temperatures: nothing is lost, nothing is mixed that must not be."""

from __future__ import annotations

import json
from pathlib import Path

import ase
import ase.io
import numpy as np
import openmm
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from command_lines import invoke
from label_directories import write_labels
from openmm import app, unit

from openmm_gnn.base.errors import DataError, SpecError, TopologyError
from openmm_gnn.base.specs.force import Decoder, GAMDSpec, NeighborSpec
from openmm_gnn.data.labels.external_labels import read_external
from openmm_gnn.data.labels.imported_labels import import_labels
from openmm_gnn.data.labels.settings import ImportSettings
from openmm_gnn.data.labels.trajectories import LabelledTrajectories
from openmm_gnn.learning.settings import TrainingSettings
from openmm_gnn.learning.training.data_sets import force_errors, force_matching_sets, open_all, select_seeds
from openmm_gnn.md.simulation_system import SimulationSystem
from openmm_gnn.md.systems.fluids import lattice_sites
from openmm_gnn.networks.gamd import GAMD
from openmm_gnn.networks.weights import save_network

CUTOFF = 0.6


def fluid(symbol: str, num_atoms: int, edge: float, epsilon: float, periodic: bool = True) -> SimulationSystem:
    """Lennard-Jones atoms; the deeper the well, the larger the forces."""
    system, topology = openmm.System(), app.Topology()
    force = openmm.NonbondedForce()
    chain = topology.addChain()
    for _ in range(num_atoms):
        system.addParticle(20.0)
        force.addParticle(0.0, 0.3, epsilon)
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), topology.addResidue(symbol.upper(), chain))
    if periodic:
        system.setDefaultPeriodicBoxVectors((edge, 0, 0), (0, edge, 0), (0, 0, edge))
        topology.setPeriodicBoxVectors(np.eye(3) * edge * unit.nanometer)
        force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
        force.setCutoffDistance(edge / 2)
    system.addForce(force)
    return SimulationSystem(f"{symbol}{num_atoms}", system, topology, lattice_sites(num_atoms, edge))


def carbon_monoxide() -> SimulationSystem:
    """Molecules with a charge site between their atoms, which OpenMM's forces pull at."""
    system, topology = openmm.System(), app.Topology()
    system.setDefaultPeriodicBoxVectors((1.2, 0, 0), (0, 1.2, 0), (0, 0, 1.2))
    topology.setPeriodicBoxVectors(np.eye(3) * 1.2 * unit.nanometer)
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.5)
    chain, positions = topology.addChain(), []
    for site in lattice_sites(8, 1.2):
        residue = topology.addResidue("CMO", chain)
        first, second = (topology.addAtom(name, app.Element.getBySymbol(name), residue) for name in ("C", "O"))
        topology.addAtom("M", None, residue)
        topology.addBond(first, second)
        for mass, charge in ((12.0, 0.3), (16.0, 0.2), (0.0, -0.5)):
            force.addParticle(charge, 0.3, 0.4 if mass else 0.0)
            system.addParticle(mass)
        last = system.getNumParticles() - 1
        system.setVirtualSite(last, openmm.TwoParticleAverageSite(last - 2, last - 1, 0.5, 0.5))
        for pair in ((last - 2, last - 1), (last - 2, last), (last - 1, last)):
            force.addException(*pair, 0, 1, 0)
        positions += [site, site + np.array([0.113, 0, 0]), site + np.array([0.0565, 0, 0])]
    system.addForce(force)
    return SimulationSystem("CO", system, topology, np.array(positions))


def make_spec(elements: tuple[int, ...], force_scale: float, **changes: object) -> GAMDSpec:
    return GAMDSpec(
        NeighborSpec(CUTOFF), elements, width=8, num_layers=1, num_radial=8, force_scale=force_scale, **changes
    )


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("labels")
    return {
        "neon": write_labels(folder / "neon", fluid("Ne", 27, 1.5, 0.3), [1, 2, 3], num_frames=11),
        "large": write_labels(folder / "large", fluid("Ne", 40, 1.7, 0.3), [1, 3], temperature=400.0),
        "argon": write_labels(folder / "argon", fluid("Ar", 8, 1.3, 4.0), [2, 3]),
        "cluster": write_labels(folder / "cluster", fluid("Ar", 5, 0.9, 4.0, periodic=False), [1, 2]),
        "sites": write_labels(folder / "sites", carbon_monoxide(), [1, 2]),
        "nonbonded": write_labels(folder / "nonbonded", fluid("Ne", 27, 1.5, 0.3), [1, 2], forces="nonbonded"),
    }


def sets(directories: dict[str, Path], names: list[str], train: list[int], validation: list[int], **spec: object):
    made = force_matching_sets(
        [directories[name] for name in names],
        lambda elements, force_scale: make_spec(elements, force_scale, **spec),
        TrainingSettings(train_seeds=tuple(train), validation_seeds=tuple(validation), validation_frames=1000),
    )
    return made.spec, made.training, made.validation


def raw_forces(directories: dict[str, Path], name: str, seed: int) -> np.ndarray:
    (run,) = LabelledTrajectories.open(directories[name]).select([seed])
    return np.asarray(run.forces, dtype=np.float64)


def test_every_frame_of_every_topology_is_there_once(directories: dict[str, Path]) -> None:
    spec, training, validation = sets(directories, ["neon", "large", "argon", "cluster"], [1, 2], [3])
    assert spec.elements == (10, 18)
    expected = [raw_forces(directories, "neon", 1), raw_forces(directories, "neon", 2)]
    expected += [raw_forces(directories, "large", 1), raw_forces(directories, "argon", 2)]
    expected += [raw_forces(directories, "cluster", 1), raw_forces(directories, "cluster", 2)]
    wanted = [frame for run in expected for frame in run]
    assert len(training) == len(wanted) and len(validation) == 11 + 4 + 4
    for batch, forces in zip((training[index] for index in range(len(training))), wanted, strict=True):
        np.testing.assert_array_equal(batch.forces.numpy(), forces.astype(np.float32))
        assert set(batch.species.tolist()) == ({0} if len(forces) in (27, 40) else {1})


def test_the_force_scale_is_that_of_all_training_forces(directories: dict[str, Path]) -> None:
    spec, _, _ = sets(directories, ["neon", "large", "argon"], [1, 2], [3])
    every = [("neon", 1), ("neon", 2), ("large", 1), ("argon", 2)]
    components = np.concatenate([raw_forces(directories, name, seed)[::10].ravel() for name, seed in every])
    assert spec.force_scale == pytest.approx(np.sqrt(np.mean(components**2)), rel=1e-6)


def test_charge_sites_count_neither_as_atoms_nor_in_the_force_scale(directories: dict[str, Path]) -> None:
    spec, training, _ = sets(directories, ["sites"], [1], [2])
    assert spec.elements == (6, 8)
    atoms = np.arange(24)[np.arange(24) % 3 != 2]
    forces = raw_forces(directories, "sites", 1)
    assert spec.force_scale == pytest.approx(np.sqrt(np.mean(forces[::10][:, atoms] ** 2)), rel=1e-6)
    np.testing.assert_array_equal(training[0].forces.numpy(), forces[0][atoms].astype(np.float32))


def test_atoms_in_open_space_meet_no_images(directories: dict[str, Path]) -> None:
    _, training, _ = sets(directories, ["cluster"], [1], [2])
    (run,) = LabelledTrajectories.open(directories["cluster"]).select([1])
    for index, positions in enumerate(run.positions):
        distances = np.linalg.norm(positions[None] - positions[:, None], axis=-1)[np.triu_indices(5, k=1)]
        expected = np.sort(distances[distances < CUTOFF])
        np.testing.assert_allclose(np.sort(training[index].distances.numpy()), expected, rtol=1e-6)


def test_rotated_topologies_turn_differently(directories: dict[str, Path]) -> None:
    """Each frame is turned, and two topologies do not share their rotations."""
    _, training, _ = sets(directories, ["neon", "argon"], [1, 2], [3], decoder=Decoder.NODE)
    first, last = training[0], training[len(training) - 1]
    for batch, forces in (
        (first, raw_forces(directories, "neon", 1)[0]),
        (last, raw_forces(directories, "argon", 2)[-1]),
    ):
        assert np.abs(batch.forces.numpy() - forces).max() > 0.05 * np.abs(forces).max()
        np.testing.assert_allclose(batch.forces.norm(dim=1), np.linalg.norm(forces, axis=1), rtol=1e-4)


def test_what_must_not_be_mixed_is_refused_in_words(directories: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nonbonded is labelled with nonbonded forces, .*neon with all"):
        open_all([directories["neon"], directories["nonbonded"]])
    with pytest.raises(DataError, match="no data was given"):
        open_all([])
    with pytest.raises(DataError, match=r"holds no meta.json"):
        open_all([tmp_path])
    with pytest.raises(DataError, match=r"no data has seed 7: it has the seeds \[1, 2, 3\]"):
        select_seeds(open_all([directories["neon"], directories["argon"]]), [1, 7])
    with pytest.raises(SpecError, match=r"seeds \[2\] are for training and for validation"):
        TrainingSettings(train_seeds=(1, 2), validation_seeds=(2,))
    with pytest.raises(TopologyError, match="is element Ar"):  # in validation alone
        sets(directories, ["large", "argon"], [1], [2])


def test_a_network_with_bonds_is_not_trained_on_data_without(directories: dict[str, Path], tmp_path: Path) -> None:
    atoms = ase.Atoms("CO", positions=[[0, 0, 0], [1.1, 0, 0]])
    atoms.calc = SinglePointCalculator(atoms, forces=np.ones((2, 3)))
    ase.io.write(tmp_path / "a.xyz", [atoms] * 2, format="extxyz")
    import_labels([read_external(tmp_path / "a.xyz")], tmp_path / "data", ImportSettings(blocks=2))
    paths = {**directories, "imported": tmp_path / "data"}
    with pytest.raises(DataError, match="has none: import it with --topology"):
        sets(paths, ["sites", "imported"], [1], [2], use_bonds=True)
    spec, training, _ = sets(paths, ["sites", "imported"], [1], [2])
    assert spec.elements == (6, 8) and len(training) == 5


def test_errors_over_several_topologies_are_those_of_all_frames(directories: dict[str, Path]) -> None:
    model = GAMD(make_spec((10, 18), 1e-9)).eval()  # predicts next to nothing: every error is the force itself
    groups = select_seeds(open_all([directories["neon"], directories["argon"]]), [2])
    measured = force_errors(model, groups)
    components = [np.abs(raw_forces(directories, name, 2)).ravel() for name in ("neon", "argon")]
    expected = np.concatenate(components).mean() * (1 * unit.kilojoules_per_mole / unit.AVOGADRO_CONSTANT_NA)
    mev = expected.value_in_unit(unit.joule) / 1.602176634e-19 * 1000 / 10
    assert measured.mae == pytest.approx(mev, rel=1e-5)
    assert measured.num_frames == 15


def test_evaluate_refuses_forces_of_another_kind(directories: dict[str, Path], tmp_path: Path) -> None:
    model = GAMD(make_spec((10,), 1.0)).eval()
    save_network(model, tmp_path / "network.safetensors", {"data": [{"forces": "nonbonded"}]})
    arguments = ["evaluate", str(tmp_path / "network.safetensors")]
    refused = invoke([*arguments, str(directories["neon"]), "--seeds", "3"])
    assert refused.exit_code != 0
    assert "trained on nonbonded forces" in str(refused.exception)
    done = invoke([*arguments, str(directories["nonbonded"]), "--seeds", "2", "--json"])
    assert json.loads(done.stdout)["num_frames"] == 4
