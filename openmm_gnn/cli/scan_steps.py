"""`openmm-gnn scan-steps`: which step sizes an accelerated run bears, measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from openmm_gnn.analysis.step_scan import ScanRow


def scan_steps(
    system: Annotated[
        str, typer.Argument(help="A named system (amoeba-water), a serialised System (.xml), or its directory.")
    ],
    model: Annotated[str, typer.Option(help="A shipped network, a bundle or a .pt file.")],
    out: Annotated[Path, typer.Option(help="Directory of the runs, scan.json and scan.png; given again, it goes on.")],
    outer: Annotated[str, typer.Option(help="Outer steps in fs: one evaluation of the system's own forces each.")] = (
        "4,6,8,10"
    ),
    inner: Annotated[str, typer.Option(help="Steps of the network per outer step; several are combined.")] = "3",
    picoseconds: Annotated[float, typer.Option(help="Length of each run, after equilibration.")] = 5.0,
    equilibration: Annotated[float | None, typer.Option(help="ps. Default: the system's.")] = None,
    bonded_substeps: Annotated[int | None, typer.Option(help="Per inner step. Default: 0.5 fs at most.")] = None,
    hydrogen_mass: Annotated[float | None, typer.Option(help="Dalton, in accelerated runs.")] = None,
    temperature: Annotated[float | None, typer.Option(help="K. Default: the system's.")] = None,
    friction: Annotated[float | None, typer.Option(help="1/ps, of Langevin dynamics.")] = None,
    reference: Annotated[bool, typer.Option(help="Run the system's own forces alone, to compare with.")] = True,
    topology: Annotated[Path | None, typer.Option(help="PDB or PDBx/mmCIF file of a System given as .xml.")] = None,
    molecules: Annotated[int | None, typer.Option(help="Of a named system; its density stays.")] = None,
    seed: Annotated[int, typer.Option(help="Of velocities and random forces.")] = 1,
    platform: Annotated[str, typer.Option(help="OpenMM platform; auto: CUDA where it works, else CPU.")] = "auto",
    backend: Annotated[str, typer.Option(help="auto, torchforce or pythonforce.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads. Default: all cores.")] = None,
    progress: Annotated[bool, typer.Option(help="Show a bar for each run.")] = True,
) -> None:
    """Try step sizes of `simulate --accelerate`: a short run for each, and a table that says which are stable.

    A step is too long where an element is hotter or colder than the thermostat, or the mean potential energy of the
    system's own forces differs from the reference. Longer runs see smaller faults.
    """
    from rich.console import Console

    from openmm_gnn.analysis.scan_plot import save_scan_plot
    from openmm_gnn.analysis.step_scan import ScanSettings, save_scan
    from openmm_gnn.analysis.step_scan import scan_steps as run_scan
    from openmm_gnn.md.run_settings import ComputeSettings
    from openmm_gnn.md.systems.systems import load_system
    from openmm_gnn.networks.weights import load_model

    plan = ScanSettings(
        outer=tuple(_numbers(outer, "--outer")),
        inner=tuple(_whole_numbers(inner, "--inner")),
        picoseconds=picoseconds,
        equilibration=equilibration,
        bonded_substeps=bonded_substeps,
        hydrogen_mass=hydrogen_mass,
        temperature=temperature,
        friction=friction,
        seed=seed,
        reference=reference,
    )
    simulation_system = load_system(system, topology, molecules)
    console = Console()
    rows: list[ScanRow] = []
    try:
        for row in run_scan(
            simulation_system,
            load_model(model),
            out,
            plan,
            ComputeSettings(platform, backend, threads),
            console=console if progress else None,
        ):
            rows.append(row)
            save_scan(rows, out / "scan.json")
            if progress:
                console.print(f"{row.name}: {row.verdict.value}")
    except KeyboardInterrupt:
        console.print(f"Stopped. The same command goes on where it was; rows that are done are in {out / 'scan.json'}.")
        raise typer.Exit(130) from None
    console.print(_table(rows))
    figure = save_scan_plot(rows, f"{simulation_system.name}, accelerated by {Path(model).stem}", out / "scan.png")
    console.print(f"Figure: {figure}")


def _table(rows: list[ScanRow]) -> Table:
    from rich.table import Table

    reference = next((row for row in rows if row.inner_steps == 0), None)
    elements = list(dict.fromkeys(name for row in rows for name in row.temperatures))
    table = Table(title=f"Thermostat {rows[0].target:g} K", title_justify="left")
    table.add_column("run")
    for name in ("outer / inner / bonded (fs)", *(f"T({element}) (K)" for element in elements)):
        table.add_column(name, justify="right")
    for name in ("potential (kJ/mol)", "less reference", "ns/day"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for row in rows:
        inner = row.time_step_fs / max(1, row.inner_steps)
        steps = [f"{row.time_step_fs:.3g}", f"{inner:.3g}" if row.inner_steps else "-"]
        steps.append(f"{inner / row.bonded_substeps:.3g}")
        shift = row.energy_shift(reference) if row is not reference else None
        table.add_row(
            row.name,
            " / ".join(steps),
            *(row.temperatures[name].format(1) if name in row.temperatures else "-" for name in elements),
            "-" if row.potential is None else row.potential.format(1),
            "-" if shift is None else shift.format(1),
            f"{row.ns_per_day:.3g}" if row.ns_per_day else "-",
            row.verdict.value,
        )
    return table


def _numbers(text: str, option: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no list of numbers such as 4,6,8", param_hint=option) from error


def _whole_numbers(text: str, option: str) -> list[int]:
    numbers = _numbers(text, option)
    if any(number != int(number) for number in numbers):
        raise typer.BadParameter(f"{text!r} is no list of whole numbers such as 2,3", param_hint=option)
    return [int(number) for number in numbers]
