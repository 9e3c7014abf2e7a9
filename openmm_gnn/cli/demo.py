"""`openmm-gnn demo`: argon under a neural network's forces, then peptides with live features, in a few minutes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from openmm_gnn.analysis.compare import Comparison
    from openmm_gnn.md.run_settings import RunSettings
    from openmm_gnn.md.systems.systems import SimulationSystem
    from openmm_gnn.networks.force_model import ForceModel
    from openmm_gnn.runs.simulate import RunResult

MODEL = "gamd-argon"
STRIDE = 50
REFERENCE_STEPS = 50_000
REFERENCE_EQUILIBRATION_PS: float | None = None
"""None: argon's own, 50 ps, in which the fluid condenses."""
NETWORK_EQUILIBRATION_PS = 2.0
PROBE_STEPS = 500
"""The network's speed is measured in these, its run is then extended to fill the time."""
MOST_STEPS, FEWEST_STEPS = 100_000, 5_000
SECONDS_FOR_THE_REST = 60.0
"""To analyse argon, and for the peptides."""


def demo(
    out: Annotated[Path, typer.Option(help="Directory of the figure and the two runs.")] = Path("demo-output"),
    minutes: Annotated[float, typer.Option(help="About how long; the network's run is cut to fit.", min=0.0)] = 3.5,
    model: Annotated[str, typer.Option(help="A network for argon: shipped name, bundle or .pt file.")] = MODEL,
    threads: Annotated[int, typer.Option(help="CPU threads; 258 atoms are too few to share among many.")] = 1,
) -> None:
    """See it work: 258 argon atoms under a network's forces beside Lennard-Jones, then peptides with live features.

    The reference run equilibrates the fluid; the network's run starts from its first frame, with velocities of its
    own. Then alanine dipeptide and chignolin run in implicit solvent, and an encoder turns every frame into embeddings
    of their residues. Interrupted, the demo goes on where it was; finished, it starts anew.
    """
    import time

    from rich.console import Console

    from openmm_gnn.analysis.compare import compare
    from openmm_gnn.analysis.comparison_plot import save_comparison
    from openmm_gnn.cli import demo_features
    from openmm_gnn.cli.compare import comparison_table
    from openmm_gnn.md.systems.systems import load_system
    from openmm_gnn.networks.weights import load_model

    console = Console()
    figure = out / "argon.png"
    reference_path, network_path = out / "lennard-jones", out / Path(model).stem
    if figure.exists() and (out / demo_features.FIGURE).exists():
        _remove_own_output(
            (figure, out / demo_features.FIGURE),
            reference_path,
            network_path,
            *(out / name for name in demo_features.LENGTHS_PS),
        )
    started = time.perf_counter()
    network, argon = load_model(model), load_system("argon")
    console.print(
        f"[bold]Argon, {len(argon.positions)} atoms, {argon.temperature:g} K.[/bold] "
        "First under Lennard-Jones forces, then under the network's."
    )
    reference = _run_reference(argon, reference_path, threads, console)
    start = _with_first_frame(argon, reference)
    seconds_left = 60 * minutes - (time.perf_counter() - started) - SECONDS_FOR_THE_REST
    result = _run_network(start, network, Path(model).stem, network_path, seconds_left, threads, console)
    with console.status("measuring g(r) and diffusion"):
        comparison = compare(network_path, reference_path)
        save_comparison(comparison, figure)
    console.print(comparison_table(comparison))
    console.print(_what_you_see(comparison, result))
    console.print("[bold]Two peptides in implicit solvent, embedded while they move.[/bold]")
    features = demo_features.show_live_features(out, threads, console)
    console.print(f"[bold]Figures: {figure}, {features}[/bold]")


def _run_reference(argon: SimulationSystem, path: Path, threads: int, console: Console) -> RunResult:
    from openmm_gnn.md.run_settings import ComputeSettings, RunSettings
    from openmm_gnn.runs.simulate import simulate

    settings = RunSettings(steps=REFERENCE_STEPS, stride=STRIDE, equilibration=REFERENCE_EQUILIBRATION_PS)
    compute = ComputeSettings(threads=threads)
    return simulate(argon, path, settings, None, "Lennard-Jones", compute, resume=True, console=console)


def _run_network(
    start: SimulationSystem,
    network: ForceModel,
    name: str,
    path: Path,
    seconds: float,
    threads: int,
    console: Console,
) -> RunResult:
    """Probe the speed, then run as many steps as fit into the time; a run that was interrupted keeps its length."""
    import math
    from dataclasses import replace

    from openmm_gnn.md.run_settings import ComputeSettings, RunSettings
    from openmm_gnn.runs.directory import RunDirectory
    from openmm_gnn.runs.simulate import simulate

    def run(settings: RunSettings) -> RunResult:
        compute = ComputeSettings(threads=threads)
        return simulate(start, path, settings, network, name, compute, resume=True, console=console)

    probe = RunSettings(
        steps=PROBE_STEPS,
        stride=STRIDE,
        checkpoint_every=10 * STRIDE,
        equilibration=NETWORK_EQUILIBRATION_PS,
        seed=2,
    )
    stored = RunDirectory(path)
    if stored.exists and stored.settings().steps > PROBE_STEPS:
        return run(replace(probe, steps=stored.settings().steps))
    speed_ns_per_day = run(probe).ns_per_day
    steps_per_second = speed_ns_per_day * 1000 / start.time_step_ps / 86_400
    affordable = math.floor(max(seconds, 0.0) * steps_per_second / STRIDE) * STRIDE
    return run(replace(probe, steps=min(MOST_STEPS, max(FEWEST_STEPS, affordable))))


def _with_first_frame(argon: SimulationSystem, reference: RunResult) -> SimulationSystem:
    from dataclasses import replace

    positions, _ = reference.directory.read_positions()
    return replace(argon, positions=positions[0])


def _remove_own_output(figures: tuple[Path, ...], *runs: Path) -> None:
    """A finished demo's figures and runs; nothing that the demo did not write."""
    import shutil

    from openmm_gnn.runs.directory import RunDirectory

    for figure in figures:
        figure.unlink()
    for path in runs:
        if RunDirectory(path).exists:
            shutil.rmtree(path)


def _what_you_see(comparison: Comparison, result: RunResult) -> str:
    temperature, diffusion = comparison.temperature_ratio, comparison.diffusion_ratio
    return (
        f"What you see: {comparison.run.num_atoms} argon atoms moved for {comparison.run.simulated_ps:.0f} ps under "
        f"forces that the network {comparison.run.label} predicted inside OpenMM ({result.ns_per_day:.1f} ns/day). "
        f"Beside Lennard-Jones, g(r) differs by {comparison.largest_difference.format(3)} at most, "
        f"the mean temperature by {100 * abs(temperature.value - 1):.1f} %, "
        f"and diffusion is {diffusion.format()} times as fast; ± is the noise of runs this short."
    )
