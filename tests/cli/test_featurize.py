"""`openmm-gnn featurize` on trajectories of a few frames, killed and begun again, and on a cluster where dask is."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import mdtraj
import numpy as np
import openmm.app
import pytest
import torch
from command_lines import invoke
from killed_processes import KilledCalls

from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec
from openmm_gnn.cli import message_of
from openmm_gnn.networks.encoders.encoder import Encoder
from openmm_gnn.networks.weights import save_network
from openmm_gnn.reporters.embedding_store import EmbeddingStore

VILLIN = Path(openmm.app.__file__).parent / "data" / "test.pdb"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A topology, two short trajectories and a long one of villin without water, and an untrained encoder."""
    folder = tmp_path_factory.mktemp("files")
    protein = mdtraj.load(str(VILLIN))
    protein = protein.atom_slice(protein.topology.select("protein"))
    protein.unitcell_vectors = None
    protein.save_pdb(str(folder / "villin.pdb"))
    for name, frames in (("first.xtc", 5), ("second.dcd", 3), ("long.xtc", 300)):
        shakes = 0.01 * np.random.default_rng(frames).normal(size=(frames, *protein.xyz.shape[1:]))
        made = mdtraj.Trajectory(protein.xyz + shakes, protein.topology, time=np.arange(frames))
        made.save(str(folder / name))
    torch.manual_seed(0)
    spec = EncoderSpec(Architecture.TORCHMD_ET, num_layers=1, cutoff=4.0, width=16, num_radial=8, num_heads=2)
    save_network(Encoder(spec), folder / "small.safetensors")
    return folder


def command(files: Path, out: Path, *arguments: str) -> list[str]:
    required = [
        "--topology",
        str(files / "villin.pdb"),
        "--encoder",
        str(files / "small.safetensors"),
        "--out",
        str(out),
    ]
    return ["featurize", *arguments, *required, "--quiet"]


def test_several_files_become_a_store_each(files: Path, tmp_path: Path) -> None:
    names = [str(files / name) for name in ("first.xtc", "second.dcd")]
    result = invoke(command(files, tmp_path, *names, "--stored-dtype", "float32"))
    assert result.exit_code == 0, (result.output, result.exception)
    assert f"first.xtc: 5 frames in {tmp_path / 'first'}, 5 of them new" in result.output
    assert "give the same command with --frame-time PS" in result.output  # DCD has no times
    stores = EmbeddingStore.replicas(tmp_path)
    assert {name: len(store) for name, store in stores.items()} == {"first": 5, "second": 3}
    np.testing.assert_array_equal(stores["first"].times_ps, np.arange(5))
    assert stores["first"].num_tokens == 35
    again = invoke(command(files, tmp_path, *names, "--stored-dtype", "float32"))
    assert "5 frames" in again.output and "0 of them new" in again.output


def test_a_killed_command_goes_on_where_it_was(files: Path, tmp_path: Path) -> None:
    arguments = (str(files / "long.xtc"), "--frame-stride", "2", "--selection", "backbone")
    frames = tmp_path / "killed" / "long" / "frames.npy"
    with KilledCalls(invoke, command(files, tmp_path / "killed", *arguments)) as calls:
        calls.kill_one(0.0, frames, size=20_000)
    store = EmbeddingStore.open(tmp_path / "killed" / "long")
    written = len(store)
    assert 0 < written < 150 and store.verify().size == 0 and not store.is_closed
    before = np.array(store.embeddings)
    for folder in ("killed", "whole"):
        assert invoke(command(files, tmp_path / folder, *arguments)).exit_code == 0
    resumed, whole = EmbeddingStore.open(tmp_path / "killed/long"), EmbeddingStore.open(tmp_path / "whole/long")
    np.testing.assert_array_equal(resumed.steps, np.arange(0, 300, 2))
    np.testing.assert_array_equal(whole.steps, resumed.steps)
    np.testing.assert_array_equal(resumed.embeddings[:written], before)
    np.testing.assert_allclose(resumed.embeddings.astype(float), whole.embeddings.astype(float), atol=2e-3)


def test_without_dask_a_scheduler_is_refused_with_what_to_install(files: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("distributed") is not None:
        pytest.skip("dask.distributed is installed here")
    line = command(files, tmp_path, str(files / "first.xtc"), "--scheduler", "tcp://nowhere:1")
    error = invoke(line).exception
    assert isinstance(error, ImportError)
    assert "pip install distributed`" in message_of(error, line)[0]
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_a_cluster_makes_the_same_stores(files: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed: openmm-gnn[cluster]")
    names = [str(files / name) for name in ("first.xtc", "second.dcd")]
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        result = invoke(command(files, tmp_path / "there", *names, "--scheduler", cluster.scheduler_address))
    assert result.exit_code == 0, (result.output, result.exception)
    assert invoke(command(files, tmp_path / "here", *names)).exit_code == 0
    here, there = EmbeddingStore.replicas(tmp_path / "here"), EmbeddingStore.replicas(tmp_path / "there")
    assert list(here) == list(there) == ["first", "second"]
    for name, store in here.items():
        np.testing.assert_array_equal(store.steps, there[name].steps)
        np.testing.assert_allclose(store.embeddings, there[name].embeddings, atol=1e-3)
