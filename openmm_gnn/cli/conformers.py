"""`openmm-gnn conformers`: conformations of molecules from real engines, for pretraining."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from openmm_gnn.base.errors import SpecError


class Kind(str, Enum):
    """What the molecules are."""

    PEPTIDES = "peptides"
    PROTEINS = "proteins"
    NUCLEIC_ACIDS = "nucleic-acids"
    MOLECULES = "molecules"


def conformers(
    out: Annotated[Path, typer.Option(help="Directory of the data; given again, the run is resumed or extended.")],
    kind: Annotated[
        Kind, typer.Option(help="peptides or nucleic-acids at random, proteins of --structure, molecules of --smiles.")
    ] = Kind.PEPTIDES,
    molecules: Annotated[
        int | None,
        typer.Option(help="Default: 300; all of --smiles; of proteins, runs over the structures in turn: one of each."),
    ] = None,
    structure: Annotated[
        list[Path] | None, typer.Option(help="PDB or PDBx/mmCIF file of a protein; may be given several times.")
    ] = None,
    smiles: Annotated[
        list[Path] | None, typer.Option(help="File of SMILES, one in a line, a name may follow. Default: drugs.")
    ] = None,
    force_field: Annotated[
        str | None, typer.Option(help="amber14 (default) or charmm36; of peptides and proteins.")
    ] = None,
    shortest: Annotated[
        int | None, typer.Option(help="Residues of the shortest, caps not counted. Default: 1.")
    ] = None,
    longest: Annotated[
        int | None, typer.Option(help="Residues of the longest. Default: peptides 8, nucleic acids 6.")
    ] = None,
    temperature: Annotated[
        list[float] | None,
        typer.Option(help="K; may be given several times. Default: 600, 450, 300; proteins 300, 330, 360."),
    ] = None,
    frames: Annotated[int, typer.Option(help="Per molecule and temperature.")] = 3,
    interval: Annotated[float, typer.Option(help="ps between two frames.")] = 1.0,
    time_step: Annotated[float | None, typer.Option(help="fs. Default: 4; molecules 1.")] = None,
    allow_held_out: Annotated[
        bool, typer.Option("--allow-held-out", help="Take proteins that are benchmarks of encoders too.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out, and count, what cannot be read or run.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of sequences, structures and dynamics.")] = 1,
    platform: Annotated[str | None, typer.Option(help="OpenMM platform. Default: CPU.")] = None,
    processes: Annotated[int | None, typer.Option(help="At once. Default: one per core.")] = None,
    progress: Annotated[bool, typer.Option(help="Show a bar with the remaining time.")] = True,
) -> None:
    """Make conformations of molecules, for `openmm-gnn pretrain`: dynamics at several temperatures, with hydrogens.

    Peptides, proteins and nucleic acids run in OpenMM, with amber14 or CHARMM36 and OBC2 implicit solvent; molecules
    from SMILES under MMFF94 of RDKit in vacuum. Alanine dipeptide, chignolin, trp-cage, villin and other benchmarks are
    left out. Killed, it resumes when the same command is given again, with the same frames.
    """
    from openmm_gnn.data.conformers.conformers import make_conformations
    from openmm_gnn.data.conformers.settings import KINDS

    given: dict[str, Any] = {
        "shortest": shortest,
        "longest": longest,
        "temperatures": tuple(temperature) if temperature else None,
        "time_step": time_step,
        "force_field": force_field,
        "platform": platform,
        "allow_held_out": allow_held_out or None,
    }
    settings_of = KINDS[kind.value]
    taken = {field.name for field in dataclasses.fields(settings_of)}
    options = {name: value for name, value in given.items() if value is not None}
    if unknown := sorted(options.keys() - taken):
        raise SpecError(f"{kind.value} have no {unknown[0].replace('_', ' ')}: leave that option out")
    settings = settings_of(frames=frames, interval_ps=interval, seed=seed, **options)
    data = make_conformations(
        out,
        molecules,
        settings,
        processes,
        progress,
        command=shlex.join(["openmm-gnn", *sys.argv[1:]]),
        inputs=[*(structure or []), *(smiles or [])],
        skip_bad=skip_bad,
    )
    typer.echo(f"{data.num_frames} frames of {len(data.molecules)} {kind.value.replace('-', ' ')} in {out}")
    if skipped := data.meta["skipped"]["count"]:
        typer.echo(f"skipped {skipped}, the first one: {data.meta['skipped']['examples'][0]}")
