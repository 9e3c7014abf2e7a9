"""All tables of this folder, one process each. `make bench-gpu`.

    python benchmarks/gpu/run.py [--quick] [--seconds 400] [--again] [--results FOLDER] [names]

Each is a phase with a time limit, the most important first; what was measured with the same libraries is not measured
again, row by row (phases.py). One that fails does not keep the others from running. At the end stands one table of what
was forecast beside what was measured.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from phases import Phase, add_options, digest_of_libraries, end_as_if_interrupted, results_of, run_phases

HERE = Path(__file__).resolve().parent
SECONDS = {
    "neighbor_pairs": 90,
    "row_sums": 60,
    "tile_sums": 40,
    "force_step": 90,
    "encoders": 90,
    "token_networks": 70,
    "live_features": 150,
    "acceleration": 240,
}
"""Time limit of each table, the most important first; the last two need OpenMM and its CUDA platform."""


def phases(quick: bool) -> list[Phase]:
    """All tables."""
    paths = [str(HERE), str(HERE.parent), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {"PYTHONPATH": os.pathsep.join(path for path in paths if path), "PYTHONUNBUFFERED": "1"}
    arguments = ["--quick"] if quick else []
    return [
        Phase(name, seconds, {name: [sys.executable, str(HERE / f"{name}.py"), *arguments]}, environment)
        for name, seconds in SECONDS.items()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="name", help=f"among {', '.join(SECONDS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="small sizes and few repetitions: does it run?")
    add_options(parser)
    asked = parser.parse_args()
    unknown = [name for name in asked.names if name not in SECONDS]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}: choose among {', '.join(SECONDS)}")
    import torch
    from device import require_gpu
    from forecasts import table_of
    from rich.console import Console

    from openmm_gnn.kernels import library

    require_gpu()
    end_as_if_interrupted()
    results = results_of(torch.cuda.get_device_name(), asked.results)
    chosen = [phase for phase in phases(asked.quick) if phase.name in (asked.names or SECONDS)]
    section = "quick benchmarks" if asked.quick else "benchmarks"
    digest = digest_of_libraries(library.FOLDER)
    passed = run_phases(chosen, results, section, digest, asked.seconds, asked.again or asked.quick)
    Console(width=130).print(table_of(results.read()))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
