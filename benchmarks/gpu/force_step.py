"""One force step of GAMD, 128 wide with 4 layers, list included, on a GPU; sizes of the GAMD paper and larger.

Milliseconds by device events along a random walk that moves atoms as far per frame as water does in 2 fs, so lists are
rebuilt as often as in a run. "ours" is the frozen module, as OpenMM calls it; "in a graph" the same as one CUDA graph;
"list" our list alone in a graph, and its share of the graph's step. "plain" is the network as the paper writes it
(benchmarks/plain_gamd.py), without a list. The floors are the operations over what a float32 matrix product reaches on
this device, and over what TF32 would, and the bytes over a copy's. OpenMM's own TIP3P stands beside, where OpenMM has
its CUDA platform: it is faster than any network.

    python benchmarks/gpu/run.py force_step [--quick]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from device import Rows, captured, device_medians, kept_ceilings, random_fluid, require_gpu, walk
from plain_gamd import PlainGAMD
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from openmm_gnn import GAMD, GAMDSpec, NeighborList, NeighborSpec, neighbor_pairs
from openmm_gnn.base.specs.force import Decoder
from openmm_gnn.networks.force_model import PairList

SIZES = (774, 12_282, 41_358, 72_279)
CUTOFF, SKIN = 0.42, 0.1
WIDTH, LAYERS, RADIAL = 128, 4, 48
FRAMES = 24


class Step(nn.Module):
    """List and network, as forces/modules/openmm_module.py has them, without a topology."""

    def __init__(self, spec: GAMDSpec, num_atoms: int) -> None:
        super().__init__()
        near = spec.neighbors
        self.model = GAMD(spec)
        self.neighbors = NeighborList(near.cutoff, near.skin, near.max_neighbors)
        self.register_buffer("species", torch.arange(num_atoms) % 3 % 2)

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        pairs, vectors, distances = self.neighbors(positions, box)
        return self.model.network_energy_and_forces(self.species, PairList(pairs, vectors, distances))[1]


def operations(num_atoms: int, num_pairs: int) -> float:
    """Floating-point operations of a step of the paper's network, multiplications and additions."""
    per_edge = 2 * (RADIAL * WIDTH + WIDTH * WIDTH) + LAYERS * 2 * 2 * WIDTH * WIDTH
    per_atom = LAYERS * 5 * 2 * WIDTH * WIDTH + 2 * WIDTH * (WIDTH + 3)
    return 2.0 * num_pairs * per_edge + num_atoms * per_atom


def fewest_bytes(num_atoms: int, num_pairs: int) -> float:
    """Bytes that must move if the features of both edges of a pair are written once and read once per layer."""
    return 4.0 * WIDTH * (2 * num_pairs * (1 + LAYERS) + LAYERS * 6 * num_atoms) + 32.0 * num_pairs


def along(frames: list[Tensor], held: Tensor, call: Callable[[], object]) -> Callable[[], object]:
    """All frames, one after the other, through a call that reads `held`."""

    def run() -> None:
        for frame in frames:
            held.copy_(frame)
            call()

    return run


def row(num_atoms: int, decoder: Decoder, limits: dict[str, float], seconds: float) -> dict[str, Any]:
    positions, box = random_fluid(num_atoms)
    frames, held = walk(positions, FRAMES - 1), positions.clone()
    torch.manual_seed(0)
    spec = GAMDSpec(NeighborSpec(CUTOFF, SKIN), (8, 1), decoder, WIDTH, LAYERS, RADIAL)
    exact = Step(spec, num_atoms).cuda().eval().requires_grad_(False)
    scripted = torch.jit.freeze(torch.jit.script(exact))
    remembering = NeighborList(CUTOFF, SKIN)
    plain = PlainGAMD(CUTOFF, WIDTH, LAYERS, RADIAL).cuda().eval()
    edges, vectors, _ = neighbor_pairs(held, CUTOFF, box)
    species = exact.species
    contenders = {
        "ours": along(frames, held, lambda: scripted(held, box)),
        "ours, in a graph": along(frames, held, captured(lambda: exact(held, box))),
        "list, in a graph": along(frames, held, captured(lambda: remembering(held, box))),
        "plain": along(frames[:4], held, lambda: plain(species, edges, vectors)),
    }
    contenders |= openmm_step(num_atoms)
    medians = device_medians(contenders, seconds)
    per_step = {name: value / (4 if name == "plain" else FRAMES) for name, value in medians.items()}
    pairs = edges.shape[1] // 2
    flops, moved = operations(num_atoms, pairs), fewest_bytes(num_atoms, pairs)
    exact.neighbors.check()
    return {
        "atoms": num_atoms,
        "decoder": decoder.value,
        "pairs": pairs,
        "ms": per_step,
        "rebuilds_per_step": int(remembering.status[2]) / int(remembering.status[3]),
        "list_share": per_step["list, in a graph"] / per_step["ours, in a graph"],
        "plain_over_ours": per_step["plain"] / per_step["ours, in a graph"],
        "floor_float32_ms": flops / 1e9 / limits["float32_TFLOP_per_s"],
        "floor_tf32_ms": flops / 1e9 / limits["tf32_TFLOP_per_s"],
        "floor_bytes_ms": moved / 1e6 / limits["copy_GB_per_s"],
    }


def openmm_step(num_atoms: int) -> dict[str, Callable[[], object]]:
    """TIP3P by OpenMM's own kernels, host time of whole steps, where its CUDA platform is here."""
    try:
        import openmm
    except ImportError:
        return {}
    from openmm_gnn.md.systems.systems import load_system

    names = [openmm.Platform.getPlatform(index).getName() for index in range(openmm.Platform.getNumPlatforms())]
    if "CUDA" not in names:
        return {}
    platform = openmm.Platform.getPlatformByName("CUDA")
    system = load_system("tip3p", num_molecules=num_atoms // 3)
    context = openmm.Context(system.system, openmm.LangevinMiddleIntegrator(300, 1.0, 0.002), platform)
    context.setPositions(system.positions)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=50)

    def run() -> None:
        context.getIntegrator().step(FRAMES)
        context.getState(energy=True)  # waits, so the two device events enclose all of it

    return {"OpenMM's TIP3P": run}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    require_gpu()
    limits, kept = kept_ceilings(quick), Rows("force_step", quick)
    with torch.no_grad():
        rows = [
            kept.measured(f"{size} atoms, {decoder.value}", partial(row, size, decoder, limits, 0.5 if quick else 3.0))
            for decoder in (Decoder.NODE, Decoder.PAIR)
            for size in (SIZES[:1] if quick else SIZES)
        ]
    table = Table(title=f"GAMD {WIDTH} x {LAYERS}, {CUTOFF} nm, skin {SKIN} nm: median ms per step by device events")
    for heading in ("", *(f"{entry['atoms']:,} {entry['decoder']}" for entry in rows)):
        table.add_column(heading, justify="right" if heading else "left")
    for name in dict.fromkeys(name for entry in rows for name in entry["ms"]):
        table.add_row(name, *(f"{entry['ms'][name]:.3f}" if name in entry["ms"] else "" for entry in rows))
    for label, key, form in (
        ("list / step (target 0.05)", "list_share", ".3f"),
        ("plain / ours (target 5)", "plain_over_ours", ".1f"),
        ("steps that rebuild the list", "rebuilds_per_step", ".3f"),
        ("floor: float32", "floor_float32_ms", ".3f"),
        ("floor: TF32", "floor_tf32_ms", ".3f"),
        ("floor: bytes", "floor_bytes_ms", ".3f"),
    ):
        table.add_row(label, *(format(entry[key], form) for entry in rows))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
