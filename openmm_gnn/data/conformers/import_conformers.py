"""Puts a public set of molecules into shards: one pass through the file, resumed where a kill ended it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import locked
from openmm_gnn.base.worker_processes import ProgressBar
from openmm_gnn.data.conformers.conformations import Conformations
from openmm_gnn.data.conformers.data_directory import complete_directory, prepare_directory
from openmm_gnn.data.conformers.published_sets import PublishedSet, Record, conformers_of, records_of
from openmm_gnn.data.conformers.shard_writing import Conformers, write_shard
from openmm_gnn.data.conformers.shards import open_shard, shard_paths

MOLECULES_PER_SHARD = 16384


def import_conformers(
    kind: PublishedSet,
    source: str | Path,
    out: str | Path,
    limit: int | None = None,
    skip_bad: bool = False,
    progress: bool = True,
    command: str | None = None,
    molecules_per_shard: int = MOLECULES_PER_SHARD,
) -> Conformations:
    """Read a file or folder as it was downloaded into a directory of conformations.

    Called again after a kill, it passes over what is in the shards already; a shard that was deleted is made again.

    Args:
        limit: so many molecules at most.
        skip_bad: leave out, and count in meta.json, what cannot be read.
    Raises:
        DataError: if the file or a molecule in it cannot be read, or `out` was made otherwise.
    """
    if molecules_per_shard < 1 or (limit is not None and limit < 1):
        raise SpecError(f"{limit} molecules, {molecules_per_shard} in a shard: give 1 or more")
    out, source = Path(out), Path(source)
    with locked(out):
        settings: dict[str, Any] = {"kind": kind.value, "source": source.name, "limit": limit, "skip_bad": skip_bad}
        settings |= {"source_bytes": source.stat().st_size if source.is_file() else None}
        settings |= {"molecules_per_shard": molecules_per_shard}
        meta = prepare_directory(out, "import-conformers", settings, command, left_out={})
        if not meta["complete"] or _gap(out, meta["num_molecules"]):
            stream = _Stream(kind, source, out, skip_bad, progress, limit)
            stream.run(molecules_per_shard)
            complete_directory(out, meta)
    return Conformations.open(out)


def _gap(out: Path, num_molecules: int) -> bool:
    return sum(shard.end - shard.first for shard in map(open_shard, shard_paths(out))) != num_molecules


def _show(bar: ProgressBar, first: int, read: int) -> None:
    bar.update(first + read, title=f"{first + read} molecules")


class _Stream:
    """One pass through the records of a file."""

    def __init__(
        self, kind: PublishedSet, source: Path, out: Path, skip_bad: bool, progress: bool, limit: int | None
    ) -> None:
        self.kind, self.out, self.skip_bad, self.limit = kind, out, skip_bad, limit
        self.records: Iterator[Record] = records_of(kind, source)
        self.passed = 0
        """Records read or passed over."""
        self.progress = progress
        self.there = {int(shard.content["records"][0]): shard for shard in map(open_shard, shard_paths(out))}
        """Shards by the number of their first record."""

    def run(self, per_shard: int) -> None:
        """Write every shard that is not there."""
        first = 0
        with ProgressBar(None, self.progress) as bar:
            while self.limit is None or first < self.limit:
                if (shard := self.there.get(self.passed)) is not None:
                    end = int(shard.content["records"][1])
                    self._pass_over(end - self.passed)
                    first = shard.end
                else:
                    room = per_shard if self.limit is None else min(per_shard, self.limit - first)
                    begin = self.passed
                    report = partial(_show, bar, first)
                    molecules, skipped = self._read(room, report)
                    if self.passed == begin:
                        return
                    notes = {"records": [begin, self.passed], "skipped": skipped}
                    write_shard(self.out, first, molecules, notes=notes)
                    first += len(molecules)
                _show(bar, first, 0)

    def _pass_over(self, count: int) -> None:
        if sum(1 for _ in islice(self.records, count)) < count:
            raise DataError("the source is shorter than what was read of it before: give the same file")
        self.passed += count

    def _read(self, room: int, report: Callable[[int], None]) -> tuple[list[Conformers], list[str]]:
        """Up to so many molecules, and what was left out between them."""
        molecules: list[Conformers] = []
        skipped: list[str] = []
        ends = [number for number in self.there if number > self.passed]
        while len(molecules) < room and self.passed not in ends:
            record = next(self.records, None)
            if record is None:
                break
            self.passed += 1
            try:
                molecules.append(conformers_of(self.kind, record))
            except DataError as error:
                if not self.skip_bad:
                    raise
                skipped.append(str(error))
            report(len(molecules))
        return molecules, skipped
