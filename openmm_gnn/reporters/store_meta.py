"""The meta.json of an embedding store: reading, replacing, and telling two sources of features apart."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.files import flattened, write_atomically
from openmm_gnn.features.graph_context import WHOLE

KIND, VERSION = "embedding-store", 1
_SHORT = 60
_NAMES = ("encoder.name", "encoder.spec.metadata")
"""Say where a model was found, not what it is; its hash does that."""


def is_store(path: Path) -> bool:
    """Whether a directory holds an embedding store."""
    try:
        return json.loads((path / "meta.json").read_text()).get("kind") == KIND
    except (OSError, ValueError, AttributeError):
        return False


def read_meta(path: Path) -> dict[str, Any]:
    """The content of meta.json.

    Raises:
        DataError: if there is none, or it is damaged, of something else or of another version.
    """
    file = path / "meta.json"
    try:
        meta = json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} holds no meta.json: not an embedding store; check the path") from None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read ({error}): the store's frames.npy can still be read by numpy"
        ) from error
    if not isinstance(meta, dict) or meta.get("kind") != KIND:
        raise DataError(f"{file} is not of an embedding store: check the path")
    if meta.get("version") != VERSION:
        raise DataError(f"{file} has version {meta.get('version')}, this package reads {VERSION}: use another release")
    return meta


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
    """
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
    raise DataError(
        f"{path} holds other features ({differences}): append with the same encoder, topology and selection, "
        "or choose another directory"
    )


def natural_order(name: str) -> list[tuple[int, str]]:
    """A key that sorts replica-2 before replica-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHORT else text[: _SHORT - 3] + "..."
