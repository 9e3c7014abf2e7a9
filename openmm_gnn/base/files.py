"""What outlives a kill: files replaced as a whole, and the checkpoint from which a run goes on.

Every resumable run follows one rule. Results are appended first, then the checkpoint is replaced atomically; the
checkpoint alone decides how far the run has come, and a restart cuts results that lie past it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openmm_gnn.base.errors import DataError


@dataclass(frozen=True)
class Checkpoint:
    """The step counted from the start of equilibration, and OpenMM's own checkpoint."""

    step: int
    state: bytes


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory's lock, which ends with the process however it ends; the directory is made if need be.

    Raises:
        DataError: if another process holds it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another process is writing into {directory}: wait until it is done, or stop it") from None
        yield


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file so that a reader, or a machine that stops, finds the old content or the new, nothing between."""
    temporary = path.with_name(path.name + ".partial")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint; the results up to its step must be on the disk already."""
    head = {"step": checkpoint.step, "sha256": hashlib.sha256(checkpoint.state).hexdigest()}
    write_atomically(path, json.dumps(head).encode() + b"\n" + checkpoint.state)


def read_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint, or None if the run was killed before its first.

    Raises:
        DataError: if the file is damaged.
    """
    try:
        head, _, state = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    try:
        fields = json.loads(head)
        step, digest = int(fields["step"]), fields["sha256"]
    except (ValueError, KeyError, TypeError):
        step, digest = 0, None
    if hashlib.sha256(state).hexdigest() != digest:
        raise DataError(f"{path} is damaged: delete it to start this run again, or start in another directory")
    return Checkpoint(step, state)


def flattened(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted names: what was stored and what is given differ in these."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
