"""What `make test-gpu` runs: no test that needs a GPU is left out, and tools are called by options that they have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from gpu_suite import FOLDERS, SANITIZED, WITHOUT_OPENMM, sanitizer_filters

TESTS = Path(__file__).parent
MARK = re.compile(r"mark\.gpu\b|marks=gpu\b|backend: Backend\b")


def test_every_test_that_needs_a_gpu_lies_in_a_folder_that_is_run() -> None:
    found = {
        path.relative_to(TESTS.parent)
        for path in TESTS.rglob("test_*.py")
        if path != Path(__file__) and MARK.search(path.read_text())
    }
    assert len(found) > 5
    outside = [path for path in found if not any(path.is_relative_to(folder) for folder in FOLDERS)]
    assert not outside, "add their folders to FOLDERS of gpu_suite.py"


def test_files_that_are_named_are_there() -> None:
    for name in (*FOLDERS, *SANITIZED, *(name.removeprefix("--ignore=") for name in WITHOUT_OPENMM)):
        assert (TESTS.parent / name).exists()


@pytest.mark.parametrize(
    ("help_text", "expected"),
    [
        ("  --kernel-name arg   ...\n  --kernel-name-exclude arg", ["--kernel-name", "kns=openmm_gnn"]),
        ("  --kernel-regex arg   ...", ["--kernel-regex", "kns=openmm_gnn"]),
        ("  --kernel-name-exclude arg\n  --report-api-errors arg (=explicit)", ["--report-api-errors", "no"]),
        ("", []),
    ],
)
def test_a_sanitizer_is_given_the_options_it_has(help_text: str, expected: list[str]) -> None:
    assert sanitizer_filters(help_text) == expected
