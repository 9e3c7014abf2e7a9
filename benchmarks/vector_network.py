"""VectorGAMD on one core: loops over pairs beside plain PyTorch, and forces by one operator beside the network.

The first table has one layer's messages, of water's size. The second has whole force evaluations, neighbour lists
included, as OpenMM calls them: the module with the compiled loops and autograd, and the module with the operator.

    python benchmarks/vector_network.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from harness import interleaved_medians, save_results
from rich.console import Console
from rich.table import Table

from openmm_gnn.base.specs.force import NeighborSpec, VectorGAMDSpec
from openmm_gnn.forces.modules.openmm_module import OpenMMModule, to_torchscript
from openmm_gnn.kernels.pair_rows import pair_graph
from openmm_gnn.kernels.vector_network import vector_messages
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.networks.force_model import ForceModel
from openmm_gnn.networks.vector_gamd import VectorGAMD
from openmm_gnn.networks.weights import load_model

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


def small_network(conservative: bool) -> VectorGAMD:
    """The default sizes for a molecule of four elements, with random weights."""
    return VectorGAMD(VectorGAMDSpec(NeighborSpec(), (1, 6, 7, 8), conservative=conservative)).eval()


def evaluations(model: ForceModel, system_name: str) -> dict[str, float]:
    """Process CPU seconds of one force evaluation, along positions as close as those of consecutive steps."""
    system = load_system(system_name)
    box = None if system.box_vectors is None else torch.from_numpy(np.asarray(system.box_vectors))
    start = torch.from_numpy(system.positions.copy())
    frames = [start + 2e-4 * torch.randn_like(start) for _ in range(max(5, 2000 // len(start)))]

    def contender(with_operator: bool) -> Callable[[], None]:
        module = OpenMMModule(model, system.topology).eval()
        if not with_operator:
            module.compiled = None
        frozen = torch.jit.freeze(to_torchscript(module))

        def run() -> None:
            for frame in frames:
                frozen(frame, box)

        for _ in range(3):  # TorchScript's first calls are slow
            run()
        return run

    with torch.no_grad():
        contenders = {"network": contender(False), "operator": contender(True)}
        seconds = interleaved_medians(contenders, 8, clock=time.process_time)
    return {name: value / len(frames) for name, value in seconds.items()}


def compare_evaluations() -> list[dict[str, float | str]]:
    cases = {
        "22 atoms, forces": (small_network(False), "alanine-dipeptide"),
        "22 atoms, energy": (small_network(True), "alanine-dipeptide"),
        "774 atoms, energy": (load_model("gamd-amoeba-water"), "amoeba-water"),
        "774 atoms, charges": (load_model("gamd-tip3p"), "tip3p"),
    }
    table = Table(title="one force evaluation, one thread, CPU ms")
    for heading in ("system", "network", "operator", "network / operator"):
        table.add_column(heading, justify="right")
    rows: list[dict[str, float | str]] = []
    for name, case in cases.items():
        milliseconds = {key: 1e3 * value for key, value in evaluations(*case).items()}
        network, operator = milliseconds["network"], milliseconds["operator"]
        rows.append({"system": name, **milliseconds})
        table.add_row(name, f"{network:.2f}", f"{operator:.2f}", f"{network / operator:.1f}")
    Console().print(table)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.manual_seed(0)
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # which operators ask in TorchScript
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
    save_results("vector_network", {"messages": rows, "evaluations": compare_evaluations()}, quick)


if __name__ == "__main__":
    main()
