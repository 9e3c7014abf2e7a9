"""`openmm-gnn import-conformers`: public sets of molecules as pretraining data."""

from __future__ import annotations

import shlex
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Set(str, Enum):
    """Of which layout the files are."""

    ORBNET_DENALI = "orbnet-denali"
    PCQM4MV2 = "pcqm4mv2"


def import_conformers(
    set: Annotated[Set, typer.Argument(help="Which set it is.")],
    source: Annotated[
        Path,
        typer.Argument(
            help="orbnet_denali.tar.gz or the folder with its xyz_files; pcqm4m-v2-train.sdf.tar.gz or the .sdf in it."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory of the data, for `pretrain`; given again, it goes on.")],
    limit: Annotated[int | None, typer.Option(help="So many molecules at most. Default: all.")] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out, and count, molecules that cannot be read.")
    ] = False,
    progress: Annotated[bool, typer.Option(help="Count the molecules on the screen.")] = True,
) -> None:
    """Read OrbNet Denali or PCQM4Mv2 as they are downloaded, without unpacking them, into data for `pretrain`.

    The file is read once from its beginning to its end, molecule after molecule. Killed, the command passes over what
    it has when it is given again.
    """
    from openmm_gnn.data.conformers.import_conformers import import_conformers as run
    from openmm_gnn.data.conformers.published_sets import PublishedSet

    command = shlex.join(["openmm-gnn", *sys.argv[1:]])
    data = run(PublishedSet(set.value), source, out, limit, skip_bad, progress, command)
    typer.echo(f"{data.num_frames} frames of {len(data.molecules)} molecules in {out}")
    if skipped := data.meta["skipped"]["count"]:
        typer.echo(f"skipped {skipped}, the first one: {data.meta['skipped']['examples'][0]}")
