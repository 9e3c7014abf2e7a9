"""Neighbour pairs on a GPU beside torch-cluster, torchmd-net and nvalchemi, whichever are installed.

A full list at water's density, cutoff 0.36 nm (about 19.5 neighbours), float32, milliseconds by device events, of atoms
in random order, and of the largest systems also of atoms sorted in space. "list with skin" is ours that remembers, in a
CUDA graph, at positions that do not move; "floor" the time in which the device moves the bytes that must be moved: 12
per atom in, 32 per pair out (two int64, a vector, a distance). torch-cluster knows no periodic box and gives indices
alone.

    python benchmarks/gpu/run.py neighbor_pairs [--quick]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from device import Rows, captured, device_medians, kept_ceilings, kernel_times, random_fluid, require_gpu
from rich.console import Console
from rich.table import Table
from torch import Tensor

from openmm_gnn import NeighborList, neighbor_pairs

SIZES = (774, 6282, 12_282, 41_358, 72_279, 250_000, 1_000_000)
CROSSOVER_SIZES = (500, 1000, 1500, 2000, 3000, 4000, 6000)
CUTOFF, SKIN, MOST_NEIGHBORS = 0.36, 0.1, 64
OURS = "ours"


def torch_cluster(positions: Tensor, box: Tensor) -> dict[str, Callable[[], object]]:
    from torch_cluster import radius_graph

    return {"torch-cluster, open": lambda: radius_graph(positions, CUTOFF, max_num_neighbors=MOST_NEIGHBORS)}


def torchmd_net(positions: Tensor, box: Tensor) -> dict[str, Callable[[], object]]:
    from torchmdnet.models.utils import OptimizedDistance

    # It reads the box on the host, and from 2.5 on keeps a copy on the device.
    finder = OptimizedDistance(
        0.0, CUTOFF, max_num_pairs=-MOST_NEIGHBORS, return_vecs=True, loop=False, strategy="cell", box=box.cpu(),
        include_transpose=True, resize_to_fit=False,
    ).cuda()  # fmt: skip
    return {"torchmd-net": lambda: finder(positions)}


def nvalchemi(positions: Tensor, box: Tensor) -> dict[str, Callable[[], object]]:
    try:
        from nvalchemiops.torch.neighbors import neighbor_list
    except ImportError:  # before 0.3
        from nvalchemiops.neighborlist import neighbor_list
    periodic = torch.ones((1, 3), dtype=torch.bool, device="cuda")

    def call(method: str | None) -> object:
        return neighbor_list(
            positions, CUTOFF, cell=box[None], pbc=periodic, max_neighbors=MOST_NEIGHBORS, method=method
        )

    # Its choice of a method looks at the box on the host, at every call; so it is chosen beforehand as well.
    method = "naive" if len(positions) < 5000 else "cell_list"
    return {"nvalchemi, its choice": lambda: call(None), "nvalchemi, chosen": lambda: call(method)}


def peers(positions: Tensor, box: Tensor) -> dict[str, Callable[[], object]]:
    """Calls of other packages that are installed here, each made once to see that it runs."""
    calls: dict[str, Callable[[], object]] = {}
    for package in (torch_cluster, torchmd_net, nvalchemi):
        try:
            calls |= package(positions, box)
        except ModuleNotFoundError:
            continue
        except Exception as error:  # built for another torch, say
            sys.stdout.write(f"{package.__name__} cannot be used here: {error}\n")
    for name, call in list(calls.items()):
        try:
            call()
            torch.cuda.synchronize()
        except Exception as error:  # another package's failure is a finding here, not ours to hide
            sys.stdout.write(f"{name} fails with {len(positions)} atoms: {error}\n")
            del calls[name]
    return calls


def row(num_atoms: int, shuffled: bool, bytes_per_ms: float, seconds: float) -> dict[str, Any]:
    positions, box = random_fluid(num_atoms, shuffled=shuffled)
    double, double_box = positions.double(), box.double()
    remembering = NeighborList(CUTOFF, SKIN)
    listing = captured(lambda: remembering(positions, box))
    anew = NeighborList(CUTOFF, 0.0, full=True)
    rebuilding = captured(lambda: (box.mul_(1.0000001), anew(positions, box)))
    contenders: dict[str, Callable[[], object]] = {
        OURS: lambda: neighbor_pairs(positions, CUTOFF, box),
        "ours, float64": lambda: neighbor_pairs(double, CUTOFF, double_box),
        "ours, fixed shape, found anew in a graph": rebuilding,
        "list with skin, in a graph": listing,
        **peers(positions, box),
    }
    medians = device_medians(contenders, seconds, calls=20 if num_atoms < 20_000 else 3)
    pairs = neighbor_pairs(positions, CUTOFF, box)[0].shape[1]
    others = [value for name, value in medians.items() if name not in list(contenders)[:4]]
    floor = (12 * num_atoms + 32 * pairs) / bytes_per_ms
    return {
        "atoms": num_atoms,
        "shuffled": shuffled,
        "pairs": pairs,
        "ms": medians,
        "floor_ms": floor,
        "ours_over_floor": medians[OURS] / floor,
        "ours_over_fastest_peer": medians[OURS] / min(others) if others else None,
        "kernels_us": kernel_times(contenders[OURS]) if num_atoms >= 1_000_000 else {},
    }


def crossover(num_atoms: int, seconds: float) -> dict[str, float]:
    """Milliseconds of a list with every pair tested, and with cells; see kBruteForceAtoms in csrc/neighbors/cuda."""
    positions, box = random_fluid(num_atoms)

    def along(path: str) -> Callable[[], object]:
        def call() -> object:
            os.environ["OPENMM_GNN_BRUTE_FORCE_ATOMS"] = "1000000000" if path == "all pairs" else "0"
            return neighbor_pairs(positions, CUTOFF, box)

        return call

    try:
        medians = device_medians({path: along(path) for path in ("all pairs", "cells")}, seconds)
    finally:
        os.environ.pop("OPENMM_GNN_BRUTE_FORCE_ATOMS", None)
    return {"atoms": num_atoms, **medians}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    require_gpu()
    limits, kept = kept_ceilings(quick), Rows("neighbor_pairs", quick)
    shapes = [(size, shuffled) for size in SIZES for shuffled in (True, False) if shuffled or size > 50_000]
    with torch.no_grad():
        rows = [
            kept.measured(
                f"{size} atoms, {'shuffled' if shuffled else 'sorted'}",
                partial(row, size, shuffled, 1e6 * limits["copy_GB_per_s"], 0.5 if quick else 3.0),
            )
            for size, shuffled in (shapes[:2] if quick else shapes[::-1])  # the largest first: they tell most
        ][::-1]
        crossing = [
            kept.measured(f"crossover, {size} atoms", partial(crossover, size, 0.2 if quick else 0.6))
            for size in (CROSSOVER_SIZES[::3] if quick else CROSSOVER_SIZES)
        ]
    table = Table(title=f"neighbour pairs, full list, {CUTOFF} nm, median ms by device events")
    for heading in ("", *(f"{entry['atoms']:,}" + ("" if entry["shuffled"] else " sorted") for entry in rows)):
        table.add_column(heading, justify="right" if heading else "left")
    names = [name for entry in rows for name in entry["ms"]]
    for name in dict.fromkeys(names):
        table.add_row(name, *(f"{entry['ms'][name]:.4f}" if name in entry["ms"] else "" for entry in rows))
    table.add_row("floor by bytes", *(f"{entry['floor_ms']:.4f}" for entry in rows))
    table.add_row("ours / floor (target 4 at a million)", *(f"{entry['ours_over_floor']:.1f}" for entry in rows))
    ratios = [entry["ours_over_fastest_peer"] for entry in rows]
    table.add_row("ours / fastest peer (target 0.5)", *("" if r is None else f"{r:.2f}" for r in ratios))
    Console(width=150).print(table)
    table = Table(title="where cells become faster than testing every pair (OPENMM_GNN_BRUTE_FORCE_ATOMS), median ms")
    for heading in ("", *(f"{entry['atoms']:,.0f}" for entry in crossing)):
        table.add_column(heading, justify="right" if heading else "left")
    for path in ("all pairs", "cells"):
        table.add_row(path, *(f"{entry[path]:.4f}" for entry in crossing))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
