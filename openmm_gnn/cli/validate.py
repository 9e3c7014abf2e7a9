"""`openmm-gnn validate`: all that a network should be asked before it is trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from openmm_gnn.cli.typer_options import parse_seeds


def validate(
    model: Annotated[str, typer.Argument(help="Shipped name, bundle (.safetensors) or exported module (.pt).")],
    data: Annotated[
        Path | None, typer.Option(help="Directory written by `openmm-gnn label`: frames, teacher and defaults.")
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="The teacher: a named system, a serialised System (.xml), or its directory.")
    ] = None,
    topology: Annotated[Path | None, typer.Option(help="PDB or PDBx/mmCIF file of a System given as .xml.")] = None,
    out: Annotated[Path, typer.Option(help="Directory of validation.png and validation.json.")] = Path("validation"),
    quick: Annotated[bool, typer.Option("--quick", help="Shorter runs and smaller boxes: a few minutes.")] = False,
    stability: Annotated[
        float | None, typer.Option(help="ps of the run with a thermostat, up to 1000. Default: 100; quick: 2.")
    ] = None,
    constant_energy: Annotated[
        float | None, typer.Option(help="ps of the run at constant energy. Default: 10; quick: 1.")
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(help="Molecules per box, such as 258,2094, or none. Default: 258 to 24093; quick: to 2094."),
    ] = None,
    frames: Annotated[int, typer.Option(help="Frames for the checks of single forces.", min=1)] = 4,
    seeds: Annotated[
        str | None, typer.Option(help="Trajectories of the data to take frames from. Default: those not trained on.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of velocities and probes.", min=1)] = 1,
    platform: Annotated[str, typer.Option(help="OpenMM platform; auto: CUDA where it works, else CPU.")] = "auto",
    backend: Annotated[str, typer.Option(help="auto, torchforce or pythonforce.")] = "auto",
    threads: Annotated[int, typer.Option(help="Of PyTorch; 0: all.", min=0)] = 0,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Validate a network: balance of forces, energy drift, temperatures, stability, extrapolation, box sizes.

    Prints a table with a verdict in words beside each figure, draws one figure, and writes both figures as JSON.
    """
    import torch
    from rich.console import Console

    from openmm_gnn.analysis.validation import validate as run
    from openmm_gnn.analysis.validation_plot import validation_table
    from openmm_gnn.analysis.validation_settings import ValidationSettings

    if threads:
        torch.set_num_threads(threads)
    settings = ValidationSettings(
        quick=quick,
        stability_ps=stability,
        constant_energy_ps=constant_energy,
        sizes=None if sizes is None else tuple(_sizes(sizes)),
        frames=frames,
        seeds=tuple(parse_seeds(seeds)) if seeds else (),
        seed=seed,
        platform=platform,
        backend=backend,
    )
    console = Console()
    with _Bars(console, progress) as bars:
        validation = run(model, out, settings, data, system, topology, bars)
    console.print(validation_table(validation))
    console.print(f"Figure: {out / 'validation.png'}")


def _sizes(text: str) -> list[int]:
    if text == "none":
        return []
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"{text!r} is no list of sizes: give numbers of molecules, such as 258,2094")
    return [int(part) for part in parts]


class _Bars:
    """One bar for each thing that is being done; called with its name and the part that is done."""

    def __init__(self, console: Any, shown: bool) -> None:
        from rich.progress import Progress

        self._progress = Progress(console=console, disable=not shown, transient=True)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def __call__(self, what: str, done: float) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=1.0)
        self._progress.update(self._tasks[what], completed=done)
