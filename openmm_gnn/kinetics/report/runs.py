"""The runs whose slow variables are wanted: where their features, frames and temperature are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.md.dcd_frames import dcd_layout
from openmm_gnn.reporters.embedding_store import EmbeddingStore
from openmm_gnn.reporters.store_meta import is_store, natural_order
from openmm_gnn.runs.directory import RunDirectory
from openmm_gnn.runs.features import FOLDER


@dataclass(frozen=True)
class SlowRun:
    """One trajectory: its features, and the simulation that made them, if that is known."""

    name: str
    """Short, and each once."""
    store: EmbeddingStore
    num_frames: int
    """Those of the store that are used: it may grow meanwhile."""
    directory: RunDirectory | None
    """Where `openmm-gnn simulate` wrote trajectory.dcd and topology.pdb; None for a store on its own."""

    @property
    def steps(self) -> np.ndarray:
        """(frames,) int64."""
        return self.store.steps[: self.num_frames]

    @property
    def times_ps(self) -> np.ndarray:
        """(frames,)"""
        return self.store.times_ps[: self.num_frames]

    @property
    def interval_ps(self) -> float:
        """Between two frames; 0 if there are fewer than two."""
        times = self.times_ps
        return float(np.median(np.diff(times))) if len(times) > 1 else 0.0

    @property
    def labels(self) -> list[str]:
        """Of the tokens."""
        tokens = self.store.meta["description"].get("tokens")
        tokens = json.loads(tokens) if isinstance(tokens, str) else tokens or {}
        return list(tokens.get("labels") or map(str, range(self.store.num_tokens)))

    @property
    def temperature(self) -> float | None:
        """K, of run.json; None where there is none."""
        if self.directory is None or not self.directory.exists:
            return None
        return float(self.directory.identity()["settings"]["temperature"])

    @property
    def trajectory_frames(self) -> np.ndarray:
        """(frames,) index in trajectory.dcd of each frame of the features; -1 where that has none of this step."""
        if self.directory is None or not self.directory.trajectory.is_file():
            return np.full(self.num_frames, -1)
        layout = dcd_layout(self.directory.trajectory)
        present = layout.whole_frames(self.directory.trajectory.stat().st_size)
        frames, rest = np.divmod(self.steps - layout.first_step, max(1, layout.interval))
        return np.where((rest == 0) & (frames >= 0) & (frames < present), frames, -1)

    def fingerprint(self) -> dict[str, Any]:
        """What tells this input from another: the frames by a hash of their checksums, the encoder, the topology."""
        records, description = self.store.records[: self.num_frames], self.store.meta["description"]
        sums = hashlib.sha256(np.ascontiguousarray(records["crc"]).tobytes()).hexdigest()
        return {
            "name": self.name,
            "frames": self.num_frames,
            "interval_ps": self.interval_ps,
            "frames_hash": sums,
            "encoder": description.get("encoder", {}).get("name", ""),
            "encoder_hash": description.get("encoder", {}).get("hash", ""),
            "topology_hash": description.get("topology_hash", ""),
            "temperature": self.temperature,
        }


def find_runs(paths: Sequence[Path], counts: dict[str, int] | None = None) -> list[SlowRun]:
    """The runs under the paths a user gives.

    Args:
        paths: directories that `openmm-gnn simulate --features` wrote, embedding stores, or directories with several of
            either.
        counts: frames to use of the runs named here; the others are used whole.
    Raises:
        DataError: naming the path under which there are no features, a path given twice, or a run that has become
            shorter than `counts`.
    """
    found: list[Path] = []
    for path in paths:
        stores = _stores_under(path)
        if not stores:
            raise DataError(
                f"{path} holds no features: give a directory that `openmm-gnn simulate --features` or "
                "`openmm-gnn featurize` wrote"
            )
        found += stores
    if twice := [path for path in found if [p.resolve() for p in found].count(path.resolve()) > 1]:
        raise DataError(f"{twice[0]} is given twice: give each run once")
    runs = []
    for path, name in zip(found, _names(found), strict=True):
        store = EmbeddingStore.open(path)
        length = len(store)
        wanted = (counts or {}).get(name, length)
        if wanted > length:
            raise DataError(f"{path} has {length} frames, {wanted} were analysed before: give another --out")
        runs.append(SlowRun(name, store, wanted, _simulation_of(path)))
    return runs


def _stores_under(path: Path) -> list[Path]:
    """The stores of a run, of a store, or of a directory with several of them, in natural order."""
    for place in (path, path / FOLDER):
        if is_store(place):
            return [place]
    if not path.is_dir():
        return []
    folders = sorted((folder for folder in path.iterdir() if folder.is_dir()), key=lambda p: natural_order(p.name))
    return [store for folder in folders for store in _stores_under(folder)]


def _simulation_of(store: Path) -> RunDirectory | None:
    """The run that a store lies in, if its frames are there: RUN/features, or RUN itself."""
    for place in (store.resolve().parent, store):
        run = RunDirectory(place)
        if run.trajectory.is_file() and run.topology.is_file():
            return run
    return None


def _names(stores: Sequence[Path]) -> list[str]:
    """As short as they can be and still each once: the ends of the paths, without the folder "features"."""
    parts = [path.resolve().parts[: -1 if path.name == FOLDER else None] for path in stores]
    depth = 1
    while len({part[-depth:] for part in parts}) < len(parts) and depth < max(map(len, parts)):
        depth += 1
    return ["-".join(part[-depth:]) for part in parts]
