"""`openmm-gnn validate`: all that a network should be asked before it is trusted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openmm_gnn.cli.typer_options import parse_seeds

if TYPE_CHECKING:
    from rich.table import Table

    from openmm_gnn.analysis.validation import Validation
    from openmm_gnn.data.labels.trajectories import LabelledTrajectories
    from openmm_gnn.networks.force_model import ForceModel

PREFIX = "gamd-"
"""Of shipped names: gamd-argon is validated on argon."""


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
    from dataclasses import replace

    import torch
    from rich.console import Console

    from openmm_gnn.analysis.validation import FULL, QUICK
    from openmm_gnn.analysis.validation import validate as run
    from openmm_gnn.analysis.validation_plot import save_validation
    from openmm_gnn.base.files import write_json
    from openmm_gnn.networks.weights import load_model

    if threads:
        torch.set_num_threads(threads)
    network = load_model(model)
    basis = QUICK if quick else FULL
    settings = replace(
        basis,
        stability_ps=basis.stability_ps if stability is None else stability,
        constant_energy_ps=basis.constant_energy_ps if constant_energy is None else constant_energy,
        sizes=basis.sizes if sizes is None else tuple(_sizes(sizes)),
        seed=seed,
        platform=platform,
        backend=backend,
    )
    console = Console()
    with _Bars(console, progress) as bars:
        source = _source(model, network, data, system, topology, seeds, frames, 2.0 if quick else 20.0, settings, bars)
        validation = run(
            Path(model).stem, network, source.system, source.frames, out, settings, source.part, source.named, bars
        )
    figure = save_validation(validation, out / "validation.png")
    document = {**validation.to_dict(), "settings": {"frames": len(source.frames), **_plain(settings)}}
    write_json(out / "validation.json", document, indent=2)
    console.print(validation_table(validation))
    console.print(f"Figure: {figure}")


def validation_table(validation: Validation) -> Table:
    """The report for the terminal."""
    from rich.table import Table

    from openmm_gnn.analysis.verdicts import FINE, LOOK

    colors = {FINE: "green", LOOK: "yellow"}
    title = f"{validation.model} on {validation.system}, {validation.num_atoms} particles, {validation.temperature:g} K"
    table = Table("quantity", title=title, title_justify="left")
    table.add_column("figure", justify="right")
    table.add_column("verdict")
    table.add_column("what it says", overflow="fold")
    for check in validation.checks:
        color = colors.get(check.verdict, "dim")
        table.add_row(check.name, check.text, f"[{color}]{check.verdict}[/]", check.words)
    return table


class _Source:
    """The teacher, and frames labelled by it."""

    def __init__(self, system: Any, frames: list, part: Any, named: str | None) -> None:
        self.system, self.frames, self.part, self.named = system, frames, part, named


def _source(
    model: str,
    network: ForceModel,
    data: Path | None,
    system: str | None,
    topology: Path | None,
    seeds: str | None,
    count: int,
    equilibration_ps: float,
    settings: Any,
    bars: _Bars,
) -> _Source:
    """Where frames and teacher come from.

    Raises:
        DataError: if neither data nor a system is known, or the data is not of the network's forces.
    """
    from openmm_gnn.analysis.network_dynamics import check_model_knows, learned_forces
    from openmm_gnn.analysis.validation_frames import frames_of_data, frames_of_teacher, system_of
    from openmm_gnn.base.errors import DataError
    from openmm_gnn.data.labels.trajectories import LabelledTrajectories
    from openmm_gnn.learning.training.data_sets import forces_of
    from openmm_gnn.md.systems.named_systems import NAMED_SYSTEMS
    from openmm_gnn.md.systems.systems import load_system

    part = learned_forces(network)
    if data is not None:
        labelled = LabelledTrajectories.open(data)
        if forces_of(labelled) is not part and network.spec.metadata.get("data"):
            raise DataError(
                f"{model} has learned {part.value} forces, {data} is labelled with {forces_of(labelled).value}: "
                f"give data labelled with --forces {part.value}"
            )
        teacher = system_of(labelled)
        check_model_knows(teacher, network)
        chosen = parse_seeds(seeds) if seeds else _seeds_not_trained_on(network, labelled)
        named = system if system in NAMED_SYSTEMS else teacher.name if teacher.name in NAMED_SYSTEMS else None
        return _Source(teacher, frames_of_data(labelled, chosen, count), forces_of(labelled), named)
    if system is None and Path(model).stem.removeprefix(PREFIX) in NAMED_SYSTEMS:
        system = Path(model).stem.removeprefix(PREFIX)
    if system is None:
        raise DataError(f"what {model} stands for is not known: give --system (such as tip3p), or --data")
    teacher = load_system(system, topology)
    check_model_knows(teacher, network)
    drawn = frames_of_teacher(
        teacher, part, count, equilibration_ps, settings.seed, settings.platform, lambda done: bars("teacher", done)
    )
    return _Source(teacher, drawn, part, system if system in NAMED_SYSTEMS else None)


def _seeds_not_trained_on(network: ForceModel, data: LabelledTrajectories) -> list[int]:
    """Seeds of the data that the bundle's metadata does not name as trained on; all of them if it names them all."""
    used: set[int] = set()
    for name in ("train_seeds", "validation_seeds"):
        used |= set(parse_seeds(network.spec.metadata[name])) if name in network.spec.metadata else set()
    return [seed for seed in data.seeds if seed not in used] or data.seeds


def _sizes(text: str) -> list[int]:
    if text == "none":
        return []
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"{text!r} is no list of sizes: give numbers of molecules, such as 258,2094")
    return [int(part) for part in parts]


def _plain(settings: Any) -> dict[str, Any]:
    import dataclasses

    return dataclasses.asdict(settings)


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
