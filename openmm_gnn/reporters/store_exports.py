"""An embedding store in other formats: geom2vec's torch files, HDF5, zarr, trajectories for deeptime.

Every export reads a few frames at a time, so a store may be larger than the memory (the torch files are the exception:
their format is one tensor).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.files import write_arrays
from openmm_gnn.base.units import ANGSTROM_PER_NM
from openmm_gnn.reporters.embedding_store import EmbeddingStore
from openmm_gnn.reporters.store_meta import Format, Observables, check_same_source

_CHUNK_BYTES = 1 << 25
COLUMNS = {"step": "step", "time": "time_ps", "wall": "wall_s", "box": "box_nm", "coordinates": "coordinates_nm"}
"""A record's fields and their names in HDF5 and zarr, units included."""


def export(
    store: EmbeddingStore,
    to: Path | str,
    form: str | Format | None = None,
    observables: str | Observables = Observables.TOKENS,
) -> list[Path]:
    """Write a store in another format.

    Args:
        to: the file, or the zarr directory; the ending of the format is added where there is none.
        form: "torch" (features.pt and features_ca.pt), "hdf5", "zarr", "npz" or "numpy"; None: that of the ending,
            torch without one.
        observables: what "numpy" holds.
    Returns:
        What was written.
    Raises:
        DataError: if the store is empty or damaged, the target exists, or its ending is of another format.
        ModuleNotFoundError: naming what to install for HDF5 or zarr.
    """
    to = Path(to)
    named = Format.of_name(to)
    form = Format(form or named or Format.TORCH)
    if named not in (None, form):
        raise DataError(
            f"{to} is the name of a file of {named.value}, not of {form.value}: give another ending or format"
        )
    to = to if named else to.with_name(to.name + form.ending)
    writers: dict[Format, Callable[[], list[Path]]] = {
        Format.TORCH: lambda: export_torch(store, to),
        Format.HDF5: lambda: export_hdf5(store, to),
        Format.ZARR: lambda: export_zarr(store, to),
        Format.NPZ: lambda: export_npz(store, to),
        Format.NUMPY: lambda: _export_numpy(store, to, observables),
    }
    return writers[form]()


def export_all(
    stores: Mapping[str, EmbeddingStore],
    to: Path,
    form: Format | None = None,
    observables: str | Observables = Observables.TOKENS,
) -> dict[str, list[Path]]:
    """Write the stores of a run, and return what was written of each; several into a directory, by their names.

    Raises:
        DataError: as by `export`, or if a file is named for several stores.
    """
    if list(stores) == [""]:
        return {"": export(stores[""], to, form, observables)}
    if Format.of_name(to) not in (None, Format.ZARR):
        raise DataError(f"{len(stores)} stores do not go into one file, {to}: give a directory, and --format")
    return {name: export(store, to / name, form, observables) for name, store in stores.items()}


def export_torch(store: EmbeddingStore, stem: Path | str) -> list[Path]:
    """geom2vec's layout: STEM.pt, the tokens, and STEM_ca.pt, their coordinates centred in each frame.

    Float32 tensors (frames, tokens, 4, H) and (frames, tokens, 3), the coordinates in angstrom as geom2vec has them;
    `torch.load(weights_only=True)` reads them.
    """
    import torch

    stem = Path(stem).with_suffix("") if Path(stem).suffix == ".pt" else Path(stem)
    files = [stem.with_name(stem.name + ".pt"), stem.with_name(stem.name + "_ca.pt")]
    records = _records(store, *files)
    embeddings = torch.empty((len(records), store.num_tokens, 4, store.width))
    places = torch.empty((len(records), store.num_tokens, 3))
    for start, part in _chunks(records):
        embeddings[start : start + len(part)] = torch.from_numpy(part["embedding"].astype(np.float32))
        centred = part["coordinates"] - part["coordinates"].mean(axis=1, keepdims=True)
        places[start : start + len(part)] = torch.from_numpy(ANGSTROM_PER_NM * centred)
    torch.save(embeddings, files[0])
    torch.save(places, files[1])
    return files


def export_hdf5(store: EmbeddingStore, file: Path | str) -> list[Path]:
    """One HDF5 file: embedding, and COLUMNS with their units; meta.json as the attribute `meta`."""
    h5py = _package("h5py", "hdf5")
    file = Path(file)
    records = _records(store, file)
    with h5py.File(file, "w") as out:
        out.attrs["meta"] = _meta_text(store)
        _fill(
            records, lambda name, shape, dtype, rows: out.create_dataset(name, shape, dtype, chunks=(rows, *shape[1:]))
        )
    return [file]


def export_zarr(store: EmbeddingStore, folder: Path | str) -> list[Path]:
    """One zarr group: embedding, and COLUMNS with their units; meta.json as the attribute `meta`."""
    zarr = _package("zarr", "zarr")
    folder = Path(folder)
    records = _records(store, folder)
    out = zarr.open_group(str(folder), mode="w")
    out.attrs["meta"] = _meta_text(store)

    def create(name: str, shape: tuple[int, ...], dtype: np.dtype, rows: int) -> Any:
        return out.create_array(name, shape=shape, dtype=dtype, chunks=(rows, *shape[1:]))

    _fill(records, create)
    return [folder]


def export_npz(store: EmbeddingStore, file: Path | str) -> list[Path]:
    """One NumPy archive: embedding, and COLUMNS with their units; meta.json as the text `meta`."""
    file = Path(file)
    records = _records(store, file)
    arrays = {name: records[field] for field, name in {"embedding": "embedding", **COLUMNS}.items()}
    write_arrays(file, meta=np.array(_meta_text(store)), **arrays)
    return [file]


def observables_of(embedding: np.ndarray, observables: str | Observables = Observables.TOKENS) -> np.ndarray:
    """Scalars and vector lengths, which do not turn with the molecule.

    Args:
        embedding: (frames, tokens, 4, H).
    Returns:
        (frames, n) float32, see `Observables`: the scalars first, then the lengths.
    """
    embedding = np.asarray(embedding, np.float32)
    both = np.concatenate([embedding[:, :, 0], np.linalg.norm(embedding[:, :, 1:], axis=2)], axis=2)
    return both.mean(axis=1) if Observables(observables) is Observables.MEAN else both.reshape(len(both), -1)


def deeptime_trajectories(
    stores: EmbeddingStore | Sequence[EmbeddingStore], observables: str | Observables = Observables.TOKENS
) -> list[np.ndarray]:
    """What deeptime's estimators take: a list of (frames, n) arrays, one for each store.

    Raises:
        DataError: if two stores hold features of different models or tokens, or frames at different intervals.
    """
    stores = [stores] if isinstance(stores, EmbeddingStore) else list(stores)
    intervals: dict[float, Path] = {}
    for store in stores:
        check_same_source(stores[0].path, stores[0].meta["description"], store.meta["description"])
        times = store.times_ps
        if len(times) > 1:
            intervals.setdefault(round(float(np.median(np.diff(times))), 6), store.path)
    if len(intervals) > 1:
        (first, one), (second, other) = list(intervals.items())[:2]
        raise DataError(f"{one} has a frame every {first:g} ps, {other} every {second:g} ps: analyse them apart")
    return [_observables_of_store(store, observables) for store in stores]


def _observables_of_store(store: EmbeddingStore, observables: str | Observables) -> np.ndarray:
    parts = [observables_of(part["embedding"], observables) for _, part in _chunks(store.records)]
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def _export_numpy(store: EmbeddingStore, file: Path, observables: str | Observables) -> list[Path]:
    _records(store, file)
    np.save(file, _observables_of_store(store, observables))
    return [file]


def _records(store: EmbeddingStore, *targets: Path) -> np.ndarray:
    for target in targets:
        if target.exists():
            raise DataError(f"{target} exists: delete it, or choose another name")
        target.parent.mkdir(parents=True, exist_ok=True)
    records = store.records
    if not len(records):
        raise DataError(f"{store.path} holds no frames yet: nothing to export")
    bad = store.verify()
    if len(bad):
        raise DataError(f"{len(bad)} frames of {store.path} fail their checksum, the first is {bad[0]}: copy it again")
    return records


def _chunks(records: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    rows = _rows(records.dtype.itemsize)
    for start in range(0, len(records), rows):
        yield start, records[start : start + rows]


def _rows(frame_bytes: int) -> int:
    return max(1, _CHUNK_BYTES // frame_bytes)


def _fill(records: np.ndarray, create: Callable[[str, tuple[int, ...], np.dtype, int], Any]) -> None:
    """Make an array for each field by `create(name, shape, dtype, rows of a chunk)`, and copy."""
    names = {"embedding": "embedding", **COLUMNS}
    rows = min(len(records), max(1, _rows(records.dtype.itemsize) // 32))  # chunks of about 1 MB
    arrays = {field: create(name, records[field].shape, records[field].dtype, rows) for field, name in names.items()}
    for start, part in _chunks(records):
        for field, array in arrays.items():
            array[start : start + len(part)] = part[field]


def _meta_text(store: EmbeddingStore) -> str:
    return (store.path / "meta.json").read_text()


def _package(name: str, form: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{form} export needs {name}: install it with `pip install {name}`, or export to torch or numpy", name=name
        ) from error
