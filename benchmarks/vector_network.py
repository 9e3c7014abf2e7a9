"""The fused loops over pairs of VectorGAMD beside the same in plain PyTorch: one layer's messages, water's size.

python benchmarks/vector_network.py [--quick]
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from harness import interleaved_medians, save_results
from rich.console import Console
from rich.table import Table

from openmm_gnn.kernels.pair_rows import pair_graph
from openmm_gnn.kernels.vector_network import vector_messages

NUM_ATOMS, NUM_PAIRS, NUM_TYPES, NUM_KNOTS = 774, 14_000, 9, 20
START, CUTOFF = 0.08, 0.45


def inputs(width: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Pairs and features of 258 water molecules, at random."""
    first = torch.randint(0, NUM_ATOMS, (NUM_PAIRS,)).sort()[0]
    second = (first + torch.randint(1, NUM_ATOMS, (NUM_PAIRS,))) % NUM_ATOMS
    vectors = torch.nn.functional.normalize(torch.randn(NUM_PAIRS, 3)) * (0.1 + 0.34 * torch.rand(NUM_PAIRS, 1))
    pairs = [torch.stack([first, second]), torch.randint(0, NUM_TYPES, (NUM_PAIRS,)), vectors, vectors.norm(dim=1)]
    shapes = [
        (NUM_ATOMS, 3 * width),
        (NUM_ATOMS, 3 * width),
        (NUM_ATOMS, width),
        (NUM_ATOMS, 3, width),
        (NUM_ATOMS, 3, width),
        (NUM_TYPES, NUM_KNOTS, 3 * width),
        (3, 3 * width),
    ]
    return pairs, [0.5 * torch.randn(*shape) for shape in shapes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.manual_seed(0)
    torch.set_num_threads(1)
    table = Table(title=f"messages of one layer, {NUM_ATOMS} atoms, {NUM_PAIRS} pairs, one thread, ms")
    for heading in ("width", "what", "fused", "plain", "plain / fused"):
        table.add_column(heading, justify="right")
    rows = []
    for width in (32, 64):
        pairs, features = inputs(width)

        def forward(fused: bool) -> tuple[torch.Tensor, torch.Tensor]:
            graph = pair_graph(*pairs, NUM_ATOMS, START, CUTOFF, fused)  # noqa: B023 - called in this turn
            return vector_messages(graph, *features)  # noqa: B023

        def both(fused: bool) -> None:
            for feature in features:  # noqa: B023
                feature.requires_grad_()
            scalars, vectors = forward(fused)
            (scalars.sum() + vectors.sum()).backward()

        seconds = {}
        with torch.no_grad():
            seconds["forward"] = interleaved_medians(
                {"fused": partial(forward, True), "plain": partial(forward, False)}, 4
            )
        seconds["and backward"] = interleaved_medians({"fused": partial(both, True), "plain": partial(both, False)}, 8)
        for what, medians in seconds.items():
            rows.append({"width": width, "what": what, **{name: 1e3 * value for name, value in medians.items()}})
            fused, plain = rows[-1]["fused"], rows[-1]["plain"]
            table.add_row(str(width), what, f"{fused:.2f}", f"{plain:.1f}", f"{plain / fused:.1f}")
    Console().print(table)
    save_results("vector_network", rows, quick)


if __name__ == "__main__":
    main()
