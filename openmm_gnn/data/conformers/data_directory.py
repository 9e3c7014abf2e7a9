"""The meta.json of a directory of conformations: written first, checked when a command goes on, completed last."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.files import write_json
from openmm_gnn.data.conformers.conformations import META_FILE, META_KIND, META_VERSION, UNITS, read_meta
from openmm_gnn.data.conformers.shards import open_shard, shard_paths
from openmm_gnn.md.systems.peptides import HELD_OUT

INPUTS = "inputs"
_EXAMPLES = 100
"""Skipped molecules that meta.json names, at most; shard.json names all of them."""


def prepare_directory(
    out: Path,
    made_by: str,
    settings: dict[str, Any],
    command: str | None,
    inputs: Sequence[Path] = (),
    packages: Sequence[str] = (),
    left_out: dict[str, str] = HELD_OUT,
) -> dict[str, Any]:
    """The meta of a new directory, or of one that the same settings and files have begun; its lock must be held.

    Files of `inputs` are copied to `out`, so that what was made of them can be made again.

    Raises:
        DataError: if `out` holds something else, or was made with other settings or files, or a file is missing.
    """
    if len({path.name for path in inputs}) < len(inputs):
        raise DataError(f"among the files {[path.name for path in inputs]} one name comes twice: rename one of them")
    settings = json.loads(json.dumps(settings)) | {"inputs": [_identity(path) for path in inputs]}
    if (out / META_FILE).exists():
        meta = read_meta(out)
        for name in sorted(settings.keys() | meta["settings"].keys()):
            before, now = meta["settings"].get(name), settings.get(name)
            if before != now:
                raise DataError(
                    f"{out} was made with {name} = {before!r}, now it is {now!r}: go on with the same, or give another "
                    "directory"
                )
    else:
        if others := sorted(entry.name for entry in out.iterdir() if not entry.name.startswith((".", META_FILE))):
            raise DataError(f"{out} is no directory of conformations but holds {others[:3]}: give a new one")
        meta = {"kind": META_KIND, "version": META_VERSION, "made_by": made_by, "settings": settings}
        meta |= {"num_molecules": 0, "complete": False, "skipped": {"count": 0, "examples": []}, "commands": []}
        meta |= {"left_out": left_out, "units": UNITS}
        meta |= {"versions": {name: version(name) for name in ("openmm-gnn", *packages)}}
    if command and command not in meta["commands"]:
        meta["commands"].append(command)
    write_meta(out, meta)
    for path in inputs:
        (out / INPUTS).mkdir(exist_ok=True)
        if not (out / INPUTS / path.name).exists():
            shutil.copyfile(path, out / INPUTS / path.name)
    return meta


def write_meta(out: Path, meta: dict[str, Any]) -> None:
    """Replace meta.json."""
    write_json(out / META_FILE, meta, indent=2)


def complete_directory(out: Path, meta: dict[str, Any], also_skipped: Sequence[str] = ()) -> None:
    """Say in meta.json that nothing is missing, and what the shards, and what came before them, have left out."""
    shards = [open_shard(path) for path in shard_paths(out)]
    skipped = [*also_skipped, *(text for shard in shards for text in shard.content.get("skipped", []))]
    meta |= {"complete": True, "num_molecules": sum(shard.end - shard.first for shard in shards)}
    meta["skipped"] = {"count": len(skipped), "examples": skipped[:_EXAMPLES]}
    write_meta(out, meta)


def input_files(out: Path) -> list[Path]:
    """The copies of the files that the molecules are made of, in the order in which they were given."""
    return [out / INPUTS / entry["file"] for entry in read_meta(out)["settings"]["inputs"]]


def _identity(path: Path) -> dict[str, str]:
    try:
        return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check the path") from error
