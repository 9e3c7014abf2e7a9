"""Live features of our own runs: resumed after kills, they are those of a run that nobody stopped."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
from killed_processes import KilledCalls
from openmm import app

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import read_checkpoint
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.md.run_settings import ComputeSettings, RunCourse
from openmm_gnn.md.simulation_system import SimulationSystem, Thermostat
from openmm_gnn.reporters.embedding_store import EmbeddingStore
from openmm_gnn.runs.directory import RunDirectory
from openmm_gnn.runs.settings import FeatureSettings
from openmm_gnn.runs.simulate import simulate

SETTINGS = RunCourse(
    steps=120,
    equilibration_steps=25,
    report_interval=20,
    checkpoint_interval=40,
    time_step_ps=0.001,
    temperature=300.0,
    thermostat=Thermostat.LANGEVIN,
    friction_per_ps=1.0,
    seed=1,
)


def chain() -> SimulationSystem:
    """Six bonded carbons in vacuum."""
    topology, system, bonds = app.Topology(), openmm.System(), openmm.HarmonicBondForce()
    residue = topology.addResidue("CHN", topology.addChain())
    atoms = [topology.addAtom(f"C{index}", app.element.carbon, residue) for index in range(6)]
    for index in range(6):
        system.addParticle(12.0)
        if index:
            topology.addBond(*atoms[index - 1 : index + 1])
            bonds.addBond(index - 1, index, 0.15, 1e5)
    system.addForce(bonds)
    positions = np.array([[0.12 * index, 0.09 * (index % 2), 0.0] for index in range(6)])
    return SimulationSystem("chain", system, topology, positions, temperature=300.0)


@pytest.fixture(scope="module")
def features() -> FeatureSettings:
    """More frames of features than of positions."""
    return FeatureSettings("peptide-et", stride=5, dtype="float32")


def run(path: Path, settings: RunCourse, features: FeatureSettings | None) -> RunDirectory:
    start = chain()
    return simulate(start, path, settings, compute=ComputeSettings("Reference"), features=features).directory


def test_features_of_a_run_are_those_of_its_frames_and_do_not_alter_it(
    tmp_path: Path, features: FeatureSettings
) -> None:
    with_features = run(tmp_path / "run", SETTINGS, features)
    without = run(tmp_path / "plain", SETTINGS, None)
    assert with_features.log.read_text() == without.log.read_text()
    assert with_features.trajectory.read_bytes() == without.trajectory.read_bytes()
    stores = EmbeddingStore.replicas(tmp_path / "run")
    assert list(stores) == ["features"]
    store = stores["features"]
    assert store.steps.tolist() == list(range(5, 125, 5))
    assert store.times_ps == pytest.approx(store.steps * 0.001)
    assert store.is_closed
    positions, _ = with_features.read_positions()
    expected = Featurizer(features.encoder, chain().topology).features(positions)
    scale = np.abs(expected).max()
    assert np.abs(store.embeddings[3::4] - expected).max() < 1e-4 * scale  # the trajectory has float32 positions
    assert store.meta["system"]["report_interval"] == 5


def test_a_resumed_run_has_the_features_of_one_never_stopped(tmp_path: Path, features: FeatureSettings) -> None:
    whole = run(tmp_path / "whole", replace(SETTINGS, steps=200), features)
    resumed = run(tmp_path / "run", SETTINGS, features)
    checkpoint = resumed.checkpoint.read_bytes()
    run(resumed.path, replace(SETTINGS, steps=160), features)
    resumed.checkpoint.write_bytes(checkpoint)  # as after a kill: 8 frames lie past the checkpoint
    run(resumed.path, replace(SETTINGS, steps=200), features)
    assert_same_features(resumed, whole)


def test_other_features_are_refused_on_resuming(tmp_path: Path, features: FeatureSettings) -> None:
    run(tmp_path / "run", SETTINGS, features)
    with pytest.raises(DataError, match="selection: None stored, 'index 0 to 3' given"):
        run(tmp_path / "run", replace(SETTINGS, steps=200), replace(features, selection="index 0 to 3"))
    with pytest.raises(SpecError, match="stride is 0"):
        replace(features, stride=0)


def test_features_of_another_run_are_dropped_only_when_asked(tmp_path: Path, features: FeatureSettings) -> None:
    """In the folder of a new run, where nothing of them is made again; a frame of step 0 is one of `featurize`."""
    store, path = tmp_path / "run" / "features", tmp_path / "run"
    featurizer = Featurizer(features.encoder, chain().topology)
    with EmbeddingStore.create(store, featurizer.describe(), featurizer.num_tokens, featurizer.width, "float32") as own:
        shape = (featurizer.num_tokens, 4, featurizer.width)
        for step in (0, 500):
            own.append(step, 0.0, None, np.ones(shape), np.ones((featurizer.num_tokens, 3)))
    with pytest.raises(DataError, match=r"up to step 500, and the run is new .* drop the 2 frames .* --replace"):
        run(path, SETTINGS, features)
    assert EmbeddingStore.open(store).steps.tolist() == [0, 500] and not RunDirectory(path).exists
    run(path, replace(SETTINGS, equilibration_steps=0, steps=40), replace(features, stride=20, replace=True))
    records = EmbeddingStore.open(store).records
    assert records["step"].tolist() == [20, 40] and not (records["embedding"] == 1).any(axis=(1, 2, 3)).any()


def test_a_run_goes_on_from_an_old_checkpoint_only_when_asked(tmp_path: Path, features: FeatureSettings) -> None:
    """Frames that lie past it by more than one checkpoint are not those of a kill."""
    rare, short, long = (replace(features, stride=20), *(replace(SETTINGS, steps=steps) for steps in (40, 120)))
    resumed = run(tmp_path / "run", short, rare)
    old = resumed.checkpoint.read_bytes()
    run(resumed.path, long, rare)
    stored = EmbeddingStore.open(resumed.path / "features").embeddings.copy()
    resumed.checkpoint.write_bytes(old)
    with pytest.raises(DataError, match=r"up to step 120, and the run goes on from step 40: .* the 4 frames"):
        run(resumed.path, long, rare)
    assert len(resumed.read_positions()[0]) == 6 and len(EmbeddingStore.open(resumed.path / "features")) == 6
    run(resumed.path, long, replace(rare, replace=True))
    assert np.array_equal(EmbeddingStore.open(resumed.path / "features").embeddings, stored)


@pytest.mark.parametrize("name", ["trajectory.dcd", "topology.pdb"])
def test_files_that_are_of_no_run_are_not_written_over(tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("mine")
    with pytest.raises(DataError, match=rf"run has {name}, which a new run would replace, and no run\.json"):
        run(tmp_path / "run", SETTINGS, None)
    assert (tmp_path / "run" / name).read_text() == "mine"


ENDLESS = replace(SETTINGS, steps=100_000_000)


@pytest.mark.slow
def test_killed_runs_have_the_features_of_one_never_killed(tmp_path: Path, features: FeatureSettings) -> None:
    killed, rng = RunDirectory(tmp_path / "killed"), random.Random(5)
    with KilledCalls(run, killed.path, ENDLESS, features) as calls:
        for _ in range(5):
            calls.kill_one(rng.uniform(0, 0.5), killed.checkpoint)
            store = EmbeddingStore.open(killed.path / "features")
            assert len(store.verify()) == 0
            assert store.steps.tolist() == list(range(5, 5 * len(store) + 1, 5))
    checkpoint = read_checkpoint(killed.checkpoint)
    assert checkpoint is not None
    ending = replace(ENDLESS, steps=checkpoint.step - ENDLESS.equilibration_steps + 40)
    run(killed.path, ending, features)
    assert_same_features(killed, run(tmp_path / "whole", ending, features))


def assert_same_features(one: RunDirectory, other: RunDirectory) -> None:
    stores = [EmbeddingStore.open(path / "features") for path in (one.path, other.path)]
    for name in ("step", "time", "embedding", "coordinates"):
        assert np.array_equal(stores[0].records[name], stores[1].records[name])
    assert len(stores[0].verify()) == 0


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (FeatureSettings("nonsense", 5), FileNotFoundError, "no encoder 'nonsense'"),
        (FeatureSettings("peptide-et", 5, "resname GLY"), SpecError, "resname GLY"),
    ],
)
def test_features_that_cannot_be_made_leave_no_run_behind(
    tmp_path: Path, settings: FeatureSettings, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        simulate(chain(), tmp_path / "run", SETTINGS, compute=ComputeSettings("Reference"), features=settings)
    assert not (tmp_path / "run").exists()
