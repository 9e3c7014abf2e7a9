"""What outlives a kill: files replaced as a whole, and the checkpoint from which a run goes on.

Every resumable run follows one rule. Results are appended first, then the checkpoint is replaced atomically; the
checkpoint alone decides how far the run has come, and a restart cuts results that lie past it.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from openmm_gnn.base.errors import DataError

NO_LOCK_VARIABLE = "OPENMM_GNN_NO_LOCK"
"""Environment variable; with 1 no file is locked, for file systems that cannot."""


def command_line() -> str:
    """What the user typed to start this process, for the record of what it makes."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


@dataclass(frozen=True)
class Checkpoint:
    """The step counted from the start of equilibration, and OpenMM's own checkpoint."""

    step: int
    state: bytes


def take_lock(descriptor: int, path: Path, shared: bool = False) -> bool:
    """Take the lock of an open file, which the kernel frees when the process ends, however it ends.

    Returns:
        False if another process holds it.
    Raises:
        DataError: if the file system has no locks; with OPENMM_GNN_NO_LOCK=1 nothing is locked.
    """
    if os.environ.get(NO_LOCK_VARIABLE) == "1":
        return True
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise DataError(
            f"the file system of {path} does not lock files ({error.strerror}), as Lustre and NFS may be mounted: "
            f"choose a directory on another file system, or set {NO_LOCK_VARIABLE}=1 to go on without locks and make "
            "sure that no two processes write into one directory"
        ) from error
    return True


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory's lock, which ends with the process however it ends; the directory is made if need be.

    Raises:
        DataError: if another process holds it, or the file system has no locks.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "w") as file:
        if not take_lock(file.fileno(), directory):
            raise DataError(f"another process is writing into {directory}: wait until it is done, or stop it")
        yield


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Replace a file so that a reader, or a machine that stops, finds the old content or the new, nothing between.

    Args:
        content: the bytes, or a function that writes them into an open file.
    """
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        if isinstance(content, bytes):
            file.write(content)
        else:
            content(file)
        file.flush()
        os.fsync(file.fileno())
    replace_durably(partial, path)


def replace_durably(partial: Path, path: Path) -> None:
    """Rename a file or directory whose content is on the disk, and return when its new name is there too."""
    os.replace(partial, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def ends_in_a_line(path: Path) -> bool:
    """Whether the last line of a text has no end, as where a copy or a program was stopped; compressed ones pass."""
    if not path.is_file() or path.suffix in (".gz", ".bz2", ".xz"):
        return False
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 1))
        return size > 0 and file.read(1) != b"\n"


def write_json(path: Path, document: Any, **options: Any) -> None:
    """Replace a file atomically by a document in JSON; the options are those of `json.dumps`."""
    write_atomically(path, (json.dumps(document, **options) + "\n").encode())


def read_document(path: Path, version: int, writer: str, kind: str | None = None) -> dict[str, Any]:
    """The content of a JSON file that says its version, and what kind of thing it belongs to.

    Args:
        path: the file.
        version: the one that this package reads.
        writer: what writes such files, for errors, as "`openmm-gnn label`".
        kind: value of the key "kind"; None: it has none.
    Raises:
        DataError: if the file is missing, damaged, of another kind or of another version.
    """
    try:
        document = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path.parent} holds no {path.name}: give a directory written by {writer}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}): copy the directory again, or make it anew") from error
    if not isinstance(document, dict):
        found = type(document).__name__
        raise DataError(f"{path} is damaged (it holds a {found}): copy the directory again, or make it anew")
    if (document.get("kind"), document.get("version")) != (kind, version):
        found, expected = f"version {document.get('version')}", f"version {version}"
        if kind is not None:
            found, expected = f"kind {document.get('kind')!r}, {found}", f"{kind!r}, {expected}"
        raise DataError(f"{path} is of {found}: expected {expected}, as {writer} of this release writes")
    return document


def plain(value: Any) -> Any:
    """Dataclasses, arrays, enums and paths in the types of JSON; numbers that are not finite become None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Replace an .npz file atomically by arrays with names."""
    write_atomically(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]  # stubs miss the names


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
        raise DataError(f"{path} is damaged: copy it again, or start in another directory")
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
