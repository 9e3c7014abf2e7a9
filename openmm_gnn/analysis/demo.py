"""The demonstration: argon under a neural network's forces, then peptides with live features, in a few minutes."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from openmm_gnn.analysis.compare import Comparison, compare, comparison_table, save_comparison
from openmm_gnn.base.errors import DataError
from openmm_gnn.base.figures import figure_file, terminal_table
from openmm_gnn.md.run_settings import ComputeSettings, RunSettings
from openmm_gnn.md.simulation_system import SimulationSystem
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.networks.force_model import ForceModel
from openmm_gnn.networks.weights import load_model
from openmm_gnn.reporters.embedding_store import EmbeddingStore
from openmm_gnn.reporters.store_meta import FEATURES_FOLDER
from openmm_gnn.runs.directory import RunDirectory
from openmm_gnn.runs.settings import FeatureSettings
from openmm_gnn.runs.simulate import RunResult, simulate

STRIDE = 50
REFERENCE_STEPS = 50_000
REFERENCE_EQUILIBRATION_PS: float | None = None
"""None: argon's own, 50 ps, in which the fluid condenses."""
NETWORK_EQUILIBRATION_PS = 2.0
PROBE_STEPS = 500
"""The network's speed is measured in these, its run is then extended to fill the time."""
MOST_STEPS, FEWEST_STEPS = 100_000, 5_000
SECONDS_FOR_THE_REST = 60.0
"""Time to analyse argon, and for the peptides."""
ENCODER = "biomolecule-et"
LENGTHS_PS = {"alanine-dipeptide": 100.0, "chignolin": 20.0}
FRAMES = 100
FEATURES_FIGURE = "features.png"
MOST_LABELS = 24


def show(out: Path, minutes: float, model: str, threads: int, progress: bool = True) -> tuple[Comparison, list[Path]]:
    """Run argon and the peptides, print what was measured, and draw it; what was interrupted goes on.

    Args:
        out: directory of the figures and runs.
        minutes: about how long; the network's run is cut to fit.
        model: a network for argon, for `load_model`.
        threads: CPU threads.
    Returns:
        The network's run beside the reference, and the figures.
    """
    console = Console()
    figure = out / "argon.png"
    reference_path, network_path = out / "lennard-jones", out / Path(model).stem
    if figure.exists() and (out / FEATURES_FIGURE).exists():
        # A finished demo begins anew; nothing goes that it did not write.
        for file in (figure, out / FEATURES_FIGURE):
            file.unlink()
        for path in (reference_path, network_path, *(out / name for name in LENGTHS_PS)):
            if RunDirectory(path).exists:
                shutil.rmtree(path)
    started = time.perf_counter()
    network, argon = load_model(model), load_system("argon")
    console.print(
        f"[bold]Argon, {len(argon.positions)} atoms, {argon.temperature:g} K.[/bold] "
        "First under Lennard-Jones forces, then under the network's."
    )
    settings = RunSettings(steps=REFERENCE_STEPS, stride=STRIDE, equilibration=REFERENCE_EQUILIBRATION_PS)
    compute = ComputeSettings(threads=threads)
    reference = simulate(argon, reference_path, settings, None, "Lennard-Jones", compute, progress=progress)
    start = replace(argon, positions=reference.directory.read_positions()[0][0])
    seconds_left = 60 * minutes - (time.perf_counter() - started) - SECONDS_FOR_THE_REST
    result = _run_network(start, network, Path(model).stem, network_path, seconds_left, threads, progress)
    with console.status("measuring g(r) and diffusion"):
        comparison = compare(network_path, reference_path)
        save_comparison(comparison, figure)
    console.print(comparison_table(comparison))
    console.print(_what_you_see(comparison, result))
    console.print("[bold]Two peptides in implicit solvent, embedded while they move.[/bold]")
    stores = {
        name: _run_peptide(name, length_ps, out / name, threads, progress) for name, length_ps in LENGTHS_PS.items()
    }
    console.print(_store_table(stores))
    features = save_movement(stores, out / FEATURES_FIGURE)
    return comparison, [figure, features]


def _run_network(
    start: SimulationSystem, network: ForceModel, name: str, path: Path, seconds: float, threads: int, progress: bool
) -> RunResult:
    """Probe the speed, then run as many steps as fit into the time; a run that was interrupted keeps its length."""

    def run(settings: RunSettings) -> RunResult:
        compute = ComputeSettings(threads=threads)
        return simulate(start, path, settings, network, name, compute, progress=progress)

    probe = RunSettings(
        steps=PROBE_STEPS, stride=STRIDE, checkpoint_every=10 * STRIDE, equilibration=NETWORK_EQUILIBRATION_PS, seed=2
    )
    stored = RunDirectory(path)
    if stored.exists and stored.settings().steps > PROBE_STEPS:
        return run(replace(probe, steps=stored.settings().steps))
    speed_ns_per_day = run(probe).ns_per_day
    steps_per_second = speed_ns_per_day * 1000 / start.time_step_ps / 86_400
    affordable = math.floor(max(seconds, 0.0) * steps_per_second / STRIDE) * STRIDE
    return run(replace(probe, steps=min(MOST_STEPS, max(FEWEST_STEPS, affordable))))


def _what_you_see(comparison: Comparison, result: RunResult) -> str:
    temperature, diffusion = comparison.temperature_ratio, comparison.diffusion_ratio
    return (
        f"What you see: {comparison.run.num_atoms} argon atoms moved for {comparison.run.simulated_ps:.0f} ps under "
        f"forces that the network {comparison.run.label} predicted inside OpenMM ({result.ns_per_day:.1f} ns/day). "
        f"Beside Lennard-Jones, g(r) differs by {comparison.largest_difference.format(3)} at most, "
        f"the mean temperature by {100 * abs(temperature.value - 1):.1f} %, "
        f"and diffusion is {diffusion.format()} times as fast; ± is the noise of runs this short."
    )


def _run_peptide(name: str, length_ps: float, path: Path, threads: int, progress: bool) -> EmbeddingStore:
    peptide = load_system(name)
    stride = max(1, round(length_ps / peptide.time_step_ps / FRAMES))
    settings = RunSettings(steps=stride * FRAMES, stride=stride, equilibration=2.0)
    simulate(
        peptide,
        path,
        settings,
        compute=ComputeSettings("CPU", threads=threads),
        progress=progress,
        features=FeatureSettings(ENCODER),
    )
    return EmbeddingStore.open(path / FEATURES_FOLDER)


def _store_table(stores: dict[str, EmbeddingStore]) -> Table:
    rows = []
    for name, store in stores.items():
        shape, damaged = " x ".join(map(str, store.embeddings.shape[1:])), len(store.verify())
        size = (store.path / "frames.npy").stat().st_size / 1000
        checked = f"{damaged} wrong" if damaged else "right"
        rows.append((name, str(len(store)), shape, f"{store.times_ps[-1]:g}", checked, f"{size:.0f}"))
    title = f"Embeddings of every residue by {ENCODER}, stored while the simulation ran"
    return terminal_table(title, ("system", "frames", "tokens x (1 + 3) x width", "ps", "checksums", "kB"), rows)


def scalar_movement(store: EmbeddingStore) -> np.ndarray:
    """(frames, tokens): the distance of each token's scalars from those of the first frame, over their norm there.

    Scalars do not turn with the molecule, so nothing has to be superimposed.

    Raises:
        DataError: if the store has fewer than two frames.
    """
    if len(store) < 2:
        raise DataError(f"{store.path} has {len(store)} frames: a movement needs two or more")
    scalars = np.asarray(store.embeddings[:, :, 0], dtype=np.float32)
    return np.linalg.norm(scalars - scalars[0], axis=-1) / np.linalg.norm(scalars[0], axis=-1)


def save_movement(stores: Mapping[str, EmbeddingStore], path: Path | str) -> Path:
    """Draw the movement of every token over time, one panel per store, into a PNG (or what the path's ending says).

    Args:
        stores: by the name of their system.
    Raises:
        DataError: if a store has fewer than two frames.
    """
    movements = {name: scalar_movement(store) for name, store in stores.items()}
    heights = [1.2 + 0.22 * min(MOST_LABELS, movement.shape[1]) for movement in movements.values()]
    title = "Live features: how far each residue's embedding has moved"
    with figure_file(path, 9.0, sum(heights) + 0.6, title) as figure:
        panels: Any = figure.subplots(len(stores), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (name, movement) in zip(panels, movements.items(), strict=True):
            times, labels = stores[name].times_ps, stores[name].meta["description"]["tokens"]["labels"]
            image = axes.pcolormesh(times, np.arange(len(labels)), movement.T, shading="nearest", cmap="cividis")
            every = -(-len(labels) // MOST_LABELS)
            axes.set_yticks(range(0, len(labels), every), labels[::every])
            axes.invert_yaxis()
            axes.set(title=f"{name}: {len(times)} frames", xlabel="time (ps)")
            figure.colorbar(image, ax=axes, label="relative change")
    return Path(path)
