"""`openmm-gnn import-labels`: training data from files that come from elsewhere."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from openmm_gnn.md.force_parts import LabelledForces


def import_labels(
    files: Annotated[
        list[Path], typer.Argument(help="Extended XYZ (.xyz, .extxyz; eV, angstrom) or processed RPBE water (.npz).")
    ],
    out: Annotated[Path, typer.Option(help="New directory, for `train` and `evaluate`.")],
    topology: Annotated[
        Path | None, typer.Option(help="PDB or PDBx/mmCIF file with the bonds. Default: no bonds.")
    ] = None,
    blocks: Annotated[
        int | None,
        typer.Option(help="Cut each file into so many blocks of consecutive frames. Default: 1, a single file 10."),
    ] = None,
    gap: Annotated[int, typer.Option(help="Frames left out between two blocks.")] = 0,
    published_split: Annotated[
        bool, typer.Option("--published-split", help="Seed 1: the file's training frames, seed 2: its test frames.")
    ] = False,
    force_key: Annotated[str | None, typer.Option(help="Name of the forces in extended XYZ.")] = None,
    energy_key: Annotated[str | None, typer.Option(help="Name of the energy in extended XYZ.")] = None,
    forces: Annotated[
        LabelledForces, typer.Option(help="What the forces are: all, or nonbonded, as in `label`.")
    ] = LabelledForces.ALL,
) -> None:
    """Read labelled frames from other programs: any box, number and kinds of atoms, frame by frame.

    Every file is taken for one trajectory. Each block of it counts as a seed, numbered from 1 through all files in
    their order: `train --train-seeds 1-8 --validation-seeds 9` trains on the first eight and holds out the others.
    """
    from openmm_gnn.data.labels import imported_labels
    from openmm_gnn.data.labels.external_labels import read_external
    from openmm_gnn.md.systems.structure_files import read_structure

    structure = None if topology is None else read_structure(topology)[0]
    data = imported_labels.import_labels(
        [read_external(path, force_key, energy_key) for path in files],
        out,
        blocks=blocks,
        gap=gap,
        published_split=published_split,
        topology=structure,
        topology_name=None if topology is None else topology.name,
        forces=forces,
        command=shlex.join(["openmm-gnn", *sys.argv[1:]]),
    )
    kinds = f"{len(data.compositions)} composition{'s' if len(data.compositions) > 1 else ''}"
    typer.echo(f"{len(data.frames)} frames of {kinds} in {out}, seeds {data.seeds[0]}-{data.seeds[-1]}:")
    for entry in data.meta["seeds"]:
        typer.echo(f"  {entry['seed']}: {entry['num_frames']} frames of {entry['file']}")
