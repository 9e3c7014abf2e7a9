"""GAMD's networks over edges on a GPU: operations per second of each kernel against what a matrix product reaches.

Random weights and features, pairs of water's density within 0.42 nm, float32, milliseconds by device events. "ceiling"
is a float32 product of two matrices of 8192 rows by cuBLAS on this device.

    python benchmarks/gpu/run.py tile_sums [--quick]
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch
from device import Rows, device_medians, kept_ceilings, random_fluid, require_gpu
from rich.console import Console
from rich.table import Table
from torch import Tensor

from openmm_gnn.kernels.gamd_tiles import gamd_edges, gamd_messages, tile_graph
from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs

NUM_ATOMS, CUTOFF, RADIAL = 41_358, 0.42, 48
WIDTHS = (128, 64, 32, 16)


def row(width: int, num_atoms: int, seconds: float) -> dict[str, Any]:
    positions, box = random_fluid(num_atoms, shuffled=True)
    pairs, vectors, distances = neighbor_pairs(positions, CUTOFF, box, full=False)[:3]
    graph = tile_graph(pairs, distances, torch.ones_like(distances), num_atoms, CUTOFF)
    count = pairs.shape[1]

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, device="cuda")

    square = normal(width, width) / width, normal(width)
    radial, none = (normal(width, RADIAL), normal(width)), torch.empty(0, width, device="cuda")
    features, atoms = normal(count, width), normal(num_atoms, width)
    basis = normal(RADIAL), -30.0
    medians = device_medians(
        {
            "edges": lambda: gamd_edges(graph, vectors, pairs[0], basis, radial, none, normal(width, 3), square),
            "messages": lambda: gamd_messages(graph, (features, features), atoms, atoms, atoms, square, square),
        },
        seconds,
    )
    operations = {"edges": 2 * width * (RADIAL + width) * 2, "messages": 2 * 2 * 2 * width * width}
    rates = {f"{name}_TFLOP_per_s": count * operations[name] / 1e9 / medians[name] for name in medians}
    return {"width": width, "atoms": num_atoms, "pairs": count, "ms": medians, **rates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    require_gpu()
    limits, kept = kept_ceilings(quick), Rows("tile_sums", quick)
    with torch.no_grad():
        rows = [
            kept.measured(f"width {width}", partial(row, width, 774 if quick else NUM_ATOMS, 0.3 if quick else 2.0))
            for width in WIDTHS
        ]
    table = Table(title=f"GAMD's kernels over edges, ceiling {limits['float32_TFLOP_per_s']:.0f} TFLOP/s in float32")
    for heading in ("width", "pairs", "edges, ms", "TFLOP/s", "messages, ms", "TFLOP/s"):
        table.add_column(heading, justify="right")
    for entry in rows:
        figures = []
        for name in ("edges", "messages"):
            figures += [f"{entry['ms'][name]:.3f}", f"{entry[f'{name}_TFLOP_per_s']:.1f}"]
        table.add_row(str(entry["width"]), f"{entry['pairs']:,}", *figures)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
