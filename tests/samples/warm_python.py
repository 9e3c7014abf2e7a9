"""Python programs in processes of their own, forked from one that has imported the heavy libraries and done no more.

A new interpreter spends 3 to 8 s on PyTorch, OpenMM and Lightning, however little its program does. One process for
each test run imports them and waits, single-threaded; a program is run in a fork of it. `openmm_gnn` it does not
import: that, its errors and what it prints are the program's own, and so is the end of the interpreter.
"""

from __future__ import annotations

import atexit
import functools
import os
import pickle
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SERVER = """
import gc, importlib, os, pickle, runpy, socket, sys, types
line = socket.socket(fileno=int(sys.argv[1]))
for name in ("torch", "openmm.app", "mdtraj", "scipy.stats", "matplotlib.pyplot", "lightning.pytorch"):
    try:
        importlib.import_module(name)
    except ImportError:
        pass
gc.collect()
gc.freeze()
while True:
    request, files, *_ = socket.recv_fds(line, 1 << 20, 4)
    if not request:
        while True:
            try:
                os.wait()
            except ChildProcessError:
                os._exit(0)
    if not os.fork():
        child = os.fork()
        if not child:
            break
        os.write(files[3], b"%d\\n" % child)
        os.write(files[3], b"%d\\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os._exit(0)
    for file in files:
        os.close(file)
    while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG) is not None:
        pass
line.close()
for place, file in enumerate(files):
    if place < 3:
        os.dup2(file, place)
    os.close(file)
arguments, folder, environment = pickle.loads(request)
os.chdir(folder)
os.environ.clear()
os.environ.update(environment)
main = sys.modules["__main__"] = types.ModuleType("__main__")
if arguments[0] == "-m":
    sys.path[0], sys.argv = os.getcwd(), arguments[1:]
    runpy._run_module_as_main(arguments[1])
else:
    code, name = arguments[1] if arguments[0] == "-c" else None, "<string>"
    sys.argv = arguments[1:] if code is None else ["-c", *arguments[2:]]
    if code is None:
        sys.argv, name = arguments, arguments[0]
        sys.path[0] = os.path.dirname(os.path.abspath(name))
        main.__file__, code = name, open(name).read()
    exec(compile(code, name, "exec"), main.__dict__)
"""


class WarmProcess:
    """A running program."""

    def __init__(self, arguments: list[str], files: list[int], cwd: Path | None, env: Mapping[str, str] | None) -> None:
        """
        Args:
            arguments: of Python: "-c" and a program, "-m" and a module, or a script, and what these take.
            files: descriptors of its standard input, output and error.
        """
        told, status = os.pipe()
        request = pickle.dumps((arguments, os.fspath(cwd or Path.cwd()), dict(os.environ if env is None else env)))
        socket.send_fds(_server(), [request], [*files, status])
        os.close(status)
        self._status = os.fdopen(told)
        self.pid = int(self._status.readline())

    def wait(self) -> int:
        """The exit status, negative the number of a signal."""
        with self._status:
            return int(self._status.readline())


def run_python(
    *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a Python program to its end, as `subprocess.run([sys.executable, *arguments], capture_output=True)`."""
    words = [os.fspath(argument) for argument in arguments]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err, open(os.devnull) as nothing:
        process = WarmProcess(words, [nothing.fileno(), out.fileno(), err.fileno()], cwd, env)
        code = process.wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(words, code, out.read(), err.read())


@functools.cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process: subprocess.Popen[Any] = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours
