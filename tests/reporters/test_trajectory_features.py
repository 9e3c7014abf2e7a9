"""Features made from files against those of the frames themselves, and stores that are gone on with or refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import mdtraj
import numpy as np
import openmm.app
import pytest
import torch

from openmm_gnn.base.errors import DataError, NonFiniteError, SettingsError
from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.kinetics.token_trajectories import trajectory_of_store
from openmm_gnn.networks.encoders.encoder import Encoder
from openmm_gnn.reporters.embedding_store import EmbeddingStore
from openmm_gnn.reporters.trajectory_features import Reading, featurize_trajectory, store_names

VILLIN = Path(openmm.app.__file__).parent / "data" / "test.pdb"
WHOLE = Reading(dtype="float32", chunk=4)


@pytest.fixture(scope="module")
def trajectory() -> mdtraj.Trajectory:
    """13 frames of six residues and some water of villin, wrapped into a box, 2 ps apart."""
    start = mdtraj.load(str(VILLIN))
    start = start.atom_slice(start.topology.select("protein and resid 3 to 8 or resSeq 200 to 260"))
    steps = 0.02 * np.random.default_rng(0).normal(size=(13, *start.xyz.shape[1:])).cumsum(0)
    made = mdtraj.Trajectory(start.xyz + steps, start.topology, time=100.0 + 2.0 * np.arange(13))
    made.unitcell_vectors = np.repeat(np.diag([4.9, 4.6, 3.9])[None], 13, 0)
    made.xyz -= np.floor(made.xyz / [4.9, 4.6, 3.9]) * [4.9, 4.6, 3.9]
    return made


@pytest.fixture(scope="module")
def featurizer(trajectory: mdtraj.Trajectory) -> Featurizer:
    torch.manual_seed(1)
    spec = EncoderSpec(Architecture.TORCHMD_ET, num_layers=1, cutoff=5.0, width=8, num_radial=8, num_heads=2)
    return Featurizer(Encoder(spec).requires_grad_(False), trajectory.topology)


@pytest.mark.parametrize("suffix", ["xtc", "dcd", "pdb"])
def test_a_file_gives_the_features_of_its_frames(
    trajectory: mdtraj.Trajectory, featurizer: Featurizer, tmp_path: Path, suffix: str
) -> None:
    trajectory.save(str(tmp_path / f"run.{suffix}"))
    seen: list[int] = []
    reading = replace(WHOLE, stride=2)
    count = featurize_trajectory(tmp_path / f"run.{suffix}", tmp_path / "store", featurizer, reading, seen.append)
    store = EmbeddingStore.open(tmp_path / "store")
    assert count == seen[-1] == len(store) == 7
    np.testing.assert_array_equal(store.steps, np.arange(0, 13, 2))
    as_written = mdtraj.load(str(tmp_path / f"run.{suffix}"), top=trajectory.topology)[::2]
    boxes = as_written.unitcell_vectors
    np.testing.assert_allclose(store.embeddings, featurizer.features(as_written.xyz, boxes), atol=1e-5)
    np.testing.assert_allclose(store.coordinates, featurizer.coordinates(as_written.xyz, boxes), atol=1e-6)
    np.testing.assert_allclose(store.boxes, boxes, atol=1e-6)
    if suffix == "xtc":
        np.testing.assert_allclose(store.times_ps, 100.0 + 4.0 * np.arange(7))
    else:
        assert np.isnan(store.times_ps).all()  # the format has none: nothing is invented
    assert store.is_closed and store.verify().size == 0


def test_times_are_as_given_where_they_are_given(
    trajectory: mdtraj.Trajectory, featurizer: Featurizer, tmp_path: Path
) -> None:
    trajectory.save_dcd(str(tmp_path / "run.dcd"))
    featurize_trajectory(
        tmp_path / "run.dcd", tmp_path / "store", featurizer, replace(WHOLE, stride=3, frame_time_ps=0.5)
    )
    np.testing.assert_allclose(EmbeddingStore.open(tmp_path / "store").times_ps, 1.5 * np.arange(5))


def test_times_that_are_given_later_keep_the_features(
    trajectory: mdtraj.Trajectory, featurizer: Featurizer, tmp_path: Path
) -> None:
    trajectory.save_dcd(str(tmp_path / "run.dcd"))
    assert featurize_trajectory(tmp_path / "run.dcd", tmp_path / "store", featurizer, replace(WHOLE, stride=3)) == 5
    with pytest.raises(DataError, match="--frame-time PS, which keeps the features"):
        trajectory_of_store(EmbeddingStore.open(tmp_path / "store"))
    written = (tmp_path / "store" / "frames.npy").read_bytes()
    timed = replace(WHOLE, stride=3, frame_time_ps=0.5)
    assert featurize_trajectory(tmp_path / "run.dcd", tmp_path / "store", featurizer, timed) == 0
    assert (tmp_path / "store" / "frames.npy").read_bytes() == written
    store = EmbeddingStore.open(tmp_path / "store")
    np.testing.assert_allclose(store.times_ps, 1.5 * np.arange(5))
    np.testing.assert_allclose(trajectory_of_store(store).times_ps, 1.5 * np.arange(5))
    with pytest.raises(DataError, match="frame_time_ps: 0.5 stored, 2.0 given"):
        featurize_trajectory(tmp_path / "run.dcd", tmp_path / "store", featurizer, replace(timed, frame_time_ps=2.0))


@pytest.mark.parametrize("suffix", ["xtc", "dcd", "nc"])
def test_a_path_may_have_any_letters(
    trajectory: mdtraj.Trajectory, featurizer: Featurizer, tmp_path: Path, suffix: str
) -> None:
    folder = tmp_path / "Läufe mit Leerzeichen 数据"
    folder.mkdir()
    trajectory.save(str(tmp_path / f"plain.{suffix}"))
    shutil.copy(tmp_path / f"plain.{suffix}", folder / f"é.{suffix}")
    stores = []
    for place in (tmp_path / f"plain.{suffix}", folder / f"é.{suffix}"):
        featurize_trajectory(place, place.parent / "store", featurizer, WHOLE)
        stores.append(EmbeddingStore.open(place.parent / "store").embeddings)
    np.testing.assert_array_equal(*stores)


def test_without_the_box_molecules_are_taken_as_they_are(
    trajectory: mdtraj.Trajectory, featurizer: Featurizer, tmp_path: Path
) -> None:
    trajectory.save_xtc(str(tmp_path / "run.xtc"))
    featurize_trajectory(tmp_path / "run.xtc", tmp_path / "store", featurizer, replace(WHOLE, periodic=False))
    store = EmbeddingStore.open(tmp_path / "store")
    assert not store.boxes.any()
    read = mdtraj.load(str(tmp_path / "run.xtc"), top=trajectory.topology)
    np.testing.assert_allclose(store.embeddings, featurizer.features(read.xyz), atol=1e-5)


@pytest.mark.parametrize("suffix", ["xtc", "pdb"])
def test_a_grown_file_is_gone_on_with(
    trajectory: mdtraj.Trajectory, featurizer: Featurizer, tmp_path: Path, suffix: str
) -> None:
    path, store = tmp_path / f"run.{suffix}", tmp_path / "store"
    for frames, new in ((5, 3), (5, 0), (13, 4)):
        trajectory[:frames].save(str(path))
        assert featurize_trajectory(path, store, featurizer, replace(WHOLE, stride=2)) == new
    trajectory.save(str(tmp_path / f"whole.{suffix}"))
    featurize_trajectory(tmp_path / f"whole.{suffix}", tmp_path / "at-once", featurizer, replace(WHOLE, stride=2))
    resumed, at_once = EmbeddingStore.open(store), EmbeddingStore.open(tmp_path / "at-once")
    np.testing.assert_array_equal(resumed.steps, at_once.steps)
    np.testing.assert_allclose(resumed.embeddings, at_once.embeddings, atol=1e-6)


def test_a_store_of_another_trajectory_stride_or_model_is_refused(
    trajectory: mdtraj.Trajectory, featurizer: Featurizer, tmp_path: Path
) -> None:
    path, store = tmp_path / "run.xtc", tmp_path / "store"
    trajectory[:6].save_xtc(str(path))
    featurize_trajectory(path, store, featurizer, WHOLE)
    with pytest.raises(DataError, match="stride: 1 stored, 2 given"):
        featurize_trajectory(path, store, featurizer, replace(WHOLE, stride=2))
    with pytest.raises(DataError, match="dtype: 'float32' stored, 'float16' given"):
        featurize_trajectory(path, store, featurizer, replace(WHOLE, dtype="float16"))
    other = Featurizer(featurizer._encoder, trajectory.topology, "protein and backbone")
    with pytest.raises(DataError, match="selection"):
        featurize_trajectory(path, store, other, WHOLE)
    trajectory[:3].save_xtc(str(path))
    with pytest.raises(DataError, match="ends before frame 5, the last of the store"):
        featurize_trajectory(path, store, featurizer, WHOLE)
    trajectory[[0, 5, 4, 3, 2, 1]].save_xtc(str(path))
    with pytest.raises(DataError, match="in frame 5 a token is .* nm elsewhere"):
        featurize_trajectory(path, store, featurizer, WHOLE)
    assert len(EmbeddingStore.open(store)) == 6


@pytest.mark.filterwarnings("ignore:Warning. The 'netCDF4' Python package:UserWarning")
def test_a_broken_frame_leaves_those_before_it(
    trajectory: mdtraj.Trajectory, featurizer: Featurizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = trajectory[:]
    broken.xyz[9, 2] = np.nan
    broken.save_netcdf(str(tmp_path / "run.nc"))
    with pytest.raises(NonFiniteError, match=r"atom \d+ \(CA of"):
        featurize_trajectory(tmp_path / "run.nc", tmp_path / "store", featurizer, WHOLE)
    store = EmbeddingStore.open(tmp_path / "store")
    assert 0 < len(store) <= 9 and store.verify().size == 0


def test_stores_are_named_after_files_and_folders_where_needed(tmp_path: Path) -> None:
    assert store_names([Path("a/x.xtc"), Path("b/y.pdb.gz")]) == ["x", "y"]
    assert store_names([Path("md.part0001.xtc"), Path("md.part0002.xtc")]) == ["md.part0001", "md.part0002"]
    assert store_names([Path("a/trajectory.dcd"), Path("b/trajectory.dcd")]) == ["a-trajectory", "b-trajectory"]
    with pytest.raises(DataError, match=r"a/x.xtc and a/x.dcd would both be stored as a-x"):
        store_names([Path("a/x.xtc"), Path("a/x.dcd")])


@pytest.mark.parametrize(
    "wrong", [{"stride": 0}, {"chunk": 0}, {"frame_time_ps": 0.0}, {"frame_time_ps": float("nan")}]
)
def test_a_reading_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        Reading(**wrong)  # type: ignore[arg-type]
