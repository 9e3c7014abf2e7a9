"""Processes that are killed at any moment, forked, so that what takes time is their work and not their imports."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch


def kill_during(function: Callable[..., object], *arguments: object, delay: float, after: Path | None = None) -> None:
    """Call a function in a process of its own, which gets SIGKILL on the way.

    Args:
        delay: seconds from the start, or from the moment at which the process has written `after`.
        after: a file; None waits for nothing.
    Raises:
        AssertionError: if the process ends by itself, or has not written the file after two minutes.
    """
    before = _written_at(after)
    process = multiprocessing.get_context("fork").Process(target=_call, args=(function, *arguments))
    process.start()
    try:
        deadline = time.monotonic() + 120
        while after is not None and _written_at(after) == before:
            assert process.is_alive(), f"it ended with exit code {process.exitcode} before it wrote {after}"
            assert time.monotonic() < deadline, f"no {after} within two minutes"
            time.sleep(0.005)
        time.sleep(delay)
        assert process.is_alive(), f"it ended by itself with exit code {process.exitcode}"
    finally:
        process.kill()
        process.join()


def _call(function: Callable[..., object], *arguments: object) -> None:
    torch.set_num_threads(1)  # threads do not outlive a fork
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        function(*arguments)


def _written_at(file: Path | None) -> int:
    return file.stat().st_mtime_ns if file is not None and file.exists() else 0
