"""Several runs with one bias: each is a walker that publishes its hills or kernels and adds those of the others.

    DIR/walkers.json  settings that all walkers have, written by the first one
    DIR/NAME.npy      hills of the walker NAME, a growing array that is never cut
    RUN/bias/hills.npy  every hill that this run has added, its own and others', in order; never cut either

A walker reads after each hill of its own. What it adds it has written to its own log before, with the step: a run that
was killed goes on from its checkpoint with what the log says for each step, takes the hills that it had published for
its own again, and reads on behind them. So no hill is there twice, and the way from the checkpoint is the one that it
took before. When the hills of others arrive depends on how fast the processes are, so two runs of the same walkers
differ; each is reproduced from its log.

Nobody waits for anybody: a process that has ended holds no lock, and its hills stay.

Source of the method: Raiteri, Laio, Gervasio, Micheletti, Parrinello, J. Phys. Chem. B 110, 3533 (2006), doi
10.1021/jp054359r; for OPES, all sums over frames are over those of all walkers, as in the supporting information of
Invernizzi and Parrinello (2020), see opes.py.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import flattened, plain, read_document, write_json
from openmm_gnn.base.growing_array import GrowingArray, intact, read_growing_array
from openmm_gnn.runs.bias.records import HILLS, hill_fields

SETTINGS = "walkers.json"
VERSION = 1
_LEAST_BYTES = 512
"""A file that is shorter has no header yet: its walker is just beginning."""


class WalkerGroup:
    """A directory that walkers share, and the settings that all of them have."""

    def __init__(self, directory: Path, settings: dict[str, Any]) -> None:
        """The first walker makes it.

        Args:
            settings: all that walkers must have in common, in the types of JSON.
        Raises:
            SpecError: if the walkers that are there have other settings, naming these.
            DataError: if the file of the settings is damaged.
        """
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / SETTINGS
        if not path.exists():
            partial = directory / f".{SETTINGS}.{secrets.token_hex(4)}"
            write_json(partial, {"version": VERSION, "group": secrets.token_hex(4), "settings": settings}, indent=1)
            try:
                os.link(partial, path)  # of several walkers that begin at once, one is the first
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                os.replace(partial, path)
            partial.unlink(missing_ok=True)
        document = read_document(path, VERSION, "`openmm-gnn simulate --bias-walkers`")
        self.group: str = document["group"]
        """What tells this group from any other one."""
        before, now = flattened(document["settings"]), flattened(plain(settings))
        if before != now:
            differences = [
                f"{name}: {before.get(name)!r} there, {now.get(name)!r} here"
                for name in sorted({*before, *now})
                if before.get(name) != now.get(name)
            ]
            raise SpecError(
                f"the walkers in {directory} have other settings ({'; '.join(differences)}): give the same ones, or "
                "another directory (--bias-walkers)"
            )

    def others(self, name: str) -> list[str]:
        """The names of all walkers that have a file, but for this one."""
        return sorted(path.stem for path in self.directory.glob("*.npy") if path.stem != name)


class Walker:
    """One walker of a group, while its run is going on."""

    def __init__(self, group: WalkerGroup, name: str, folder: Path, num_cvs: int) -> None:
        """
        Args:
            name: by `walker_name`, the same for as long as there is the run.
            folder: RUN/bias.
        Raises:
            DataError: if a file is damaged, or another process writes to it.
        """
        self._group, self._name = group, name
        self._log = GrowingArray.open(folder / HILLS, hill_fields(num_cvs))
        try:
            self._own = GrowingArray.open(group.directory / f"{name}.npy", hill_fields(num_cvs))
        except BaseException:
            self._log.close()
            raise
        self._logged = np.array(read_growing_array(folder / HILLS, verify=True))
        own = self._logged[self._logged["walker"] == name.encode()]
        if len(own) > len(self._own):  # lost with the machine that held the directory
            self._own.append(own[len(self._own) :], durable=True)
        published = np.array(read_growing_array(group.directory / f"{name}.npy", verify=True))
        self._published = {int(hill["step"]): hill for hill in published}
        self._last = int(own["step"][-1]) if len(own) else -1
        """Step of the last own hill in the log: before it, the log says what was read."""
        self._read: dict[str, int] = {}
        for hill in self._logged:
            other = hill["walker"].decode()
            self._read[other] = self._read.get(other, 0) + 1

    def until(self, step: int) -> np.ndarray:
        """The hills that the run had added until a step, that one included, in order."""
        return self._logged[self._logged["step"] <= step]

    def own_again(self, step: int) -> np.ndarray | None:
        """The hill that this walker has published for a step before it was stopped; None where there is none."""
        return self._published.get(step)

    def publish(self, step: int, values: np.ndarray, height: float, widths: np.ndarray) -> None:
        """Give a hill of this walker, which was not there before, to the others."""
        hill = self._own.empty_records(1)
        hill["step"], hill["walker"] = step, self._name.encode()
        hill["values"], hill["height"], hill["widths"] = values, height, widths
        self._own.append(hill, durable=True)
        self._published[step] = hill[0]

    def others_at(self, step: int) -> np.ndarray:
        """The hills of others to add behind the own one of a step, which is published: read, and in the log."""
        known = self._logged[(self._logged["step"] == step) & (self._logged["walker"] != self._name.encode())]
        if step < self._last:
            return known
        fresh = list(self._fresh())
        for hills in fresh:
            hills["step"] = step
        own = []
        if step > self._last:
            own = [np.array([self._published[step]], self._log.dtype)]
            self._last = step
        new = self._log.empty_records(sum(map(len, [*own, *fresh])))
        new[:] = np.concatenate([new[:0], *own, *fresh])
        self._log.append(new)
        return np.concatenate([known, *fresh])

    def sync(self) -> None:
        """Wait until the log is on the disk."""
        self._log.sync()

    def close(self) -> None:
        """Give up both files."""
        self._own.close()
        self._log.close()

    def _fresh(self) -> Iterator[np.ndarray]:
        """Hills of each other walker that were not read before."""
        for other in self._group.others(self._name):
            path = self._group.directory / f"{other}.npy"
            if path.stat().st_size < _LEAST_BYTES:
                continue
            hills = read_growing_array(path)
            if hills.dtype != self._log.dtype:
                raise DataError(f"{path} is no file of a walker of {self._group.directory}: take it away")
            first = self._read.get(other, 0)
            hills = np.array(hills[first:])
            # A file system between machines may show the number of records before their content: these come next time.
            good = intact(hills)
            count = len(hills) if good.all() else int(np.argmin(good))
            if count:
                self._read[other] = first + count
                yield hills[:count]


def walker_name(run: Path) -> str:
    """A name for the walker of a new run: that of its directory, and what no other walker has."""
    return f"{re.sub('[^A-Za-z0-9_-]', '_', run.resolve().name)[:40]}-{secrets.token_hex(4)}"
