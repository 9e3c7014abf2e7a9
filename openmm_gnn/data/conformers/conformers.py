"""Makes conformations of many molecules with real engines, of any kind, shard by shard.

Each molecule depends on the settings and on its number alone, so that a killed run goes on with the next shard, more
molecules can be added later, and several processes can make different shards: the molecules are the same in the end.
The meta.json of the directory is written first, checked when a command continues, and completed last.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from openmm_gnn.base.errors import DataError, NonFiniteError, SpecError, TopologyError
from openmm_gnn.base.files import locked
from openmm_gnn.base.worker_processes import Work, python_command, run_workers, serve
from openmm_gnn.data.conformers.conformations import CONFORMATIONS, UNITS, Conformations
from openmm_gnn.data.conformers.settings import KINDS, Dynamics, Kind
from openmm_gnn.data.conformers.shards import Conformers, open_shard, shard_paths, write_shard
from openmm_gnn.md.systems.peptides import HELD_OUT

INPUTS = "inputs"
_EXAMPLES = 100
"""Skipped molecules that meta.json names, at most; shard.json names all of them."""


def prepare_directory(
    out: Path,
    made_by: str,
    settings: dict[str, Any],
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
    making = {"settings": {**settings, "inputs": [_identity(path) for path in inputs]}}
    further: dict[str, Any] = {"made_by": made_by, "num_molecules": 0, "complete": False, "left_out": left_out}
    further |= {"skipped": {"count": 0, "examples": []}, "units": UNITS}
    further |= {"versions": {name: version(name) for name in ("openmm-gnn", *packages)}}
    meta = CONFORMATIONS.begin(out, making, further)
    CONFORMATIONS.write(out, meta)
    for path in inputs:
        (out / INPUTS).mkdir(exist_ok=True)
        if not (out / INPUTS / path.name).exists():
            shutil.copyfile(path, out / INPUTS / path.name)
    return meta


def complete_directory(out: Path, meta: dict[str, Any], also_skipped: Sequence[str] = ()) -> None:
    """Say in meta.json that nothing is missing, and what the shards, and what came before them, have left out."""
    shards = [open_shard(path) for path in shard_paths(out)]
    skipped = [*also_skipped, *(text for shard in shards for text in shard.content.get("skipped", []))]
    meta |= {"complete": True, "num_molecules": sum(shard.end - shard.first for shard in shards)}
    meta["skipped"] = {"count": len(skipped), "examples": skipped[:_EXAMPLES]}
    CONFORMATIONS.write(out, meta)


def input_files(out: Path) -> list[Path]:
    """The copies of the files that the molecules are made of, in the order in which they were given."""
    return [out / INPUTS / entry["file"] for entry in CONFORMATIONS.read(out)["settings"]["inputs"]]


def _identity(path: Path) -> dict[str, str]:
    try:
        return {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): check the path") from error


def make_conformations(
    out: str | Path,
    num_molecules: int | None,
    settings: Dynamics,
    processes: int | None = None,
    progress: bool = True,
    inputs: Sequence[str | Path] = (),
    skip_bad: bool = False,
) -> Conformations:
    """Make what is missing of the first `num_molecules` molecules; more may be asked for later.

    Args:
        out: directory of the data; made if it does not exist.
        num_molecules: None: the usual number of the kind, such as all that a file holds.
        processes: at once; by default one per core.
        inputs: files that the molecules are made of, for the kinds that need some.
        skip_bad: leave out, and count in meta.json, molecules that cannot be read or run.
    Raises:
        SpecError: if a setting makes no sense.
        DataError: if `out` holds something else, was made with other settings, or another process is writing to it, or
            a molecule cannot be read.
        NonFiniteError: if a molecule cannot be run.
    """
    if num_molecules is not None and num_molecules < 1:
        raise SpecError(f"the number of molecules is {num_molecules}: give at least 1")
    out, files = Path(out), [Path(path) for path in inputs]
    maker = settings.maker(files, skip_bad)
    num_molecules = num_molecules or maker.usual
    maker.check(num_molecules, skip_bad)  # before anything is written: are there so many?
    with locked(out):
        made_with: dict[str, Any] = {**settings.stored, "skip_bad": skip_bad}
        left_out = {} if made_with.get("allow_held_out") else HELD_OUT
        meta = prepare_directory(out, "conformers", made_with, files, ("openmm",), left_out)
        if num_molecules > meta["num_molecules"]:
            meta |= {"num_molecules": num_molecules, "complete": False}
            CONFORMATIONS.write(out, meta)
        workers = max(1, min(processes or os.cpu_count() or 1, meta["num_molecules"]))
        ranges = missing_ranges(out, meta["num_molecules"], settings.MOLECULES_PER_SHARD, workers)
        works = []
        for part in range(workers):
            if mine := ranges[part::workers]:
                program = python_command("openmm_gnn.data.conformers.conformers", str(out))
                worker = [*program, *(f"{first}:{end}" for first, end in mine)]
                steps = sum(end - first for first, end in mine)
                works.append(Work(name=f"part {part + 1} of the molecules", command=worker, steps=steps, steps_done=0))
        run_workers(works, processes=workers, progress=progress, what="parts")
        complete_directory(out, meta | maker.remarks, maker.skipped)
    return Conformations.open(out)


def missing_ranges(out: Path, num_molecules: int, per_shard: int, workers: int) -> list[tuple[int, int]]:
    """First and end of each shard that is still to be made, none larger than its share if the workers are many.

    Raises:
        DataError: if two shards hold the same molecule.
    """
    gaps, reached = [], 0
    for shard in map(open_shard, shard_paths(out)):
        if shard.first < reached:
            raise DataError(f"{shard.path} begins with molecule {shard.first}, which another has: delete one of them")
        gaps.append((reached, shard.first))
        reached = shard.end
    gaps.append((reached, num_molecules))
    missing = sum(max(0, end - first) for first, end in gaps)
    size = max(1, min(per_shard, -(-missing // workers)))
    return [(first, min(first + size, end)) for begin, end in gaps for first in range(begin, end, size)]


def run_shards(out: Path, ranges: Sequence[tuple[int, int]], report: Callable[[int], None]) -> None:
    """Make these shards of a directory one by one; `report` is called with the number of molecules that are done."""
    stored = CONFORMATIONS.read(out)["settings"]
    maker = KINDS[Kind(stored["kind"])].from_stored(stored).maker(input_files(out), stored["skip_bad"])
    done = 0
    for first, end in ranges:
        molecules: list[Conformers] = []
        skipped: list[str] = []
        for number in range(first, end):
            try:
                molecule = maker.conformers(number)
                molecule.check()
                molecules.append(molecule)
            except (DataError, NonFiniteError, TopologyError) as error:
                if not stored["skip_bad"]:
                    raise
                skipped.append(str(error))
            done += 1
            report(done)
        write_shard(out, first, molecules, end - first, {"skipped": skipped})


def _range(text: str) -> tuple[int, int]:
    first, _, end = text.partition(":")
    return int(first), int(end)


if __name__ == "__main__":
    serve(lambda report: run_shards(Path(sys.argv[1]), [_range(text) for text in sys.argv[2:]], report))
