"""The progress bar, and several worker processes under one: each worker is a command that reports its steps.

A worker writes a line of JSON to its standard output now and then: {"step": 5000}, or {"error": class, "message":
text}. Its standard input is a pipe that the parent never writes to: when the parent dies, even by kill -9, the pipe
ends and the worker leaves at once, so that no orphan goes on writing.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TextIO

from openmm_gnn.base import errors
from openmm_gnn.base.errors import OpenMMGNNError


class ProgressBar:
    """A bar on the terminal (standard error), for use as a context manager.

    ```python
    with ProgressBar(total=len(files), shown=progress) as bar:
        for number, file in enumerate(files, 1):
            read(file)
            bar.update(number, title=file.name)
    ```
    """

    def __init__(self, total: float | None, shown: bool = True, done: float = 0, title: str = "") -> None:
        """
        Args:
            total: the amount of work; None if it is unknown, then no remaining time is shown.
            shown: False for silence.
            done: work done before.
            title: text in front of the bar.
        """
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        ahead = (BarColumn(), TaskProgressColumn()) if total is not None else ()
        rest = (TextColumn("remaining"), TimeRemainingColumn()) if total is not None else ()
        columns = (TextColumn("{task.description}"), *ahead, TextColumn("{task.fields[text]}  elapsed"))
        console = Console(stderr=True)
        self._bar = Progress(*columns, TimeElapsedColumn(), *rest, console=console, disable=not shown)
        self._task = self._bar.add_task(title, total=total, completed=done, text="")  # type: ignore[arg-type]

    def update(self, done: float, title: str | None = None, text: str = "") -> None:
        """Show that so much is done, with another title and a remark behind the bar."""
        self._bar.update(self._task, completed=done, description=title, text=text)

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


_REPORT_SECONDS = 0.2


def python_command(code: str, *arguments: str) -> list[str]:
    """A command that runs Python code, or a file of this package by its dotted name, with the imports of this process.

    Without them, in a folder that is a clone of this package, it would import the clone.
    """
    if code.startswith("openmm_gnn."):
        code = f"import runpy; runpy.run_module({code!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}", *arguments]


@dataclass(frozen=True)
class Work:
    """One command to run to its end."""

    name: str
    command: Sequence[str]
    steps: int
    """Number of steps in all."""
    steps_done: int
    """Number of steps done before it starts; it is not started at all if these are all."""


def serve(work: Callable[[Callable[[int], None]], None]) -> None:
    """The worker's side: run `work(report)`, pass its reports and errors of the input to the parent."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what plugins may print goes to standard error, the channel is for messages alone
    reported_at = -_REPORT_SECONDS

    def report(step: int) -> None:
        nonlocal reported_at
        if time.monotonic() - reported_at >= _REPORT_SECONDS:
            reported_at = time.monotonic()
            _send(channel, {"step": step})

    try:
        work(report)
    except Exception as error:
        if not errors.is_of_input(error):
            raise
        kind = errors.SpecError if isinstance(error, errors.SettingsError) else type(error)
        _send(channel, {"error": kind.__name__, "message": errors.in_words(error)})
        sys.exit(1)


def _send(channel: TextIO, message: dict[str, int | str]) -> None:
    try:
        print(json.dumps(message), file=channel, flush=True)
    except BrokenPipeError:
        os._exit(1)


def _leave_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


def run_workers(works: Sequence[Work], processes: int, progress: bool, what: str = "trajectories") -> None:
    """Run all of them, at most `processes` at once, the first ones first; the bar counts them as `what`.

    Raises:
        OpenMMGNNError: the first error of a worker, of the worker's own class; the other workers are stopped. What is
            interrupted can be resumed.
    """
    waiting = [work for work in works if work.steps_done < work.steps]
    done = {work.name: min(work.steps_done, work.steps) for work in works}
    running: dict[subprocess.Popen[str], Work] = {}
    total = sum(work.steps for work in works)
    with ProgressBar(total, progress, sum(done.values())) as bar, selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < processes:
                    work = waiting.pop(0)
                    process = subprocess.Popen(
                        work.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
                    )
                    running[process] = work
                    selector.register(process.stdout, selectors.EVENT_READ, process)  # type: ignore[arg-type]
                finished = len(works) - len(waiting) - len(running)
                bar.update(sum(done.values()), f"{finished}/{len(works)} {what}")
                for key, _ in selector.select(timeout=1.0):
                    process = key.data
                    line = process.stdout.readline()
                    work = running[process]
                    if line:
                        done[work.name] = _steps_reported(line, work)
                    else:
                        selector.unregister(process.stdout)
                        _check_ended(process, work)
                        done[work.name] = work.steps
                        del running[process]
            bar.update(sum(done.values()), f"{len(works)}/{len(works)} {what}")
        finally:
            for process in running:
                process.kill()
                process.wait()


def _steps_reported(line: str, work: Work) -> int:
    """The steps a worker has done; raises the error it reports instead."""
    message = json.loads(line)
    if "error" in message:
        raise getattr(errors, message["error"], OpenMMGNNError)(message["message"])
    return int(message["step"])


def _check_ended(process: subprocess.Popen[str], work: Work) -> None:
    code = process.wait()
    if code < 0:
        raise OpenMMGNNError(
            f"the process of {work.name} was ended by signal {-code} (9 is often a lack of memory): give the same "
            "command again to resume, with fewer --processes if memory is short"
        )
    if code > 0:
        raise OpenMMGNNError(f"the process of {work.name} failed with exit code {code}, its message is above")
