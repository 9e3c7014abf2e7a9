"""Work on a borrowed GPU in phases: each has a time limit, and one that passed is not run again.

The results of a GPU are one JSON file, results/<name of the GPU>.json, which every process writes as soon as it knows
something: what was measured before a kill is kept. Beside it lies <name of the GPU>.log with all that was printed.
Nothing here imports PyTorch.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"
FOLDER, LIBRARY, AGAIN = "GPU_RESULTS", "GPU_LIBRARY", "GPU_AGAIN"
"""Environment variables for the processes of a phase: where results lie, the digest of the libraries, and, unless it is
empty, that nothing counts that was measured before."""
LEAST_SECONDS = 10.0
"""A phase is not begun with less time than this."""
KEPT_LINES = 40


@dataclass(frozen=True)
class Phase:
    """Some commands that run side by side."""

    name: str
    seconds: float
    """Time limit: what still runs then is killed."""
    commands: Mapping[str, Sequence[str]]
    """Arguments of each, by a name for the log; the phase passed where all exit with 0."""
    environment: Mapping[str, str] = field(default_factory=dict)


class Results:
    """One JSON document that several processes write: {section: {name: anything}}."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        """The document, empty where there is none."""
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def write(self, section: str, name: str, value: Any) -> None:
        """Replaces one entry; a kill leaves the old file or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock_path = self.path.with_suffix(".lock")
        with open(lock_path, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            document = self.read()
            document.setdefault(section, {})[name] = value
            unfinished = self.path.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(document, indent=1) + "\n")
            os.replace(unfinished, self.path)

    def get(self, section: str, name: str) -> Any:
        """An entry, or None."""
        return self.read().get(section, {}).get(name)


def results_of(gpu: str, folder: Path) -> Results:
    """The results of the GPU of this name."""
    return Results(folder / f"{re.sub(r'[^A-Za-z0-9]+', '-', gpu).strip('-').lower()}.json")


def digest_of_libraries(folder: Path) -> str:
    """What tells one build of the libraries from another."""
    digest = hashlib.sha256()
    for device in ("cpu", "cuda"):
        digest.update((folder / f"libopenmm_gnn_{device}.so").read_bytes())
    return digest.hexdigest()[:16]


def say(text: str) -> None:
    sys.stdout.write(f"== {text}\n")
    sys.stdout.flush()


# ---- one phase ------------------------------------------------------------------------------------------------------


class Running:
    """A command whose lines are printed, logged and, the last of them, kept."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name, self.log = name, log
        self.lines: list[str] = []
        # A process group of its own, so that what it starts ends with it; the session stays the caller's.
        self.process = subprocess.Popen(
            command, env={**os.environ, **environment}, text=True, errors="replace", stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=os.setpgrp,
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with open(self.log, "a") as log:
            for line in self.process.stdout:
                log.write(f"{self.name} | {line}")
                log.flush()
                sys.stdout.write(line)
                sys.stdout.flush()
                self.lines = [*self.lines[1 - KEPT_LINES :], line.rstrip()]

    def wait(self, until: float) -> int | None:
        """The exit status; None where it had to be killed."""
        try:
            status: int | None = self.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            status = None
            self.kill()
        self.reader.join(5.0)
        return status

    def kill(self) -> None:
        for signal_number, patience in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 10.0)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal_number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
                return


def run_phase(phase: Phase, seconds: float, environment: Mapping[str, str], log: Path) -> dict[str, Any]:
    """The record of a phase that was given so many seconds."""
    begun = time.monotonic()
    running: list[Running] = []
    try:
        for name, command in phase.commands.items():
            running.append(Running(name, command, {**environment, **phase.environment}, log))
        statuses = {one.name: one.wait(begun + seconds) for one in running}
    finally:
        for one in running:
            if one.process.poll() is None:
                one.kill()
    late = [name for name, status in statuses.items() if status is None]
    outcome = "passed" if not any(statuses.values()) and not late else "out of time" if late else "failed"
    return {
        "outcome": outcome,
        "seconds": round(time.monotonic() - begun, 1),
        "limit": seconds,
        "exit": statuses,
        "ends": {one.name: one.lines for one in running if statuses[one.name] != 0},
    }


# ---- all phases -----------------------------------------------------------------------------------------------------


def run_phases(
    phases: Sequence[Phase], results: Results, section: str, library: str, seconds: float | None = None,
    again: bool = False,
) -> bool:  # fmt: skip
    """Runs what has not passed yet with these libraries, in this order; True if everything has passed.

    Args:
        phases: by importance: where time runs out, the last are not begun.
        section: of the results, where a phase's record is kept under its name.
        library: digest of the libraries; what passed with others is run again.
        seconds: for all phases together; None for no limit but theirs.
        again: run what has passed as well.
    """
    end = None if seconds is None else time.monotonic() + seconds
    environment = {FOLDER: str(results.path.parent), LIBRARY: library, AGAIN: "1" if again else ""}
    words: dict[str, str] = {}
    for phase in phases:
        before = results.get(section, phase.name)
        if not again and before is not None and before["outcome"] == "passed" and before["library"] == library:
            words[phase.name] = f"passed before, {before['when']}"
            continue
        given = phase.seconds if end is None else min(phase.seconds, end - time.monotonic())
        if given < min(LEAST_SECONDS, phase.seconds):
            words[phase.name] = "NOT RUN, no time left: call it again"
            continue
        record = {"library": library, "when": datetime.now(timezone.utc).isoformat(timespec="seconds")}
        results.write(section, phase.name, {"outcome": "interrupted", "limit": given, **record})
        say(f"{phase.name}: at most {given:.0f} s")
        record |= run_phase(phase, given, environment, results.path.with_suffix(".log"))
        results.write(section, phase.name, record)
        words[phase.name] = f"{record['outcome'].replace('failed', 'FAILED')} in {record['seconds']:.0f} s"
        say(f"{phase.name}: {words[phase.name]}")
    for name, outcome in words.items():
        say(f"{section}, {name}: {outcome}")
    say(f"kept in {results.path}")
    return all(word.startswith("passed") for word in words.values())


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of both programs that run phases."""
    parser.add_argument("--seconds", type=float, help="for all together; what does not fit waits for another call")
    parser.add_argument("--again", action="store_true", help="run what has passed with these libraries as well")
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"folder of the results; default: {RESULTS}")


def end_as_if_interrupted() -> None:
    """Makes SIGTERM, by which time limits end a process, end the running commands too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
