"""The loops over pairs of VectorGAMD on a GPU: sums over rows beside plain PyTorch, one layer and one whole force step.

Messages of one layer at water's density within 0.45 nm, forward and with the gradients that forces need; then the step
of shipped networks, energy and gradient, lists included: of AMOEBA water without its pair term through autograd,
with it as one operator; and of TIP3P water, with pair term and charges, as one operator. Milliseconds by device events.

    python benchmarks/gpu/run.py row_sums [--quick]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from device import Rows, captured, device_medians, random_fluid, require_gpu
from rich.console import Console
from rich.table import Table
from torch import Tensor

from openmm_gnn import NeighborList, load_model
from openmm_gnn.kernels.pair_rows import pair_graph, pair_rows
from openmm_gnn.kernels.radial_pairs import pair_types
from openmm_gnn.kernels.vector_network import vector_messages
from openmm_gnn.networks.force_model import PairList
from openmm_gnn.networks.vector_gamd import VectorGAMD
from openmm_gnn.networks.vector_gamd_forces import VectorGAMDForces

SIZES = (774, 12_282, 72_279)
WIDTHS = (32, 64, 128)
START, CUTOFF, TYPES, KNOTS = 0.08, 0.45, 9, 20


def one_layer(num_atoms: int, width: int, seconds: float) -> dict[str, float]:
    positions, box = random_fluid(num_atoms)
    pairs, vectors, distances = NeighborList(CUTOFF, 0.1, 40)(positions, box)
    types = torch.randint(0, TYPES, (pairs.shape[1],), device="cuda")

    def normal(*sizes: int) -> Tensor:
        return 0.5 * torch.randn(*sizes, device="cuda")

    features = [normal(num_atoms, 3 * width), normal(num_atoms, 3 * width), normal(num_atoms, width)]
    features += [normal(num_atoms, 3, width), normal(num_atoms, 3, width)]
    weights = [normal(TYPES, KNOTS, 3 * width), normal(3, 3 * width)]
    graph = pair_graph(pairs, types, vectors, distances, num_atoms, START, CUTOFF)

    def forward(fused: bool) -> tuple[Tensor, Tensor]:
        return vector_messages(graph._replace(compiled=fused), *features, *weights)

    def both(fused: bool) -> None:
        with torch.enable_grad():
            inputs = [vectors, *features]
            for tensor in inputs:
                tensor.requires_grad_()
            scalars, moved = forward(fused)
            torch.autograd.grad(scalars.sum() + moved.sum(), inputs)
            for tensor in inputs:
                tensor.requires_grad_(False)

    contenders: dict[str, Callable[[], object]] = {
        "rows": lambda: pair_rows(pairs, distances, CUTOFF, num_atoms),
        "forward": lambda: forward(True),
        "and backward": lambda: both(True),
    }
    if num_atoms * width < 5_000_000:  # the plain form keeps a dozen tensors of pairs x 3 width
        contenders |= {"forward, plain": lambda: forward(False), "and backward, plain": lambda: both(False)}
    return device_medians(contenders, seconds, calls=5)


def whole_step(num_atoms: int, seconds: float) -> dict[str, float]:
    positions, box = random_fluid(num_atoms)
    model = load_model("gamd-amoeba-water").cuda().eval().requires_grad_(False)
    assert isinstance(model, VectorGAMD)
    near = model.spec.neighbors
    neighbors = NeighborList(near.cutoff, near.skin, near.max_neighbors)
    species = torch.arange(num_atoms, device="cuda") % 3 % 2
    partners = torch.full((2, num_atoms, 1), -1, dtype=torch.int64, device="cuda")

    def step() -> tuple[Tensor, Tensor]:
        pairs, vectors, distances = neighbors(positions, box)
        types = pair_types(pairs, species, partners, 2)
        return model.network_energy_and_forces(species, PairList(pairs, vectors, distances, types))

    operator = partial(one_operator("gamd-amoeba-water", species, partners), positions, box)
    charged = partial(one_operator("gamd-tip3p", species, partners), positions, box)
    contenders: dict[str, Callable[[], object]] = {
        "step": step,
        "step, in a graph": captured(step),
        "operator": operator,
        "operator, in a graph": captured(operator),
        "with charges, in a graph": captured(charged),
    }
    return device_medians(contenders, seconds)


def one_operator(name: str, species: Tensor, partners: Tensor) -> VectorGAMDForces:
    """A shipped network bound to these atoms."""
    model = load_model(name).eval().requires_grad_(False)
    assert isinstance(model, VectorGAMD)
    return VectorGAMDForces(model, species.cpu(), partners.cpu()).cuda()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    require_gpu()
    torch.manual_seed(0)
    sizes, widths = (SIZES[:1], WIDTHS[:1]) if quick else (SIZES, WIDTHS)
    rows: list[dict[str, Any]] = []
    kept, seconds = Rows("row_sums", quick), 0.3 if quick else 1.5
    with torch.no_grad():
        for size in sizes:
            for width in widths:
                layer = partial(one_layer, size, width, seconds)
                figures = kept.measured(f"{size} atoms, width {width}", layer)
                rows.append({"atoms": size, "width": width, "ms": figures})
            figures = kept.measured(f"{size} atoms, whole step", partial(whole_step, size, seconds))
            rows.append({"atoms": size, "width": 32, "ms": figures})
    names = list(dict.fromkeys(name for entry in rows for name in entry["ms"]))
    table = Table(title="VectorGAMD on the GPU, median ms by device events")
    for heading in ("atoms", "width", *names):
        table.add_column(heading, justify="right")
    for entry in rows:
        figures = [f"{entry['ms'][name]:.3f}" if name in entry["ms"] else "" for name in names]
        table.add_row(f"{entry['atoms']:,}", str(entry["width"]), *figures)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
