"""The command `openmm-gnn`: one file per command, in the order of the work.

A command's file imports nothing heavy at its top, so `openmm-gnn --help` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys

import typer

from openmm_gnn.base.errors import OpenMMGNNError

COMMANDS = (
    *("doctor", "demo", "label", "import-labels", "train", "evaluate", "export"),
    *("scan-steps", "simulate", "compare", "validate"),
    *("featurize", "tail", "analyze", "export-features", "conformers", "import-conformers", "pretrain"),
    *("regress", "predict"),
)
DEBUG_VARIABLE = "OPENMM_GNN_DEBUG"
EXTRA_OF = {
    **{"rdkit": "molecules", "ase": "molecules", "lightning": "train", "deeptime": "analysis"},
    **{"dask": "cluster", "distributed": "cluster"},
}
"""Packages that only some commands need, and the extra that installs them."""

app = typer.Typer(
    name="openmm-gnn",
    help="Graph neural networks as forces and live features of OpenMM: label, train, simulate, compare, featurize.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _name in COMMANDS:
    _function = _name.replace("-", "_")
    app.command(_name)(getattr(importlib.import_module(f"openmm_gnn.cli.{_function}"), _function))


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"openmm-gnn {version('openmm-gnn')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: bool = typer.Option(False, "--debug", envvar=DEBUG_VARIABLE, help="Show the traceback of an error."),
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


def main() -> None:
    """Run the command line. An expected error is one message on stderr and exit code 1; --debug shows the traceback."""
    # OpenMP threads that spin while they wait take the cores from the ones they wait for, wherever another process is
    # busy: a step of argon then takes 250 ms instead of 15. Must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except (OpenMMGNNError, OSError, ImportError) as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        typer.secho("Error: ", fg=typer.colors.RED, bold=True, err=True, nl=False)
        typer.echo(_in_words(error), err=True)
        sys.exit(1)


def _in_words(error: BaseException) -> str:
    if isinstance(error, ImportError) and error.name in EXTRA_OF:
        return f"{error}: install it with `pip install 'openmm-gnn[{EXTRA_OF[error.name]}]'`"
    return str(error)
