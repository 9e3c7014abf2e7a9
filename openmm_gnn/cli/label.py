"""`openmm-gnn label`: training data from any OpenMM System."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from openmm_gnn.cli.typer_options import parse_seeds
from openmm_gnn.md.force_parts import LabelledForces
from openmm_gnn.md.simulation_system import Thermostat
from openmm_gnn.md.systems.structure_files import Constraints


def label(
    system: Annotated[
        str,
        typer.Argument(
            help="argon, tip3p, tip4pew, amoeba-water, a serialised OpenMM System (.xml), or a .pdb or .cif."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory of the data; given again, the run is resumed or extended.")],
    topology: Annotated[Path | None, typer.Option(help="PDB or PDBx/mmCIF file of a System given as .xml.")] = None,
    molecules: Annotated[int | None, typer.Option(help="Of a named system; its density stays.")] = None,
    force_field: Annotated[
        list[str] | None,
        typer.Option(help="For a .pdb or .cif: amber14-all.xml or a path; may be given several times."),
    ] = None,
    nonbonded_cutoff: Annotated[float, typer.Option(help="nm, with --force-field and a box.")] = 1.0,
    constraints: Annotated[
        Constraints | None, typer.Option(help="With --force-field. Default: h-bonds, under AMOEBA none.")
    ] = None,
    flexible_water: Annotated[
        bool, typer.Option("--flexible-water", help="With --force-field. Default: as the water model is made.")
    ] = False,
    temperature: Annotated[
        list[float] | None, typer.Option(help="K; may be given several times. Default: the system's.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="One trajectory each and per temperature: 1-10, or 1,2,5-8.")] = "1-10",
    frames: Annotated[int, typer.Option(help="Per trajectory.")] = 1000,
    stride: Annotated[int, typer.Option(help="Steps between two frames.")] = 50,
    equilibration: Annotated[
        float | None, typer.Option(help="ps before the first frame, not stored. Default: the system's.")
    ] = None,
    thermostat: Annotated[Thermostat | None, typer.Option(help="Default: the system's.")] = None,
    friction: Annotated[float | None, typer.Option(help="1/ps, of the thermostat. Default: the system's.")] = None,
    time_step: Annotated[float | None, typer.Option(help="fs. Default: the system's.")] = None,
    forces: Annotated[
        LabelledForces, typer.Option(help="all, or nonbonded: without the bonded terms, for `simulate --accelerate`.")
    ] = LabelledForces.ALL,
    platform: Annotated[str, typer.Option(help="OpenMM platform.")] = "CPU",
    processes: Annotated[int | None, typer.Option(help="Trajectories at once. Default: one per core.")] = None,
    checkpoint_seconds: Annotated[
        float, typer.Option(help="Wall time between two checkpoints: what a kill costs at most.")
    ] = 1.0,
    progress: Annotated[bool, typer.Option(help="Show a bar with the remaining time.")] = True,
) -> None:
    """Run an OpenMM System and store frames labelled with its forces, for training.

    Stores positions, velocities, forces, energies and box of every frame. Forces are those of the potential alone:
    what holds constrained bonds and rigid water together is not among them. Killed, it resumes when the same command is
    given again. Hold out whole trajectories by their seeds when you train.
    """
    from openmm_gnn.data.labels import teacher
    from openmm_gnn.data.labels.settings import LabelSettings
    from openmm_gnn.md.systems.structure_files import ForceFieldSettings
    from openmm_gnn.md.systems.systems import load_system

    data = teacher.label(
        load_system(
            system,
            topology,
            molecules,
            ForceFieldSettings(tuple(force_field or ()), nonbonded_cutoff, constraints, flexible_water),
        ),
        out,
        LabelSettings(
            temperature=tuple(temperature or ()),
            seeds=tuple(parse_seeds(seeds)),
            frames=frames,
            stride=stride,
            equilibration=equilibration,
            thermostat=thermostat,
            friction=friction,
            time_step=time_step,
            forces=forces,
            platform=platform,
            processes=processes,
            checkpoint_seconds=checkpoint_seconds,
        ),
        progress=progress,
        command=shlex.join(["openmm-gnn", *sys.argv[1:]]),
    )
    num_frames = sum(len(trajectory) for trajectory in data.trajectories)
    typer.echo(f"{num_frames} frames of {len(data)} trajectories in {out}")
