"""What live features cost a simulation on a GPU: ns/day of solvated villin with and without the reporter, in turn.

8,867 atoms with water and ions, from OpenMM's own files, PME, 4 fs, hydrogens of 1.5 Da, one report per ps, on OpenMM's
CUDA platform; the worker makes the features on the same GPU.

    python benchmarks/gpu/run.py live_features [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from device import Rows, require_gpu
from openmm_here import require_cuda_platform
from rich.console import Console
from rich.table import Table

require_gpu()
require_cuda_platform()

import openmm  # noqa: E402  - its absence is said in words above
from openmm import app  # noqa: E402

from openmm_gnn import EmbeddingReporter, Featurizer  # noqa: E402
from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec  # noqa: E402
from openmm_gnn.networks.encoders.encoder import Encoder  # noqa: E402

STEP_PS = 0.004
SPECS = {
    "peptide-et": None,
    "ET": EncoderSpec(Architecture.TORCHMD_ET, 6, 7.5, noise_scale=0.2),
    "ViSNet": EncoderSpec(Architecture.VISNET, 6, 7.5, noise_scale=0.2),
    "TensorNet": EncoderSpec(Architecture.TENSORNET, 3, 5.0, num_radial=32, noise_scale=0.2),
}
"""The shipped encoder; and geom2vec's shapes with random weights, which change no time."""


def villin() -> app.Simulation:
    pdb = app.PDBFile(str(Path(app.__file__).parent / "data" / "test.pdb"))
    system = app.ForceField("amber14-all.xml", "amber14/tip3pfb.xml").createSystem(
        pdb.topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9, constraints=app.HBonds, hydrogenMass=1.5
    )
    integrator = openmm.LangevinMiddleIntegrator(300, 1.0, STEP_PS)
    simulation = app.Simulation(pdb.topology, system, integrator, openmm.Platform.getPlatformByName("CUDA"))
    simulation.context.setPositions(pdb.positions)
    simulation.minimizeEnergy(maxIterations=100)
    simulation.context.setVelocitiesToTemperature(300, 1)
    simulation.step(2000)
    return simulation


def timed(simulation: app.Simulation, steps: int) -> float:
    """ns/day of so many steps."""
    start = time.perf_counter()
    simulation.step(steps)
    simulation.context.getState(energy=True)  # the device has done them all
    return 86.4 * STEP_PS * steps / (time.perf_counter() - start)


def measure(simulation: app.Simulation, name: str, steps: int, rounds: int) -> dict[str, Any]:
    """Medians of ns/day without and with the reporter, block by block in turn."""
    spec = SPECS[name]
    torch.manual_seed(0)
    encoder: Encoder | str = name if spec is None else Encoder(spec).requires_grad_(False).eval()
    featurizer = Featurizer(encoder, simulation.topology, device="cuda")
    bare: list[float] = []
    live: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddingReporter(f"{folder}/store", round(1 / STEP_PS), featurizer, worker="thread") as reporter,
    ):
        blocks: tuple[tuple[list[float], Callable[[], None]], ...] = (
            (bare, simulation.reporters.clear),
            (live, lambda: simulation.reporters.append(reporter)),
        )
        for _ in range(rounds + 1):
            for speeds, prepare in blocks:
                prepare()
                speeds.append(timed(simulation, steps))
                reporter.flush()
        simulation.reporters.clear()
        waited = reporter.waited
    before, after = statistics.median(bare[1:]), statistics.median(live[1:])
    return {
        "encoder": name,
        "bare_ns_per_day": before,
        "live_ns_per_day": after,
        "slower_percent": 100 * (1 - after / before),
        "waited_s": waited,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    simulation = villin()
    names = list(SPECS)[:1] if quick else list(SPECS)
    kept, shape = Rows("live_features", quick), (2500, 1) if quick else (10_000, 4)
    rows = [kept.measured(name, partial(measure, simulation, name, *shape)) for name in names]
    num_atoms = simulation.system.getNumParticles()
    table = Table(title=f"Villin in water, {num_atoms} atoms, one report per ps, CUDA (target: 3 % slower at most)")
    for heading in ("encoder", "ns/day alone", "with features", "slower by, %"):
        table.add_column(heading, justify="right")
    for entry in rows:
        figures = [f"{entry[key]:.1f}" for key in ("bare_ns_per_day", "live_ns_per_day", "slower_percent")]
        table.add_row(entry["encoder"], *figures)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
