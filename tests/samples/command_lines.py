"""Run a command line in this process, and keep what it prints."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from unittest import mock

from openmm_gnn import cli
from openmm_gnn.base.errors import OpenMMGNNError


@dataclass(frozen=True)
class Result:
    """What a command line did."""

    exit_code: int
    stdout: str
    stderr: str
    exception: Exception | None = None
    """The error behind a message on stderr."""

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def invoke(arguments: Sequence[str], env: Mapping[str, str] | None = None) -> Result:
    """Run `openmm-gnn ARGUMENTS`; an error that the command line would put into words is in the result."""
    out, err, exception = io.StringIO(), io.StringIO(), None
    with mock.patch.dict(os.environ, env or {}), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.run(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
        except (OpenMMGNNError, OSError, ImportError) as error:
            exception = error
            message, code = cli.message_of(error, arguments)
            print(message, file=err)
    return Result(code, out.getvalue(), err.getvalue(), exception)
