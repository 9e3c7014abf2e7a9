"""What live features cost a simulation: steps per second of a protein with and without the reporter, in turn.

Villin headpiece (582 atoms, from OpenMM's own files) in implicit solvent, one report per ps. The simulation has one
thread; the worker makes the features on another core, if there is one.

    python benchmarks/live_features.py [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import openmm
import torch
from harness import save_results
from openmm import app
from rich.console import Console
from rich.table import Table

from openmm_gnn import EmbeddingReporter, Featurizer
from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec
from openmm_gnn.md.implicit_solvent import in_implicit_solvent
from openmm_gnn.networks.encoders.encoder import Encoder

STEP_PS = 0.004
SPECS = {
    "peptide-et": None,
    "ET": EncoderSpec(Architecture.TORCHMD_ET, 6, 7.5, noise_scale=0.2),
    "ViSNet": EncoderSpec(Architecture.VISNET, 6, 7.5, noise_scale=0.2),
    "TensorNet": EncoderSpec(Architecture.TENSORNET, 3, 5.0, num_radial=32, noise_scale=0.2),
}
"""The shipped encoder; and geom2vec's shapes with random weights, which change no time."""


def villin() -> app.Simulation:
    """The protein without its water, at rest after a short run."""
    pdb = app.PDBFile(str(Path(app.__file__).parent / "data" / "test.pdb"))
    modeller = app.Modeller(pdb.topology, pdb.positions)
    modeller.delete([residue for residue in pdb.topology.residues() if residue.name in ("HOH", "Cl")])
    modeller.topology.setPeriodicBoxVectors(None)
    simulation = app.Simulation(
        *(modeller.topology, in_implicit_solvent(modeller.topology)),
        openmm.LangevinMiddleIntegrator(300, 1.0, STEP_PS),
        openmm.Platform.getPlatformByName("CPU"),
        {"Threads": "1"},
    )
    simulation.context.setPositions(modeller.positions)
    simulation.minimizeEnergy(maxIterations=50)
    simulation.context.setVelocitiesToTemperature(300, 1)
    simulation.step(200)
    return simulation


def timed(simulation: app.Simulation, steps: int) -> float:
    """ns/day of so many steps."""
    start = time.perf_counter()
    simulation.step(steps)
    return 86.4 * STEP_PS * steps / (time.perf_counter() - start)


def encoder_of(name: str) -> Encoder | str:
    spec = SPECS[name]
    if spec is None:
        return name
    torch.manual_seed(0)
    return Encoder(spec).requires_grad_(False).eval()


def measure(simulation: app.Simulation, name: str, worker: str | None, steps: int, rounds: int) -> dict[str, float]:
    """Medians of ns/day without and with the reporter, block by block in turn, and how long the simulation waited."""
    featurizer = Featurizer(encoder_of(name), simulation.topology)
    bare: list[float] = []
    live: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddingReporter(f"{folder}/store", round(1 / STEP_PS), featurizer, worker=worker) as reporter,
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
    return {
        "bare_ns_per_day": statistics.median(bare[1:]),
        "live_ns_per_day": statistics.median(live[1:]),
        "waited_s": waited,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    simulation, rows = villin(), []
    num_atoms = simulation.system.getNumParticles()
    table = Table(title=f"Villin in implicit solvent, {num_atoms} atoms, one report per ps, CPU platform, 1 thread")
    for heading in ("encoder", "worker", "ns/day alone", "with features", "slower by, %"):
        table.add_column(heading, justify="left" if heading in ("encoder", "worker") else "right")
    for name in SPECS:
        for worker in ("thread", None):
            if name != "peptide-et" and (quick or worker is None):
                continue
            found = measure(simulation, name, worker, 250, 1 if quick else 4)
            loss = 100 * (1 - found["live_ns_per_day"] / found["bare_ns_per_day"])
            rows.append({"encoder": name, "worker": worker, **found, "slower_percent": loss})
            bare, live = f"{found['bare_ns_per_day']:.1f}", f"{found['live_ns_per_day']:.1f}"
            table.add_row(name, worker or "none: it waits", bare, live, f"{loss:.1f}")
    Console().print(table)
    save_results("live_features", rows, quick)


if __name__ == "__main__":
    main()
