"""The command `openmm-gnn`: a file per command, whose dataclass is its options; see `options.py`.

Only the asked command's file is imported, and nothing heavy at its top: `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence

import tyro

from openmm_gnn.base.errors import in_words, is_of_input, words_of_warnings
from openmm_gnn.base.files import plain
from openmm_gnn.cli.options import CONFIG, REGISTRY, Command, RunCommand, UsageError, parse
from openmm_gnn.cli.settings_file import keep_settings, read_settings, texts_of, with_file

COMMANDS = {
    "doctor": "Say what works on this machine, and what to install where it does not.",
    "demo": "Run argon under a network's forces, then peptides with live features, in a few minutes.",
    "label": "Run any OpenMM System and store frames with its forces, to train on.",
    "import-labels": "Read frames with forces from other programs, to train on.",
    "distill": "Make a network that accelerates an expensive System, from the System alone.",
    "train": "Train a network on the forces of labelled trajectories.",
    "evaluate": "Measure the force errors of a network on trajectories that it has not seen.",
    "export": "Write a network as a TorchScript file for other programs.",
    "scan-steps": "Find the longest stable time step of an accelerated run.",
    "simulate": "Run a system under a network's forces, its own, or both in multiple time steps.",
    "compare": "Compare a run with its reference: structure, temperatures, diffusion.",
    "validate": "Test a network: balance of forces, energy drift, stability, extrapolation, box sizes.",
    "featurize": "Compute the features of trajectories that exist already.",
    "tail": "Watch the live features of a run: how far, how fast, how healthy.",
    "analyze": "Find slow variables, states and kinetics of runs, with figures and a report.",
    "export-features": "Write stored features for torch, HDF5, zarr or numpy.",
    "conformers": "Make conformations of molecules, to pretrain an encoder on.",
    "import-conformers": "Read public sets of molecules, to pretrain an encoder on.",
    "pretrain": "Pretrain an encoder by denoising conformations.",
    "regress": "Learn a property of molecules or atoms on a pretrained encoder.",
    "predict": "Predict a learned property of new structures.",
}
"""Every command in the order of the work, and what it does."""
DEBUG_VARIABLE = "OPENMM_GNN_DEBUG"
BROUGHT_BY = {"lightning": "lightning tensorboard", "dask": "distributed", "metatensor": "metatomic-torch"}
"""What brings a module that only some commands need, where it is not called as the module."""
FAULT = 70
"""Exit code of a fault of this program."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    An error of the input is one message on stderr, and code 1; a command line that is not understood, code 2. A fault
    of this program shows its traceback, and code 70. --debug, or OPENMM_GNN_DEBUG=1, shows every traceback.
    """
    # OpenMP threads that spin while they wait take the cores from the ones they wait for, wherever another process is
    # busy: a step of argon then takes 250 ms instead of 15. Must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A command draws into files alone. The backend of a Jupyter kernel, which its shell cells inherit, may not be here.
    os.environ["MPLBACKEND"] = "agg"
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--debug"]:
        os.environ[DEBUG_VARIABLE] = given.pop(0)
    warnings.formatwarning = words_of_warnings()
    try:
        return run(given)
    except (KeyboardInterrupt, Exception) as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        message, code = message_of(error, given)
        if code == FAULT:
            traceback.print_exc()
        print(message, file=sys.stderr)
        return code


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code; errors are raised."""
    name, *rest = arguments or ["--help"]
    if name in ("--help", "-h"):
        _print_commands()
    elif name == "--version":
        _print_version()
    elif name.startswith("--tyro-"):
        complete(arguments)
    else:
        settings = read_settings(rest)
        kind = command_of(name, [*texts_of(settings), *rest])
        return execute(name, parse(name, kind, with_file(kind, settings, rest)))
    return 0


def execute(name: str, command: Command) -> int:
    """Run a command, print its result and return its exit code; what it prints on its way is no result."""
    from rich.console import Console

    if threads := getattr(command, "threads", None):
        import torch

        torch.set_num_threads(threads)
    with open(os.devnull, "w") as nowhere:
        on_the_way = nowhere if command.quiet else sys.stderr if command.json else sys.stdout
        with contextlib.redirect_stdout(on_the_way):
            try:
                result = command.run()
            finally:  # an error may be that the directory is another's
                if isinstance(command, RunCommand) and sys.exc_info()[0] in (None, KeyboardInterrupt):
                    keep_settings(name, command)
    if result is None:
        return 0
    if command.json:
        print(json.dumps(plain(result.values), indent=2))
        return result.code
    terminal = Console()
    for part in result.said:
        print(part) if isinstance(part, str) else terminal.print(part)
    if not command.quiet:
        print(f"Next: {result.next}")
    return result.code


def complete(arguments: Sequence[str]) -> None:
    """Print or write the completion of all commands for a shell, by tyro."""
    kinds: dict[str, Callable[..., Command]] = {name: command_of(name) for name in COMMANDS}
    tyro.extras.subcommand_cli_from_dict(kinds, prog="openmm-gnn", args=arguments, config=CONFIG, registry=REGISTRY)


def message_of(error: BaseException, arguments: Sequence[str]) -> tuple[str, int]:
    """What a user reads of an error, and the exit code."""
    name, *rest = arguments or ["--help"]
    if isinstance(error, KeyboardInterrupt):
        return f"Stopped. {command_of(name, rest).after_stop}", 130
    if isinstance(error, UsageError):
        return f"Error: {error}" + (f" (see openmm-gnn {name} --help)" if name in COMMANDS else ""), 2
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"Error: {error}: install it with `pip install {BROUGHT_BY.get(error.name, error.name)}`", 1
    if is_of_input(error):
        return f"Error: {in_words(error)}", 1
    where = "where you got openmm-gnn from, with these lines, your command and what `openmm-gnn doctor --json` prints"
    return f"This is a fault of openmm-gnn, not of your input: please report it {where}", FAULT


def command_of(name: str, arguments: Sequence[str] = ()) -> type[Command]:
    """The dataclass of a command.

    Raises:
        UsageError: if there is no such command.
    """
    if name not in COMMANDS:
        raise UsageError(f"there is no command {name}: give one of {', '.join(COMMANDS)}")
    module = importlib.import_module(f"openmm_gnn.cli.{name.replace('-', '_')}")
    return getattr(module, name.title().replace("-", "")).variant(arguments)


def _print_commands() -> None:
    print("Usage: openmm-gnn [--debug] COMMAND [arguments and options]\n")
    print("Graph neural networks as forces and live features of OpenMM.\n")
    for name, what in COMMANDS.items():
        print(f"  {name:<18} {what}")
    print("\n`openmm-gnn COMMAND --help` shows the options of a command, `openmm-gnn --version` the version;")
    print("--debug, or OPENMM_GNN_DEBUG=1, shows the traceback of an error.")
    print('`eval "$(openmm-gnn --tyro-print-completion bash)"` completes commands and options; zsh and tcsh as well.')


def _print_version() -> None:
    from importlib.metadata import version

    print(f"openmm-gnn {version('openmm-gnn')}")
