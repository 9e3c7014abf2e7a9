"""Processes that are killed at any moment, again and again.

They are forked from one that has imported what they need and done nothing else (itself a fork of `warm_python`): what
takes time is their work, not their imports, and no thread or lock of the test is in them.
"""

from __future__ import annotations

import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path

from warm_python import WarmProcess

SERVER = """
import importlib.util, os, pickle, sys, traceback, warnings
warnings.simplefilter("ignore")
sys.path[:0] = pickle.load(sys.stdin.buffer)
file, name, arguments = pickle.load(sys.stdin.buffer)
spec = importlib.util.spec_from_file_location(os.path.basename(file)[:-3], file)
module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
for _ in iter(sys.stdin.buffer.readline, b""):
    if not (child := os.fork()):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            getattr(module, name)(*arguments)
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class KilledCalls:
    """Calls of a function, defined at the top of a module, with arguments that can be pickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        (read, give), (answers, tell) = os.pipe(), os.pipe()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._server = WarmProcess(["-c", SERVER], [read, tell, 2], None, environment)
        os.close(read)
        os.close(tell)
        self._to, self._from = os.fdopen(give, "wb"), os.fdopen(answers)
        code = function.__code__
        self._send(pickle.dumps([str(Path(__file__).parent)]))
        self._send(pickle.dumps((code.co_filename, code.co_name, arguments)))

    def __enter__(self) -> KilledCalls:
        return self

    def __exit__(self, *error: object) -> None:
        self._to.close()
        self._server.wait()
        self._from.close()

    def kill_one(self, delay: float, after: Path | None = None, size: int = 0) -> None:
        """Call the function in a process of its own, which gets SIGKILL on the way.

        Args:
            delay: seconds from the start, or from the moment at which the process has written `after`.
            after: a file; None waits for nothing.
            size: number of bytes that the file must have by then.
        Raises:
            AssertionError: if the process ends by itself, or has not written the file after two minutes.
        """
        before = _written_at(after, 0)
        self._send(b"\n")
        process, deadline = self._answer(), time.monotonic() + 120
        while after is not None and _written_at(after, size) in (0, before) and os.path.exists(f"/proc/{process}"):
            assert time.monotonic() < deadline, f"no {after} within two minutes"
            time.sleep(0.005)
        time.sleep(delay)
        if os.path.exists(f"/proc/{process}"):
            os.kill(process, signal.SIGKILL)
        assert self._answer() == -signal.SIGKILL, "it ended by itself"

    def _send(self, content: bytes) -> None:
        self._to.write(content)
        self._to.flush()

    def _answer(self) -> int:
        return int(self._from.readline())


def _written_at(file: Path | None, size: int) -> int:
    """When the file was written last; 0 if it is smaller than that many bytes."""
    if file is None or not file.exists() or (found := file.stat()).st_size < size:
        return 0
    return found.st_mtime_ns
