"""All benchmarks of this folder, one process each. `make bench`.

    python benchmarks/run.py [--quick] [names]

The first that fails ends the run. Those that measure files of your own are left out, unless their names are given.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
OF_YOUR_FILES = {"denoising": "--encoder", "neighbor_rules": "checkpoints"}
"""Benchmarks that cannot run without an argument, and that argument."""


def main() -> int:
    names = sorted(path.stem for path in FOLDER.glob("[a-z]*.py") if path.stem not in ("harness", "run"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="name", help=f"among {', '.join(names)}; default: all")
    parser.add_argument("--quick", action="store_true", help="small sizes and few repetitions: does it run?")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in names]:
        parser.error(f"there is no benchmark {unknown[0]!r}: choose among {', '.join(names)}")
    # OpenMP threads that spin while they wait take the cores from the ones they wait for.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    for name in arguments.names or names:
        if not arguments.names and name in OF_YOUR_FILES:
            say(f"== {name} is left out: call benchmarks/{name}.py with its {OF_YOUR_FILES[name]}")
            continue
        say(f"== {name}")
        command = [sys.executable, str(FOLDER / f"{name}.py"), *(["--quick"] if arguments.quick else [])]
        if subprocess.run(command, check=False, env=environment).returncode != 0:
            print(f"benchmark {name} failed, its message is above", file=sys.stderr)
            return 1
    return 0


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
