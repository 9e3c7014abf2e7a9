"""Settings of an embedding store: its meta.json, the check of frames, the reading of trajectories, export formats."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError, NonFiniteError, positive, whole
from openmm_gnn.base.files import flattened, read_document, write_atomically
from openmm_gnn.features.featurizer_settings import WHOLE

KIND, VERSION = "embedding-store", 1
FEATURES_FOLDER = "features"
"""Folder of a run with its live features."""
_SHORT = 60
_NAMES = ("encoder.name", "encoder.spec.metadata")
"""Say where a model was found, not what it is; its hash does that."""


def is_store(path: Path) -> bool:
    """Whether a directory holds an embedding store."""
    try:
        return json.loads((path / "meta.json").read_text()).get("kind") == KIND
    except (OSError, ValueError, AttributeError):
        return False


def stores_under(path: Path) -> list[Path]:
    """The directories of the stores of a run, or of several runs in folders of their own, in natural order.

    A store is itself; of a run, features/ comes before whatever else it holds.
    """
    for place in (path, path / FEATURES_FOLDER):
        if is_store(place):
            return [place]
    folders = [folder for folder in path.iterdir() if folder.is_dir()] if path.is_dir() else []
    return [
        store for folder in sorted(folders, key=lambda one: natural_order(one.name)) for store in stores_under(folder)
    ]


def read_meta(path: Path) -> dict[str, Any]:
    """The content of meta.json.

    Raises:
        DataError: if there is none, or it is damaged, of something else or of another version.
    """
    return read_document(path / "meta.json", VERSION, "an EmbeddingReporter", KIND)


def write_meta(path: Path, meta: dict[str, Any]) -> None:
    """Replace meta.json as a whole.

    Raises:
        DataError: if the directory cannot be written.
    """
    text = json.dumps({"kind": KIND, "version": VERSION, **meta}, indent=1) + "\n"
    try:
        write_atomically(path / "meta.json", text.encode())
    except OSError as error:
        raise DataError(
            f"{path / 'meta.json'} cannot be written ({error.strerror}): make room or mend the permissions"
        ) from error


def check_same_source(path: Path, stored: dict[str, Any], given: dict[str, Any]) -> None:
    """Refuse features of another source than those that are stored.

    Raises:
        DataError: if the features differ in model, topology, selection, tokens or context, naming what is stored and
            given.
    """
    # A store that does not say its context is older than windows.
    before, now = (WHOLE.to_json() | flattened(one) for one in (stored, given))
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    same_encoder = before.get("encoder.hash") == now.get("encoder.hash") is not None
    if same_encoder:
        names = [name for name in names if not name.startswith(_NAMES)]
    if not names:
        return
    if not same_encoder and "encoder.name" not in names:
        names.insert(0, "encoder.name")
    differences = "; ".join(
        f"{name}: {_short(before.get(name))} stored, {_short(now.get(name))} given" for name in names
    )
    remedy = "append with the same encoder, topology and selection, or choose another directory"
    if before.get("tokens.elements") is None and now.get("tokens.elements") is not None:
        remedy = "an older release made them, and knew topologies by other marks: make them anew in another directory"
    raise DataError(f"{path} holds other features ({differences}): {remedy}")


def natural_order(name: str) -> list[tuple[int, str]]:
    """A key that sorts replica-2 before replica-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHORT else text[: _SHORT - 3] + "..."


class Format(str, Enum):
    """What other programs read."""

    TORCH = "torch"
    HDF5 = "hdf5"
    ZARR = "zarr"
    NPZ = "npz"
    NUMPY = "numpy"
    """Observables for deeptime and other tools that read .npy files."""

    @property
    def ending(self) -> str:
        """Ending of the names of its files; what a name without one is given."""
        return {Format.TORCH: ".pt", Format.HDF5: ".h5", Format.NUMPY: ".npy"}.get(self, f".{self.value}")

    @classmethod
    def of_name(cls, path: Path) -> Format | None:
        """The format that the ending of a name stands for; None without such an ending."""
        return {**{one.ending: one for one in cls}, ".hdf5": cls.HDF5}.get(path.suffix)


class Observables(str, Enum):
    """Vectors turn with the molecule, so a linear method gets only their lengths."""

    TOKENS = "tokens"
    """Scalars and vector lengths of every token, n = tokens * 2 H."""
    MEAN = "mean"
    """Their means over the tokens, n = 2 H."""


LARGEST_FLOAT16 = 65504.0


def check_embedding(
    step: int,
    embedding: np.ndarray,
    coordinates: np.ndarray,
    tokens_and_width: tuple[int, int],
    dtype: str,
    token_table: Any = None,
) -> None:
    """Refuse an embedding that a store cannot hold.

    Args:
        embedding: (tokens, 4, H) before it is rounded to `dtype`.
        coordinates: (tokens, 3) nm.
        token_table: the table of the store's description, for the names of tokens.
    Raises:
        NonFiniteError: at the first token with a NaN or infinity.
        DataError: if a shape is not that of the store, or a number does not fit float16.
    """
    num_tokens, width = tokens_and_width
    if embedding.shape != (num_tokens, 4, width) or coordinates.shape != (num_tokens, 3):
        raise DataError(
            f"step {step}: embedding of shape {embedding.shape} and coordinates of shape {coordinates.shape}, the "
            f"store holds {(num_tokens, 4, width)} and {(num_tokens, 3)}: use the featurizer it was made with"
        )
    for what, verb, values in (("coordinates", "are", coordinates), ("embedding", "is", embedding)):
        finite = np.isfinite(values.reshape(num_tokens, -1)).all(axis=1)
        if not finite.all():
            bad = np.flatnonzero(~finite)
            raise NonFiniteError(
                f"step {step}: the {what} of token {token_name(token_table, int(bad[0]))} {verb} NaN or infinite, "
                f"in {len(bad)} of {num_tokens} tokens: the frame is not stored; look at the simulation's positions, "
                "or at the encoder"
            )
    if dtype == "float16":
        largest = np.abs(embedding).reshape(num_tokens, -1).max(axis=1)
        if largest.max() > LARGEST_FLOAT16:
            token = int(largest.argmax())
            raise DataError(
                f"step {step}: the embedding of token {token_name(token_table, token)} reaches {largest[token]:.6g}, "
                f"float16 holds {LARGEST_FLOAT16:.0f}: make the store with dtype='float32'"
            )


def token_name(token_table: Any, index: int) -> str:
    """The number of a token, and its label where the table has one."""
    if isinstance(token_table, str):
        try:
            token_table = json.loads(token_table)
        except ValueError:
            token_table = None
    labels = token_table.get("labels") if isinstance(token_table, dict) else None
    return f"{index} ({labels[index]})" if isinstance(labels, list) and index < len(labels) else str(index)


@dataclass(frozen=True)
class Reading:
    """How a trajectory is read and its features are kept."""

    stride: int = 1
    """Number of frames of a file from one that is used to the next: 10 uses every tenth."""
    periodic: bool = True
    """Use the periodic box of a file, if it has one."""
    frame_time_ps: float | None = None
    """Time between two frames of a file, ps, for formats without times (DCD, PDB). Default: the times of the file, NaN
    if it has none."""
    dtype: str = "float16"
    """Type of the stored features: float16 or float32."""
    chunk: int = 100
    """Number of frames that are read at once."""

    def __post_init__(self) -> None:
        whole(self, 1, "stride", "chunk")
        positive(self, "frame_time_ps")
