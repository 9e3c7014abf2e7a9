"""`openmm-gnn conformers`: conformations of random peptides, for pretraining."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer


def conformers(
    out: Annotated[Path, typer.Option(help="Directory of the data; given again, the run is resumed or extended.")],
    molecules: Annotated[int, typer.Option(help="Peptides, each with another sequence.")] = 300,
    shortest: Annotated[int, typer.Option(help="Residues of the shortest, caps not counted.")] = 1,
    longest: Annotated[int, typer.Option(help="Residues of the longest.")] = 8,
    temperature: Annotated[
        list[float] | None, typer.Option(help="K; may be given several times, hot first. Default: 600, 450, 300.")
    ] = None,
    frames: Annotated[int, typer.Option(help="Per peptide and temperature.")] = 3,
    interval: Annotated[float, typer.Option(help="ps between two frames.")] = 1.0,
    time_step: Annotated[float, typer.Option(help="fs.")] = 4.0,
    seed: Annotated[int, typer.Option(help="Of sequences, structures and dynamics.")] = 1,
    platform: Annotated[str, typer.Option(help="OpenMM platform.")] = "CPU",
    processes: Annotated[int | None, typer.Option(help="At once. Default: one per core.")] = None,
    progress: Annotated[bool, typer.Option(help="Show a bar with the remaining time.")] = True,
) -> None:
    """Make conformations of random peptides with OpenMM (amber14, OBC2 implicit solvent), for `openmm-gnn pretrain`.

    All 20 amino acids, with and without caps. Alanine dipeptide, chignolin, trp-cage, villin and other benchmarks are
    left out. Killed, it resumes when the same command is given again, with the same frames.
    """
    from openmm_gnn.pretraining.conformers import make_conformations
    from openmm_gnn.pretraining.peptide_conformers import PeptideSettings

    settings = PeptideSettings(
        shortest=shortest,
        longest=longest,
        temperatures=tuple(temperature or PeptideSettings.temperatures),
        frames=frames,
        interval_ps=interval,
        time_step_ps=time_step / 1000,
        seed=seed,
        platform=platform,
    )
    data = make_conformations(
        out, molecules, settings, processes, progress, command=shlex.join(["openmm-gnn", *sys.argv[1:]])
    )
    typer.echo(f"{data.num_frames} frames of {len(data.molecules)} peptides in {out}")
