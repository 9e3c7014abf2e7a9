"""What the tests compile, once for all workers; kept in build/tests until a source changes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
KEPT = ROOT / "build" / "tests"


def kept(name: str, command: Sequence[str], make: Callable[[Path], None], *folders: Path) -> Path:
    """The file that `make` writes, made anew if the command, its program or a file under csrc or `folders` is another.

    Args:
        command: what `make` runs, without the path that it writes.
    """
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(repr((list(command), version)).encode())
    for path in sorted(path for folder in (CSRC, *folders) for path in folder.rglob("*") if path.is_file()):
        digest.update(str(path).encode() + hashlib.sha256(path.read_bytes()).digest())
    file = KEPT / f"{name}-{digest.hexdigest()[:20]}"
    KEPT.mkdir(parents=True, exist_ok=True)
    with open(KEPT / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            unfinished = KEPT / f"unfinished-{name}"
            make(unfinished)
            os.replace(unfinished, file)
    return file


def compiled(source: Path, *options: str) -> Path:
    """A C++ program or library; AssertionError with the compiler's words if it does not compile."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    assert compiler is not None, "no C++ compiler: install g++"
    command = [compiler, "-std=c++17", f"-I{CSRC}", str(source), *options]

    def make(file: Path) -> None:
        done = subprocess.run([*command, "-o", str(file)], capture_output=True, text=True)
        assert done.returncode == 0, f"{source.name} does not compile:\n{done.stderr}"

    return kept(source.stem, command, make, source.parent)
