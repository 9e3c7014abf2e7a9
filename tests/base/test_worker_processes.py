"""Errors of worker processes reach the user as those of the command itself do."""

from __future__ import annotations

import pytest

from openmm_gnn.base.errors import NonFiniteError, OpenMMGNNError, SpecError
from openmm_gnn.base.worker_processes import Work, python_command, run_workers

SERVE = "from openmm_gnn.base.worker_processes import serve\n"


def run(code: str) -> None:
    run_workers([Work("one", python_command(f"exec({SERVE + code!r})"), 10, 0)], processes=1, progress=False)


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("serve(lambda report: open('/no/x'))", OpenMMGNNError, "/no/x: No such file or directory: check the path"),
        (
            "from openmm_gnn.base.errors import NonFiniteError\n"
            "def work(report):\n raise NonFiniteError('atom 3 is NaN')\nserve(work)",
            NonFiniteError,
            "atom 3 is NaN",
        ),
        (
            "from openmm_gnn.md.run_settings import RunSettings\nserve(lambda report: RunSettings(steps=0))",
            SpecError,
            "RunSettings.steps is 0: give a whole number, 1 or more",
        ),
        (
            "serve(lambda report: {}['width'])",
            OpenMMGNNError,
            "the process of one failed with exit code 1, its message",
        ),
    ],
)
def test_an_error_of_a_worker_is_raised_in_the_parent(
    code: str, kind: type[Exception], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(kind, match=message):
        run(code)
    assert ("Traceback" in capfd.readouterr().err) is ("width" in code)  # a fault of the program alone shows one
