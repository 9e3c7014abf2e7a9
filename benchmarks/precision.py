"""Errors of GAMD's forces where the products over edges take fewer bits: TF32, as tensor cores take them, and bfloat16.

Operands of every product over edges are rounded on the CPU, sums are float32; root mean square of the error against
float64 over that of the forces. Shipped argon networks on the fluid they were trained for, and a network of random
weights, 128 wide with 4 layers, on random atoms at water's density.

    python benchmarks/precision.py [--quick]
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import openmm
import torch
from harness import save_results
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import linear

from openmm_gnn import GAMD, GAMDSpec, NeighborSpec, load_model, neighbor_pairs
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.networks.force_model import PairList


def to_tf32(x: Tensor) -> Tensor:
    """To the nearest number with 10 bits of mantissa."""
    return ((x.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)


def to_bfloat16(x: Tensor) -> Tensor:
    return x.bfloat16().float()


ROUNDINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "float32": lambda x: x,
    "TF32": to_tf32,
    "bfloat16": to_bfloat16,
}


def round_products(model: GAMD, num_pairs: int, rounded: Callable[[Tensor], Tensor]) -> None:
    """Let every linear map of as many rows as there are pairs take rounded operands."""

    def replaced(module: nn.Module, given: tuple[Any, ...], result: Tensor) -> Tensor:
        if given[0].shape[0] != num_pairs or given[0].shape[1] == 3:  # directions are multiplied in float32
            return result
        assert isinstance(module, nn.Linear)
        return linear(rounded(given[0]), rounded(module.weight), module.bias)

    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(replaced)


def argon_frame(steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Species, positions (nm, float64) and box of liquid argon at 100 K."""
    fluid = load_system("argon")
    integrator = openmm.LangevinMiddleIntegrator(100, 1, 0.01)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(fluid.system, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(fluid.positions)
    openmm.LocalEnergyMinimizer.minimize(context, 10, 100)
    integrator.step(steps)
    state = context.getState(positions=True)
    positions = torch.tensor(state.getPositions(asNumpy=True)._value)
    box = torch.tensor([list(vector) for vector in state.getPeriodicBoxVectors()._value], dtype=torch.float64)
    return torch.zeros(len(positions), dtype=torch.int64), positions, box


def random_water(num_atoms: int = 774) -> tuple[Tensor, Tensor, Tensor]:
    """The same of random atoms of two elements, 100 per nm^3."""
    edge = (num_atoms / 100.0) ** (1 / 3)
    points = int(num_atoms ** (1 / 3) - 1e-9) + 1
    sites = torch.cartesian_prod(*(torch.arange(points),) * 3)[torch.randperm(points**3)[:num_atoms]]
    positions = (sites + 0.6 * torch.rand(num_atoms, 3, dtype=torch.float64)) * (edge / points)
    return torch.arange(num_atoms) % 3 % 2, positions, edge * torch.eye(3, dtype=torch.float64)


def errors(model: GAMD, frame: tuple[Tensor, Tensor, Tensor]) -> dict[str, float]:
    """Of each rounding, relative to the root mean square of the forces."""
    species, positions, box = frame
    pairs, vectors, distances = neighbor_pairs(positions, model.cutoff, box, full=False)
    with torch.no_grad():
        truth = copy.deepcopy(model).double()(species, PairList(pairs, vectors, distances))
        found = {}
        for name, rounded in ROUNDINGS.items():
            coarse = copy.deepcopy(model)
            round_products(coarse, pairs.shape[1], rounded)
            forces = coarse(species, PairList(pairs, vectors.float(), distances.float()))
            found[name] = float((forces - truth).norm() / truth.norm())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.manual_seed(0)
    argon, water = argon_frame(100 if quick else 5000), random_water()
    wide = GAMD(GAMDSpec(NeighborSpec(0.42, 0.1, 40), (8, 1), width=128, num_layers=4, num_radial=48, use_bonds=False))
    cases = {
        "gamd-argon": (load_model("gamd-argon"), argon),
        "gamd-argon-node": (load_model("gamd-argon-node"), argon),
        "random, 128 wide, 4 layers": (wide, water),
    }
    table = Table(title="error of GAMD's forces by the precision of its products over edges")
    for heading in ("network", *ROUNDINGS):
        table.add_column(heading, justify="right")
    rows = []
    for name, (model, frame) in cases.items():
        assert isinstance(model, GAMD)
        found = errors(model.eval(), frame)
        table.add_row(name, *(f"{error:.1e}" for error in found.values()))
        rows.append({"network": name, "errors": found})
    Console(width=100).print(table)
    save_results("precision", rows, quick)


if __name__ == "__main__":
    main()
