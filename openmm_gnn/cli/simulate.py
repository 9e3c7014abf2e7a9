"""`openmm-gnn simulate`: molecular dynamics with a network's forces, a system's own, or both in multiple time steps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openmm_gnn.cli.typer_options import parse_numbers
from openmm_gnn.md.simulation_system import Thermostat
from openmm_gnn.runs.settings import BiasMethod


def simulate(
    system: Annotated[
        str,
        typer.Argument(
            help="A named system (argon, amoeba-water, chignolin), a serialised System (.xml), or its directory."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory of the run.")],
    model: Annotated[
        str | None,
        typer.Option(help="A shipped network (gamd-argon), a bundle or a .pt file. Default: the system's own forces."),
    ] = None,
    topology: Annotated[Path | None, typer.Option(help="PDB or PDBx/mmCIF file of a System given as .xml.")] = None,
    molecules: Annotated[int | None, typer.Option(help="Of a named system; its density stays.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="Directory of another run of this system: begin with its last frame.")
    ] = None,
    accelerate: Annotated[
        bool,
        typer.Option(
            "--accelerate", help="Sample the system's own ensemble: the model in short steps, its error corrected."
        ),
    ] = False,
    inner_steps: Annotated[int, typer.Option(help="With --accelerate: the model's steps per time step.")] = 3,
    bonded_substeps: Annotated[
        int | None,
        typer.Option(help="Bonded forces per step of the rest. Default: the system's; accelerated, 0.5 fs each."),
    ] = None,
    hydrogen_mass: Annotated[
        float | None, typer.Option(help="Dalton, taken from their neighbours: longer steps. Default: as it is.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Production steps.")] = 100_000,
    stride: Annotated[int, typer.Option(help="Steps between two frames.")] = 50,
    equilibration: Annotated[
        float | None, typer.Option(help="ps before the first frame, not stored. Default: the system's.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="K. Default: the system's.")] = None,
    thermostat: Annotated[Thermostat | None, typer.Option(help="Default: the system's.")] = None,
    friction: Annotated[float | None, typer.Option(help="1/ps, of the thermostat. Default: the system's.")] = None,
    time_step: Annotated[
        float | None, typer.Option(help="fs. Default: the system's; accelerated, 6: find yours with scan-steps.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of velocities and random forces.")] = 1,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints, what a kill loses at most. Default: 20 frames.")
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="An encoder: store the features of every residue, live, in OUT/features.")
    ] = None,
    features_stride: Annotated[int | None, typer.Option(help="Steps between two of them. Default: --stride.")] = None,
    features_selection: Annotated[
        str | None, typer.Option(help="Atoms that the encoder sees, mdtraj's language. Default: no water, no hydrogen.")
    ] = None,
    features_context: Annotated[
        str,
        typer.Option(
            "--features-context",
            "--context",
            help="whole: one graph of these atoms. window: a graph of each residue and its neighbours in sequence.",
        ),
    ] = "whole",
    features_window: Annotated[
        int | None,
        typer.Option(
            "--features-window", "--window", min=0, help="With --context window: residues on either side. Default: 2."
        ),
    ] = None,
    bias: Annotated[
        str | None,
        typer.Option(help="A learned CV, by `analyze` or shipped (alanine-dipeptide): bias the production along it."),
    ] = None,
    bias_method: Annotated[BiasMethod, typer.Option(help="How the bias is built.")] = BiasMethod.OPES,
    bias_outputs: Annotated[
        str | None, typer.Option(help="Outputs of the CV, counted from 0, such as 0,1. Default: all.")
    ] = None,
    bias_barrier: Annotated[float, typer.Option(help="kJ/mol that opes is to cross.")] = 40.0,
    bias_height: Annotated[float, typer.Option(help="kJ/mol of metad's first hill.")] = 1.0,
    bias_factor: Annotated[
        float | None, typer.Option(help="Default: metad 10; opes the barrier in units of kT.")
    ] = None,
    bias_width: Annotated[
        str | None, typer.Option(help="Of a hill, one number per output. Default: what the CV fluctuates by.")
    ] = None,
    bias_stride: Annotated[int, typer.Option(help="Steps between two hills.")] = 500,
    bias_interval: Annotated[
        int, typer.Option(help="Steps between two evaluations of the bias, 1 to 4; above 1, steep variables heat.")
    ] = 1,
    platform: Annotated[str, typer.Option(help="OpenMM platform; auto: CUDA where it works, else CPU.")] = "auto",
    backend: Annotated[str, typer.Option(help="auto, torchforce or pythonforce.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads. Default: all cores.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint; extends with --steps.")
    ] = False,
    progress: Annotated[bool, typer.Option(help="Show a bar with speed and remaining time.")] = True,
) -> None:
    """Run a system with a network's forces, or its own: trajectory, log and checkpoints in one directory.

    With --accelerate the network takes the place of the expensive forces between two of their evaluations, one per
    time step; the averages and the energies logged are those of the system's own forces.

    With --bias a learned CV is driven over its whole range; OUT/bias has what is needed to weigh the frames, and
    `analyze` does so. The energies logged are without the bias.

    Killed, it goes on where it was when the same command is given with --resume. Should an atom's position or force
    become NaN, the run stops, names step and atom, and saves the last good frame.
    """
    from rich.console import Console

    from openmm_gnn.md.run_settings import ComputeSettings, RunSettings
    from openmm_gnn.md.systems.systems import load_system
    from openmm_gnn.runs.simulate import simulate as run_simulation

    if accelerate and model is None:
        raise typer.BadParameter("give the network that accelerates", param_hint="--model")
    simulation_system = load_system(system, topology, molecules)
    if start is not None:
        from openmm_gnn.runs.directory import starting_from

        simulation_system = starting_from(simulation_system, start)
    settings = RunSettings(
        steps=steps,
        stride=stride,
        checkpoint_every=checkpoint_every,
        equilibration=equilibration,
        temperature=temperature,
        thermostat=thermostat,
        friction=friction,
        time_step=time_step,
        seed=seed,
        accelerate=accelerate,
        inner_steps=inner_steps,
        bonded_substeps=bonded_substeps,
        hydrogen_mass=hydrogen_mass,
    )
    network = None
    if model is not None:
        from openmm_gnn.networks.weights import load_model

        network = load_model(model)
    live = None
    if features is not None:
        from openmm_gnn.features.graph_context import Context
        from openmm_gnn.runs.settings import FeatureSettings

        live = FeatureSettings(
            features,
            features_stride,
            features_selection,
            context=Context(features_context),
            window=features_window,
        )
    bias_settings = None
    if bias is not None:
        from openmm_gnn.runs.settings import BiasSettings

        bias_settings = BiasSettings(
            method=bias_method,
            outputs=None if bias_outputs is None else tuple(map(int, parse_numbers(bias_outputs, "--bias-outputs"))),
            stride=bias_stride,
            height=bias_height,
            barrier=bias_barrier,
            factor=bias_factor,
            width=None if bias_width is None else tuple(parse_numbers(bias_width, "--bias-width")),
            interval=bias_interval,
        )
    console = Console()
    try:
        result = run_simulation(
            simulation_system,
            out,
            settings,
            model=network,
            forces_name=Path(model).stem if model else "",
            compute=ComputeSettings(platform, backend, threads),
            resume=resume,
            console=console if progress else None,
            features=live,
            bias_cv=bias,
            bias=bias_settings,
        )
    except KeyboardInterrupt:
        console.print(f"Stopped. The same command with --resume goes on from the last checkpoint in {out}.")
        raise typer.Exit(130) from None
    speed = f", {result.ns_per_day:.1f} ns/day" if result.ns_per_day else ""
    console.print(f"{result.num_frames} frames in {result.directory.trajectory}{speed}")
