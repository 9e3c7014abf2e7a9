"""Boxes of TIP3P water from 258 to 24,093 molecules: OpenMM, our list, our force, and GAMD without our kernels.

The sizes are those of the GAMD paper (J. Chem. Phys. 156, 144103 (2022), table 3). All columns of a row are measured in
turn in one process. OpenMM computes TIP3P faster than any network: these rows show how a network's cost grows.

    python benchmarks/water_sizes.py [--quick] [--device cuda]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import openmm
import torch
from harness import interleaved_medians, save_results
from plain_gamd import PlainGAMD, full_edges
from rich.console import Console
from rich.progress import track
from rich.table import Table

from openmm_gnn.forces.modules.openmm_module import script_module
from openmm_gnn.graph.neighbor_list import NeighborList
from openmm_gnn.md.systems.systems import SimulationSystem, load_system
from openmm_gnn.networks.weights import load_model

MODEL = "gamd-tip3p"
MOLECULES = (258, 887, 2094, 4085, 13786, 16814, 24093)
GAMD_CUTOFF = 0.42
LARGEST_PLAIN = {"cpu": 4085, "cuda": 24093}
"""Beyond, the plain form's edge features (a dozen tensors of edges x 128) would need tens of gigabytes."""
PUBLISHED_MS = {258: 7.02, 887: 7.33, 2094: 7.89, 4085: 8.49, 13786: 14.53, 16814: 16.21, 24093: 20.85}
"""List and force of the paper's own code on a GTX 1080 Ti."""
FRAMES = 8
SECONDS_PER_ROW = 30.0


def positions_along_a_run(system: SimulationSystem, num_molecules: int) -> list[np.ndarray]:
    """A few consecutive steps of TIP3P from a short relaxation, as a run would show them to a list."""
    integrator = openmm.LangevinMiddleIntegrator(300.0, 5.0, 0.002)
    context = openmm.Context(system.system, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(system.positions)
    context.setVelocitiesToTemperature(300.0, 1)
    integrator.step(500 if num_molecules < 1000 else 20)
    frames = []
    for _ in range(FRAMES):
        integrator.step(1)
        frames.append(np.array(context.getState(positions=True).getPositions(asNumpy=True)._value))
    return frames


def openmm_call(system: SimulationSystem, frames: list[np.ndarray], device: str) -> Callable[[], object]:
    """Forces of TIP3P at one frame after another; positions are set, so nothing is remembered."""
    name = "CUDA" if device == "cuda" else "CPU"
    context = openmm.Context(system.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(name))
    integrator = context.getIntegrator()
    context.setPositions(frames[0])
    context.setVelocitiesToTemperature(300.0, 1)
    return lambda: (integrator.step(FRAMES), context.getState(energy=True))


def row(num_molecules: int, device: str, seconds: float) -> dict[str, float]:
    """Milliseconds per step of every contender."""
    system = load_system("tip3p", num_molecules=num_molecules)
    frames = positions_along_a_run(system, num_molecules)
    box = torch.from_numpy(np.asarray(system.box_vectors)).to(device)
    tensors = [torch.from_numpy(frame).to(device) for frame in frames]
    model = load_model(MODEL)
    module = torch.jit.freeze(script_module(model, system.topology).to(device))
    near = model.spec.neighbors
    lists = [NeighborList(near.cutoff, near.skin, near.max_neighbors)]
    if model.pair_term is not None:
        lists.append(NeighborList(model.pair_term.cutoff, near.skin, 8 * near.max_neighbors))
    species = torch.tensor([1, 0, 0] * num_molecules, device=device)
    plain = PlainGAMD(GAMD_CUTOFF).eval().to(device)

    def along(call: Callable[[torch.Tensor], object]) -> Callable[[], object]:
        def all_frames() -> None:
            for frame in tensors:
                call(frame)
            if device == "cuda":
                torch.cuda.synchronize()

        return all_frames

    def plain_step(frame: torch.Tensor) -> object:
        edges, vectors = full_edges(frame.cpu().numpy(), float(box[0, 0]), GAMD_CUTOFF)
        return plain(species, edges.to(device), vectors.to(device))

    contenders = {
        "OpenMM TIP3P": openmm_call(system, frames, device),
        "our lists": along(lambda frame: [a_list(frame, box) for a_list in lists]),
        "our force": along(lambda frame: module(frame, box)),
    }
    with torch.no_grad():
        medians = interleaved_medians(contenders, seconds)
        if num_molecules <= LARGEST_PLAIN[device]:
            one = {"plain GAMD": lambda: plain_step(tensors[0])}
            medians["plain GAMD"] = FRAMES * interleaved_medians(one, seconds / 3)["plain GAMD"]
    return {name: 1e3 * value / FRAMES for name, value in medians.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()
    sizes = MOLECULES[:2] if arguments.quick else MOLECULES
    console = Console()
    rows = {
        size: row(size, arguments.device, 2.0 if arguments.quick else SECONDS_PER_ROW)
        for size in track(sizes, "boxes", console=console)
    }
    names = ["OpenMM TIP3P", "our lists", "our force", "plain GAMD"]
    table = Table(title=f"ms per step, {arguments.device}, {torch.get_num_threads()} threads, {MODEL}")
    for heading in ("molecules", *names, "plain / ours", "published, GTX 1080 Ti"):
        table.add_column(heading, justify="right")
    for size, medians in rows.items():
        ratio = f"{medians['plain GAMD'] / medians['our force']:.1f}" if "plain GAMD" in medians else ""
        cells = [f"{medians[name]:.2f}" if name in medians else "" for name in names]
        table.add_row(str(size), *cells, ratio, f"{PUBLISHED_MS[size]:.2f}")
    console.print(table)
    save_results(f"water_sizes_{arguments.device}", {"model": MODEL, "milliseconds": rows}, arguments.quick)


if __name__ == "__main__":
    main()
