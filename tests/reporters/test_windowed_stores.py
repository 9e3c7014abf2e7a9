"""Windowed features live, from trajectories and from the commands; a store keeps to the context it was begun with."""

from __future__ import annotations

import copy
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
from command_lines import invoke
from learned_cvs import chain, small_encoder
from openmm import app

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.forces.python_call import feature_force
from openmm_gnn.networks.weights import save_network
from openmm_gnn.reporters.embedding_reporter import EmbeddingReporter
from openmm_gnn.reporters.embedding_store import EmbeddingStore
from openmm_gnn.runs.settings import FeatureSettings

SYSTEM = chain(12)


def featurizer_of(window: int | None = 1, context: str = "window") -> Featurizer:
    return Featurizer(small_encoder(), SYSTEM.topology, context=context, window=window)


def simulation() -> app.Simulation:
    made = app.Simulation(
        *(SYSTEM.topology, copy.deepcopy(SYSTEM.system), openmm.VerletIntegrator(0.001)),
        openmm.Platform.getPlatformByName("Reference"),
    )
    made.context.setPositions(SYSTEM.positions)
    return made


@pytest.mark.parametrize("worker", ["thread", "process", None])
def test_live_features_are_those_of_the_windows(worker: str | None, tmp_path: Path) -> None:
    running, featurizer = simulation(), featurizer_of()
    seen = []
    with EmbeddingReporter(tmp_path / "store", 2, featurizer, dtype="float32", worker=worker) as reporter:
        running.reporters.append(reporter)
        for _ in range(4):
            running.step(2)
            seen.append(running.context.getState(positions=True).getPositions(asNumpy=True)._value)
    store = EmbeddingStore.open(tmp_path / "store")
    assert np.abs(featurizer_of(None, "whole").features(seen[0]) - store.embeddings[0]).max() > 1e-2
    np.testing.assert_allclose(store.embeddings, featurizer.features(np.stack(seen)), atol=1e-5)
    described = store.meta["description"]
    assert (described["context"], described["window"], described["segments"]) == ("window", 1, [6])


def test_a_force_call_makes_windowed_features() -> None:
    seeing = feature_force(featurizer_of(), periodic=False)
    system = copy.deepcopy(SYSTEM.system)
    system.addForce(seeing.force)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(SYSTEM.positions)
    np.testing.assert_allclose(seeing.features(context).features, featurizer_of().features(SYSTEM.positions), atol=1e-5)


def test_appending_with_another_context_is_refused(tmp_path: Path) -> None:
    path, begun = tmp_path / "store", featurizer_of()
    EmbeddingStore.create(path, begun.describe(), begun.num_tokens, begun.width).close()
    with pytest.raises(DataError, match="window: 1 stored, 3 given"):
        EmbeddingReporter(path, 2, featurizer_of(3), append=True, worker=None)
    with pytest.raises(DataError, match="context: 'window' stored, 'whole' given"):
        EmbeddingReporter(path, 2, featurizer_of(None, "whole"), append=True, worker=None)
    EmbeddingReporter(path, 2, featurizer_of(), append=True, worker=None).close()


def test_a_store_that_is_older_than_windows_is_of_the_whole_graph(tmp_path: Path) -> None:
    path, whole = tmp_path / "store", featurizer_of(None, "whole")
    older = {name: value for name, value in whole.describe().items() if name not in ("context", "window", "segments")}
    EmbeddingStore.create(path, older, whole.num_tokens, whole.width).close()
    EmbeddingReporter(path, 2, whole, append=True, worker=None).close()
    with pytest.raises(DataError, match="context: 'whole' stored, 'window' given"):
        EmbeddingReporter(path, 2, featurizer_of(), append=True, worker=None)


def test_featurize_takes_windows_and_keeps_to_them(tmp_path: Path) -> None:
    pdb = app.PDBFile(str(Path(app.__file__).parent / "data" / "test.pdb"))
    protein = mdtraj.Topology.from_openmm(pdb.topology)
    atoms = protein.select("protein")
    frames = pdb.getPositions(asNumpy=True)._value[atoms]
    made = mdtraj.Trajectory(np.stack([frames, 1.01 * frames]), protein.subset(atoms), time=np.arange(2))
    made[0].save_pdb(str(tmp_path / "villin.pdb"))
    made.save(str(tmp_path / "run.trr"))
    save_network(small_encoder(), tmp_path / "small.safetensors")
    line = ["featurize", str(tmp_path / "run.trr"), "--topology", str(tmp_path / "villin.pdb"), "--quiet"]
    line += ["--encoder", str(tmp_path / "small.safetensors"), "--out", str(tmp_path), "--stored-dtype", "float32"]
    done = invoke([*line, "--context", "window", "--window", "1"])
    assert done.exit_code == 0, done.output
    store = EmbeddingStore.open(tmp_path / "run")
    topology = app.PDBFile(str(tmp_path / "villin.pdb")).topology
    expected = Featurizer(small_encoder(), topology, context="window", window=1).features(made.xyz)
    np.testing.assert_allclose(store.embeddings, expected, atol=1e-4)
    for other in (["--context", "window"], []):
        refused = invoke([*line, *other])
        assert refused.exit_code == 1
        assert isinstance(refused.exception, DataError) and "holds other features" in str(refused.exception)


def test_simulate_stores_windowed_features(tmp_path: Path) -> None:
    line = [
        "simulate",
        "alanine-dipeptide",
        "--out",
        str(tmp_path / "run"),
        "--features",
        "peptide-et",
        "--quiet",
    ]
    line += ["--steps", "20", "--stride", "10", "--equilibration", "0", "--platform", "Reference"]
    done = invoke([*line, "--context", "window", "--window", "0"])
    assert done.exit_code == 0, done.output
    store = EmbeddingStore.open(tmp_path / "run" / "features")
    assert (store.meta["description"]["context"], store.meta["description"]["window"]) == ("window", 0)
    assert store.embeddings.shape == (2, 3, 4, 64)
    with pytest.raises(SpecError, match="window is 2, but context is 'whole'"):
        FeatureSettings("peptide-et", 5, window=2)
