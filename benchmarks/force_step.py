"""What one force step of gamd-argon costs, and how much of it is the neighbour list.

The positions are consecutive steps of argon, so the list is rebuilt as often as in a run. The published GAMD spends
42-74 % of its step on the list (Li et al., J. Chem. Phys. 156, 144103 (2022), table 3).

    python benchmarks/force_step.py [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import openmm
import torch
from harness import save_results
from rich.console import Console
from rich.table import Table

from openmm_gnn.forces.backends import available_backends
from openmm_gnn.forces.gamd_force import gamd_force
from openmm_gnn.forces.modules.openmm_module import script_module
from openmm_gnn.graph.neighbor_list import NeighborList
from openmm_gnn.md.contexts import with_model_force
from openmm_gnn.md.systems.systems import SimulationSystem, load_system
from openmm_gnn.networks.weights import load_model

MODEL = "gamd-argon"


def consecutive_positions(system: SimulationSystem, num_steps: int) -> list[torch.Tensor]:
    """Positions of equilibrated argon at consecutive steps of 2 fs, (258, 3) float64 each."""
    integrator = openmm.LangevinMiddleIntegrator(system.temperature, 1.0, system.time_step_ps)
    context = openmm.Context(system.system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    context.setPositions(system.positions)
    context.setVelocitiesToTemperature(system.temperature, 1)
    integrator.step(2000)
    frames = []
    for _ in range(num_steps):
        integrator.step(1)
        state = context.getState(positions=True)
        frames.append(torch.from_numpy(np.array(state.getPositions(asNumpy=True)._value)))
    return frames


def seconds_per_call(call: Callable[[torch.Tensor], object], frames: list[torch.Tensor], rounds: int) -> float:
    """Median over rounds of the mean time of a call along the frames: rebuilds count as often as they happen."""
    means = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        for frame in frames:
            call(frame)
        means.append((time.perf_counter() - start) / len(frames))
    return statistics.median(means[1:])


def step_in_openmm(system: SimulationSystem, platform: str, threads: int, num_steps: int) -> float:
    """Seconds per step of a whole OpenMM run under the network, median of 5 blocks."""
    force = gamd_force(MODEL, system.topology, periodic=True)
    integrator = openmm.LangevinMiddleIntegrator(system.temperature, 1.0, system.time_step_ps)
    properties = {"Threads": str(threads)} if platform == "CPU" else {}
    context = openmm.Context(
        with_model_force(system.system, force), integrator, openmm.Platform.getPlatformByName(platform), properties
    )
    context.setPositions(system.positions)
    context.setVelocitiesToTemperature(system.temperature, 1)
    integrator.step(30)
    blocks = []
    for _ in range(5):
        start = time.perf_counter()
        integrator.step(num_steps)
        context.getState(energy=True)
        blocks.append((time.perf_counter() - start) / num_steps)
    return statistics.median(blocks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    system, model = load_system("argon"), load_model(MODEL)
    spec = model.spec.neighbors
    frames = consecutive_positions(system, 40 if quick else 400)
    box = torch.from_numpy(np.asarray(system.box_vectors))
    results = []
    with torch.no_grad():
        for threads in (1, 2):
            torch.set_num_threads(threads)
            remembering = NeighborList(spec.cutoff, spec.skin, spec.max_neighbors)
            forgetting = NeighborList(spec.cutoff, 0.0, spec.max_neighbors)
            module = torch.jit.freeze(script_module(model, system.topology))
            rounds = 1 if quick else 5
            whole = seconds_per_call(lambda x, m=module: m(x, box), frames, rounds)  # type: ignore[misc]
            listing = seconds_per_call(lambda x, m=remembering: m(x, box), frames, rounds)  # type: ignore[misc]
            rebuilding = seconds_per_call(lambda x, m=forgetting: m(x, box), frames, rounds)  # type: ignore[misc]
            steps = {
                platform: 1e3 * step_in_openmm(system, platform, threads, 20 if quick else 200)
                for platform in ("Reference", "CPU")
            }
            results.append(
                {
                    "threads": threads,
                    "force_ms": 1e3 * whole,
                    "list_ms": 1e3 * listing,
                    "list_share": listing / whole,
                    "rebuilds_per_step": int(remembering.status[2]) / int(remembering.status[3]),
                    "list_without_skin_ms": 1e3 * rebuilding,
                    "step_ms": steps,
                }
            )
    backend = available_backends()[0].value
    table = Table(title=f"{MODEL}: 258 atoms, cutoff {spec.cutoff} nm, skin {spec.skin} nm, {backend}")
    table.add_column("threads")
    for row in results:
        table.add_column(str(row["threads"]), justify="right")
    for label, text in (
        ("force, ms", lambda row: f"{row['force_ms']:.2f}"),
        ("of it the list, ms", lambda row: f"{row['list_ms']:.3f}"),
        ("share of the list", lambda row: f"{100 * row['list_share']:.1f} %"),
        ("steps that rebuild it", lambda row: f"{100 * row['rebuilds_per_step']:.1f} %"),
        ("list without skin, ms", lambda row: f"{row['list_without_skin_ms']:.3f}"),
        ("MD step on Reference, ms", lambda row: f"{row['step_ms']['Reference']:.2f}"),
        ("MD step on CPU, ms", lambda row: f"{row['step_ms']['CPU']:.2f}"),
    ):
        table.add_row(label, *map(text, results))
    Console().print(table)
    save_results("force_step", {"model": MODEL, "backend": backend, "rows": results}, quick)


if __name__ == "__main__":
    main()
