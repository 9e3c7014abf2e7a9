"""`openmm-gnn bench`: the benchmarks of the source tree on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PACKAGE = Path(__file__).resolve().parents[1]


def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Benchmarks to run. Default: all.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes and few repetitions: does it run?")] = False,
) -> None:
    """Time the kernels and the force step beside their peers, each benchmark in a process of its own."""
    import subprocess
    import sys

    folder = benchmark_folder()
    present = sorted(path.stem for path in folder.glob("[a-z]*.py") if path.stem != "harness")
    for name in names or present:
        if name not in present:
            raise typer.BadParameter(f"there is no benchmark {name!r}: choose among {', '.join(present)}")
    for name in names or present:
        typer.secho(f"== {name}", bold=True)
        command = [sys.executable, str(folder / f"{name}.py"), *(["--quick"] if quick else [])]
        if subprocess.run(command, check=False).returncode != 0:
            typer.secho(f"benchmark {name} failed, its message is above", err=True)
            raise typer.Exit(1)


def benchmark_folder() -> Path:
    """The folder `benchmarks` beside the package.

    Raises:
        OpenMMGNNError: if the package was installed without its source tree.
    """
    from openmm_gnn.base.errors import OpenMMGNNError

    folder = PACKAGE.parent / "benchmarks"
    if not folder.is_dir():
        raise OpenMMGNNError(
            f"there are no benchmarks at {folder}: they are part of the source tree; clone it and call `make bench`"
        )
    return folder
