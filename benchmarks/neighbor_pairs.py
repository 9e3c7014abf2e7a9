"""Neighbour pairs on the CPU beside vesin, matscipy and torch-cluster, and the list that remembers beside rebuilding.

A full periodic list of random atoms at 100 per nm^3, cutoff 0.36 nm (about 19.5 neighbours): indices, vectors and
distances. torch-cluster knows no periodic box and gives indices alone. One process, contenders in turn, medians.

    python benchmarks/neighbor_pairs.py [--quick] [--sizes 774 6282] [--threads 1]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from harness import interleaved_medians, save_results
from rich.console import Console
from rich.table import Table

from openmm_gnn import NeighborList, neighbor_pairs

SIZES = (774, 6282, 72279, 1_000_000)
DENSITY = 100.0
CUTOFF = 0.36
SKIN = 0.1
OURS = "ours, float32"
PEER = "vesin"


def random_fluid(num_atoms: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions (N, 3) and box (3, 3), float64, nm; uniform density, no overlap on purpose."""
    edge = (num_atoms / DENSITY) ** (1 / 3)
    positions = torch.from_numpy(np.random.default_rng(0).uniform(0, edge, (num_atoms, 3)))
    return positions, torch.eye(3, dtype=torch.float64) * edge


def contenders(positions: torch.Tensor, box: torch.Tensor, threads: int) -> dict[str, Callable[[], object]]:
    """Everything that is installed, by name."""
    single, single_box = positions.float(), box.float()
    points, cell = positions.numpy(), box.numpy()
    calls: dict[str, Callable[[], object]] = {
        OURS: lambda: neighbor_pairs(single, CUTOFF, single_box),
        "ours, float64": lambda: neighbor_pairs(positions, CUTOFF, box),
    }
    if installed("vesin"):
        import vesin

        peer = vesin.NeighborList(cutoff=CUTOFF, full_list=True, n_threads=threads)
        calls[PEER] = lambda: peer.compute(points=points, box=cell, periodic=True, quantities="ijDd", copy=False)
        calls["vesin, shifts"] = lambda: peer.compute(
            points=points, box=cell, periodic=True, quantities="ijSd", copy=False
        )
    if installed("matscipy"):
        from matscipy.neighbours import neighbour_list

        calls["matscipy"] = lambda: neighbour_list("ijDd", positions=points, cell=cell, pbc=[1, 1, 1], cutoff=CUTOFF)
    if installed("torch-cluster"):
        from torch_cluster import radius_graph

        calls["torch-cluster, open"] = lambda: radius_graph(single, CUTOFF, max_num_neighbors=100, num_workers=threads)
    return calls


def remembering(positions: torch.Tensor, box: torch.Tensor) -> dict[str, Callable[[], object]]:
    """A list with skin that is never stale beside finding the pairs anew, float32."""
    single, single_box = positions.float(), box.float()
    neighbors = NeighborList(CUTOFF, SKIN, max_neighbors=40, full=True)
    return {
        "list with skin": lambda: neighbors(single, single_box),
        "found anew": lambda: neighbor_pairs(single, CUTOFF, single_box),
    }


def installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    options = parser.parse_args()
    sizes = [size for size in options.sizes if size <= 10_000] if options.quick else options.sizes
    console, rows = Console(), []
    for name in ("vesin", "matscipy", "torch-cluster"):
        if not installed(name):
            console.print(f"{name} is not installed: left out")
    for threads in options.threads:
        torch.set_num_threads(threads)
        measured = {}
        for size in sizes:
            positions, box = random_fluid(size)
            seconds = 0.5 if options.quick else 4.0 + size / 50_000
            with torch.no_grad():
                times = interleaved_medians(contenders(positions, box, threads), seconds)
                times |= interleaved_medians(remembering(positions, box), seconds / 4)
            measured[size] = times
            row: dict[str, Any] = {"threads": threads, "atoms": size, "ms": {k: 1e3 * v for k, v in times.items()}}
            if PEER in times:
                row["ratio_to_vesin"] = {name: value / times[PEER] for name, value in times.items()}
            rows.append(row)
        console.print(table_of(measured, threads))
    results = {"cutoff_nm": CUTOFF, "density_per_nm3": DENSITY, "skin_nm": SKIN, "rows": rows}
    save_results("neighbor_pairs", results, options.quick)


def table_of(measured: dict[int, dict[str, float]], threads: int) -> Table:
    """One line per contender, one column per number of atoms: milliseconds and the ratio to vesin's."""
    table = Table(title=f"neighbour pairs, {threads} thread(s): median ms (ratio to {PEER})")
    table.add_column("atoms")
    for size in measured:
        table.add_column(f"{size:,}", justify="right")
    for name in next(iter(measured.values())):
        cells = []
        for times in measured.values():
            ratio = f" ({times[name] / times[PEER]:.2f})" if PEER in times else ""
            cells.append(f"{1e3 * times[name]:.3g}{ratio}")
        table.add_row(name, *cells)
    return table


if __name__ == "__main__":
    main()
