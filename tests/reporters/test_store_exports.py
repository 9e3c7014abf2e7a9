"""Exports against the store they come from, each read by the program it is made for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command_lines import invoke
from store_examples import DESCRIPTION, TOKENS, WIDTH, coordinates_of, embedding_of, new_store

from openmm_gnn.base.errors import DataError
from openmm_gnn.reporters import store_exports
from openmm_gnn.reporters.embedding_store import EmbeddingStore
from openmm_gnn.reporters.store_exports import deeptime_trajectories, export, observables_of


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddingStore:
    """13 frames, exported three at a time."""
    new_store(tmp_path / "store", range(5, 18)).close()
    monkeypatch.setattr(store_exports, "_CHUNK_BYTES", 3 * EmbeddingStore.open(tmp_path / "store").records.itemsize)
    return EmbeddingStore.open(tmp_path / "store")


def test_torch_files_have_the_layout_of_geom2vec(store: EmbeddingStore, tmp_path: Path) -> None:
    files = export(store, tmp_path / "run1", "torch")
    assert [file.name for file in files] == ["run1.pt", "run1_ca.pt"]
    tokens, places = (torch.load(file, weights_only=True) for file in files)
    assert tokens.dtype == places.dtype == torch.float32
    assert np.array_equal(tokens, np.stack([embedding_of(step) for step in range(5, 18)]))
    assert places.shape == (13, TOKENS, 3)
    assert places.mean(dim=1).abs().max() < 1e-5


def test_exported_coordinates_are_centred_and_in_angstrom(tmp_path: Path) -> None:
    places = np.random.default_rng(1).normal(size=(TOKENS, 3))
    with EmbeddingStore.create(tmp_path / "store", DESCRIPTION, TOKENS, WIDTH) as store:
        store.append(1, 0.0, None, embedding_of(1), places)
    exported = torch.load(export(store, tmp_path / "one.pt", "torch")[1], weights_only=True)
    assert exported[0].numpy() == pytest.approx(10 * (places - places.mean(axis=0)), abs=1e-5)


def assert_arrays(read: dict[str, np.ndarray], meta: str, store: EmbeddingStore) -> None:
    assert sorted(read) == ["box_nm", "coordinates_nm", "embedding", "step", "time_ps", "wall_s"]
    assert np.array_equal(read["embedding"], store.embeddings)
    assert read["embedding"].dtype == np.float16
    assert np.array_equal(read["step"], np.arange(5, 18))
    assert np.array_equal(read["coordinates_nm"][3], coordinates_of(8))
    assert np.array_equal(read["time_ps"], store.times_ps)
    assert np.array_equal(read["box_nm"], store.boxes)
    assert json.loads(meta)["description"] == DESCRIPTION


def test_hdf5_holds_every_array_and_the_meta(store: EmbeddingStore, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    (file,) = export(store, tmp_path / "features.h5", "hdf5")
    with h5py.File(file) as read:
        assert_arrays({name: array[:] for name, array in read.items()}, read.attrs["meta"], store)


def test_the_ending_of_a_name_says_the_format(store: EmbeddingStore, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    out = tmp_path / "x.h5"
    assert invoke(["export-features", str(store.path), "--out", str(out), "--quiet"]).stdout == f"13 frames in {out}\n"
    with h5py.File(out) as read:
        assert_arrays({name: array[:] for name, array in read.items()}, read.attrs["meta"], store)
    (file,) = export(store, tmp_path / "x.npz")
    with np.load(file) as read:
        arrays = {name: read[name] for name in read.files}
    assert_arrays(arrays, str(arrays.pop("meta")), store)
    with pytest.raises(DataError, match=r"x.h5 is the name of a file of hdf5, not of zarr: give another ending"):
        export(store, tmp_path / "x.h5", "zarr")


def test_zarr_holds_every_array_and_the_meta(store: EmbeddingStore, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    (folder,) = export(store, tmp_path / "features.zarr", "zarr")
    read = zarr.open_group(str(folder), mode="r")
    assert_arrays({name: array[:] for name, array in read.arrays()}, read.attrs["meta"], store)


@pytest.mark.parametrize(("form", "package"), [("hdf5", "h5py"), ("zarr", "zarr")])
def test_a_missing_package_is_named(
    store: EmbeddingStore, tmp_path: Path, form: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=f"{form} export needs {package}: install it with `pip install"):
        export(store, tmp_path / "out", form)
    assert not (tmp_path / "out").exists()


def test_observables_do_not_change_when_the_molecule_is_turned() -> None:
    embedding = np.random.default_rng(2).normal(size=(6, TOKENS, 4, WIDTH)).astype(np.float32)
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    turned = embedding.copy()
    turned[:, :, 1:] = np.einsum("xy,ftyh->ftxh", turn, embedding[:, :, 1:])
    for kind, size in (("tokens", TOKENS * 2 * WIDTH), ("mean", 2 * WIDTH)):
        assert observables_of(embedding, kind).shape == (6, size)
        assert observables_of(turned, kind) == pytest.approx(observables_of(embedding, kind), abs=1e-5)
    tokens = observables_of(embedding).reshape(6, TOKENS, 2 * WIDTH)
    assert tokens[1, 2, 3] == embedding[1, 2, 0, 3]
    assert tokens[1, 2, WIDTH + 3] == pytest.approx(np.linalg.norm(embedding[1, 2, 1:, 3]))
    assert observables_of(embedding, "mean") == pytest.approx(tokens.mean(axis=1), abs=1e-6)


def test_deeptime_takes_the_trajectories(store: EmbeddingStore, tmp_path: Path) -> None:
    from deeptime.decomposition import VAMP

    new_store(tmp_path / "other", range(3, 12)).close()
    trajectories = deeptime_trajectories([store, EmbeddingStore.open(tmp_path / "other")])
    assert [part.shape for part in trajectories] == [(13, 2 * TOKENS * WIDTH), (9, 2 * TOKENS * WIDTH)]
    assert trajectories[0][2].reshape(TOKENS, -1)[:, :WIDTH] == pytest.approx(embedding_of(7)[:, 0])
    assert VAMP(lagtime=1).fit(trajectories).fetch_model().score(2) >= 1


def test_stores_that_do_not_belong_together_are_not_mixed(store: EmbeddingStore, tmp_path: Path) -> None:
    with EmbeddingStore.create(tmp_path / "model", {**DESCRIPTION, "encoder": {"hash": "b2"}}, TOKENS, WIDTH) as other:
        pass
    with pytest.raises(DataError, match="encoder.hash: 'a1' stored, 'b2' given"):
        deeptime_trajectories([store, other])
    with new_store(tmp_path / "slow") as slow:
        for step in (10, 20, 30):
            slow.append(step, step * 0.002, None, embedding_of(step), coordinates_of(step))
    with pytest.raises(DataError, match="has a frame every 0.002 ps, .* every 0.02 ps"):
        deeptime_trajectories([store, slow])


def test_an_export_overwrites_nothing_and_refuses_damaged_frames(store: EmbeddingStore, tmp_path: Path) -> None:
    (tmp_path / "run1_ca.pt").touch()
    with pytest.raises(DataError, match="run1_ca.pt exists"):
        export(store, tmp_path / "run1", "torch")
    content = bytearray((store.path / "frames.npy").read_bytes())
    content[-100] ^= 1
    (store.path / "frames.npy").write_bytes(content)
    with pytest.raises(DataError, match="1 frames of .* fail their checksum, the first is 12"):
        export(store, tmp_path / "run2", "numpy")
    new_store(tmp_path / "empty").close()
    with pytest.raises(DataError, match="no frames yet"):
        export(EmbeddingStore.open(tmp_path / "empty"), tmp_path / "run3", "numpy")


def test_the_command_exports_every_replica(tmp_path: Path) -> None:
    for name in ("a", "b"):
        new_store(tmp_path / "run" / name, range(4)).close()
    arguments = ["export-features", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--format", "numpy"]
    result = invoke([*arguments, "--observables", "mean"])
    assert result.exit_code == 0, result.output
    assert result.output.count("4 frames in") == 2
    assert np.load(tmp_path / "out" / "b.npy").shape == (4, 2 * WIDTH)
