"""Charges on a grid, compiled and in plain PyTorch: forces and energy of water's atoms in boxes of growing size.

python benchmarks/particle_mesh.py [--quick] [--threads 1 2]
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from harness import interleaved_medians, save_results
from rich.console import Console
from rich.table import Table

from openmm_gnn.kernels.particle_mesh import particle_mesh, particle_mesh_reference
from openmm_gnn.networks.pair_term import grid_sizes

WIDTH = 0.18
EDGES_NM = {774: 2.0, 6_192: 4.0, 24_768: 6.35, 72_279: 9.0}
"""Of cubes that hold these numbers of atoms as water."""


def water_like(num_atoms: int, edge: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Positions at random, charges of water's atoms in their order, and the box."""
    charges = 11.787 * torch.tensor([-0.834, 0.417, 0.417]).repeat(num_atoms // 3)
    return edge * torch.rand(num_atoms, 3), charges, edge * torch.eye(3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="short, and nothing is stored")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    torch.manual_seed(0)
    table = Table(title=f"charges of width {WIDTH} nm on a grid, forces and energy, ms")
    for heading in ("atoms", "grid", "threads", "compiled", "plain", "plain / compiled"):
        table.add_column(heading, justify="right")
    rows = []
    for threads in options.threads:
        torch.set_num_threads(threads)
        for num_atoms, edge in EDGES_NM.items():
            inputs = water_like(num_atoms, edge)
            sizes = grid_sizes([edge] * 3, WIDTH)
            with torch.no_grad():
                medians = interleaved_medians(
                    {
                        "compiled": partial(particle_mesh, *inputs, WIDTH, sizes),
                        "plain": partial(particle_mesh_reference, *inputs, WIDTH, sizes),
                    },
                    0.5 if options.quick else 6,
                )
            row = {"atoms": num_atoms, "grid": sizes, "threads": threads}
            rows.append({**row, **{name: 1e3 * value for name, value in medians.items()}})
            compiled, plain = rows[-1]["compiled"], rows[-1]["plain"]
            grid = " x ".join(str(size) for size in sizes)
            figures = [f"{compiled:.2f}", f"{plain:.1f}", f"{plain / compiled:.1f}"]
            table.add_row(str(num_atoms), grid, str(threads), *figures)
    Console().print(table)
    save_results("particle_mesh", rows, options.quick)


if __name__ == "__main__":
    main()
