"""How much faster AMOEBA water runs with a network: accelerated and uncorrected, beside its own best practice.

The teacher's best practice is its own multiple time steps: non-bonded forces every 2 fs, or every 3 fs where hydrogens
are heavier, and bonded ones every 0.5 fs. The step sizes of the accelerated run are those that `openmm-gnn scan-steps`
found stable. Blocks of all take turns in one process; figures are ratios of medians, over the last best practice.

    python benchmarks/acceleration.py [--quick] [--threads N] [--platform NAME] [--device NAME]
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable

import torch
from harness import interleaved_medians, save_results
from rich.console import Console
from rich.table import Table

from openmm_gnn.md.contexts import choose_platform, make_context
from openmm_gnn.md.run_settings import RunCourse
from openmm_gnn.md.simulation_system import SimulationSystem, Thermostat
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.networks.force_model import ForceModel
from openmm_gnn.networks.weights import load_model
from openmm_gnn.runs.forces import run_forces

SYSTEM, MODEL = "amoeba-water", "gamd-amoeba-water"
OUTER_FS, INNER_STEPS, HYDROGEN_MASS = 10.0, 3, 4.0
ISOKINETIC_FS, ISOKINETIC_INNER = 20.0, 6
FS_PER_BLOCK = 60.0
SECONDS = 150.0


def settings_of(
    time_step_fs: float,
    inner_steps: int = 0,
    heavy: bool = False,
    thermostat: Thermostat = Thermostat.LANGEVIN,
) -> RunCourse:
    bonded_substeps = math.ceil(time_step_fs / max(1, inner_steps) / 0.5 - 1e-9)
    return RunCourse(
        steps=1000,
        equilibration_steps=0,
        report_interval=1000,
        checkpoint_interval=1000,
        time_step_ps=time_step_fs / 1000,
        temperature=300.0,
        thermostat=thermostat,
        friction_per_ps=10.0 if thermostat is Thermostat.ISOKINETIC else 1.0,
        seed=1,
        bonded_substeps=bonded_substeps,
        inner_steps=inner_steps,
        hydrogen_mass=HYDROGEN_MASS if heavy else None,
    )


def block(
    start: SimulationSystem, settings: RunCourse, model: ForceModel | None, platform: str, threads: int, device: str
) -> Callable[[], object]:
    """A call that runs `FS_PER_BLOCK` femtoseconds of a prepared run."""
    forces = run_forces(start, settings, model, device=device)
    context = make_context(forces.system, settings, platform, threads, model is not None, forces.integrator)
    context.setPositions(start.positions)
    context.setVelocitiesToTemperature(settings.temperature, 1)
    steps = round(FS_PER_BLOCK / (1000 * settings.time_step_ps))

    def run() -> None:
        context.getIntegrator().step(steps)
        context.getState(positions=True)

    for _ in range(2 if model is None else 8):  # TorchScript's first calls are slow
        run()
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--platform", default="auto")
    parser.add_argument("--device", default="cpu", help="where a PythonForce runs the network: cpu or cuda")
    arguments = parser.parse_args()
    platform = choose_platform(arguments.platform)
    torch.set_num_threads(arguments.threads)
    start, model = load_system(SYSTEM), load_model(MODEL)
    where = (platform, arguments.threads, arguments.device)
    inner = ISOKINETIC_FS / ISOKINETIC_INNER
    long = settings_of(ISOKINETIC_FS, ISOKINETIC_INNER, True, Thermostat.ISOKINETIC)
    contenders = {
        "teacher, 2 fs / 0.5 fs": block(start, settings_of(2.0), None, *where),
        f"teacher, 3 fs / 0.5 fs, H of {HYDROGEN_MASS:g} Da": block(start, settings_of(3.0, heavy=True), None, *where),
        f"accelerated, {OUTER_FS:g} / {OUTER_FS / INNER_STEPS:.2g} / 0.5 fs, H of {HYDROGEN_MASS:g} Da": block(
            start, settings_of(OUTER_FS, INNER_STEPS, True), model, *where
        ),
        f"isokinetic, {ISOKINETIC_FS:g} / {inner:.2g} / 0.5 fs, H of {HYDROGEN_MASS:g} Da": block(
            start, long, model, *where
        ),
        "network alone, 2 fs / 0.5 fs": block(start, settings_of(2.0), model, *where),
    }
    medians = interleaved_medians(contenders, 20.0 if arguments.quick else SECONDS)
    teacher = medians[list(medians)[1]]
    table = Table(title=f"{SYSTEM}, {len(start.positions) // 3} molecules, {platform}, {arguments.threads} threads")
    for heading in ("run", "ms per fs", "ns/day", "times the teacher"):
        table.add_column(heading, justify="right")
    rows = {}
    for name, seconds in medians.items():
        rows[name] = {
            "ms_per_fs": 1e3 * seconds / FS_PER_BLOCK,
            "ns_per_day": 86400 * FS_PER_BLOCK * 1e-6 / seconds,
            "speed_up": teacher / seconds,
        }
        table.add_row(name, *(f"{value:.2f}" for value in rows[name].values()))
    Console().print(table)
    save_results("acceleration", {"model": MODEL, "threads": arguments.threads, "rows": rows}, arguments.quick)


if __name__ == "__main__":
    main()
