"""Time and peak memory of the CPU's loops over pairs at 1, 2, 16 and 64 threads, whatever cores the machine has.

python benchmarks/pair_loops.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from harness import save_results
from rich.console import Console
from rich.table import Table

from openmm_gnn.kernels.pair_rows import PairGraph, pair_graph
from openmm_gnn.kernels.radial_pairs import radial_pair_forces
from openmm_gnn.kernels.vector_network import vector_messages

THREADS = (1, 2, 16, 64)
LOOPS = ("radial forces", "vector messages", "their gradients")
START, CUTOFF, KNOTS, TYPES, WIDTH = 0.08, 0.45, 20, 9, 64


def loop(name: str, quick: bool) -> Callable[[], object]:
    """A loop over pairs at random: forces on 600,000 atoms, or a network on 36,000."""
    atoms, per_atom = (600_000, 5) if name == "radial forces" else (36_000, 4)
    if quick:
        atoms //= 20
    count = atoms * per_atom
    first = torch.arange(atoms).repeat_interleave(per_atom)
    pairs = torch.stack([first, (first + torch.randint(1, atoms, (count,))) % atoms])
    vectors = torch.nn.functional.normalize(torch.randn(count, 3)) * (0.1 + 0.34 * torch.rand(count, 1))
    types, distances = torch.randint(0, TYPES, (count,)), vectors.norm(dim=1)
    if name == "radial forces":
        table = torch.randn(TYPES, KNOTS)
        return partial(radial_pair_forces, pairs, types, vectors, distances, table, START, CUTOFF, atoms)
    graph = pair_graph(pairs, types, vectors.requires_grad_(), distances, atoms, START, CUTOFF)
    shapes = [(atoms, 3 * WIDTH), (atoms, 3 * WIDTH), (atoms, WIDTH), (atoms, 3, WIDTH), (atoms, 3, WIDTH)]
    features = [torch.randn(*shape) for shape in (*shapes, (TYPES, KNOTS, 3 * WIDTH), (3, 3 * WIDTH))]
    if name == "vector messages":
        return torch.no_grad()(partial(vector_messages, graph, *features))
    return partial(gradients, graph, [feature.requires_grad_() for feature in features])


def gradients(graph: PairGraph, features: list[torch.Tensor]) -> None:
    scalars, vectors = vector_messages(graph, *features)
    torch.autograd.grad(scalars.sum() + vectors.sum(), features)


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure(name: str, threads: int, quick: bool) -> None:
    """Prints the fewest seconds of a call and the GB that calls add; in a process whose peak nothing else raised."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    call = loop(name, quick)
    before, seconds = peak_gb(), []
    for _ in range(5):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    sys.stdout.write(json.dumps({"seconds": min(seconds), "GB": peak_gb() - before}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a twentieth of the atoms")
    parser.add_argument("--measure", nargs=2, metavar=("LOOP", "THREADS"), help="one loop in this process")
    arguments = parser.parse_args()
    if arguments.measure:
        return measure(arguments.measure[0], int(arguments.measure[1]), arguments.quick)
    table = Table(title="loops over pairs: seconds of the fastest of 5 calls, and GB that they add")
    for heading in ("loop", *(f"{threads} threads" for threads in THREADS)):
        table.add_column(heading, justify="right")
    rows = []
    for name in LOOPS:
        cells = []
        for threads in THREADS:
            command = [sys.executable, __file__, "--measure", name, str(threads), *["--quick"] * arguments.quick]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append({"loop": name, "threads": threads, **found})
            cells.append(f"{found['seconds']:.2f} s, {found['GB']:.2f} GB")
        table.add_row(name, *cells)
    Console().print(table)
    save_results("pair_loops", rows, arguments.quick)


if __name__ == "__main__":
    main()
