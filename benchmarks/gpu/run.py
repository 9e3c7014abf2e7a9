"""All tables of this folder, one process each. `make bench-gpu`.

    python benchmarks/gpu/run.py [--quick] [names]

One that fails does not keep the others from running; the closing lines say which did, and the exit status is theirs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
NAMES = (
    "neighbor_pairs",
    "force_step",
    "row_sums",
    "encoders",
    "token_networks",
    "live_features",
    "acceleration",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="name", help=f"among {', '.join(NAMES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="small sizes and few repetitions: does it run?")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in NAMES]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}: choose among {', '.join(NAMES)}")
    paths = [str(FOLDER), str(FOLDER.parent), str(FOLDER.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    outcome = {}
    for name in arguments.names or NAMES:
        say(f"== {name}")
        begun = time.monotonic()
        command = [sys.executable, str(FOLDER / f"{name}.py"), *(["--quick"] if arguments.quick else [])]
        status = subprocess.run(command, check=False, env=environment).returncode
        outcome[name] = f"{'done' if status == 0 else 'FAILED'} in {time.monotonic() - begun:.0f} s"
    for name, words in outcome.items():
        say(f"{name}: {words}")
    return 1 if any(words.startswith("FAILED") for words in outcome.values()) else 0


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
