"""What `make test-gpu` and `make bench-gpu` run: every test that needs a GPU, in phases that can be broken off."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import device
import pytest
from forecasts import FORECASTS, measured, table_of, verdict
from gpu_suite import FILES, ROOT, main, phases, sanitizer_filters, small_tests
from phases import LEAST_SECONDS, Phase, Results, run_phases
from rich.console import Console
from warm_python import run_python

TESTS = Path(__file__).parent
MARK = re.compile(r"mark\.gpu\b|marks=gpu\b|from cuda_backends import .*\bBackend\b")
RUNNER = """
import sys
from pathlib import Path
from phases import LEAST_SECONDS, Phase, Results, end_as_if_interrupted, run_phases
end_as_if_interrupted()
python = [sys.executable, "-I", "-S", "-c"]
first = Phase("first", 60, {"a": [*python, "print('one')"], "b": [*python, "print('two')"]})
second = Phase("second", 60, {"waits": [*python, "import time; print('begun', flush=True); time.sleep(600)"]})
run_phases([first, second], Results(Path(sys.argv[1])), "tests", "library")
"""


def python(program: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", program]  # which starts in a few milliseconds


def test_every_test_that_needs_a_gpu_lies_in_a_file_that_is_run() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in TESTS.rglob("test_*.py")
        if path != Path(__file__) and MARK.search(path.read_text())
    }
    assert found == {file for files in FILES.values() for file in files}


def test_every_phase_fits_a_lease_of_ten_minutes() -> None:
    assert sum(phase.seconds for phase in phases()) < 600
    assert next(phase.name for phase in phases()) == "list"


def test_small_tests_of_both_backends_are_tests() -> None:
    """By the names of their functions, and of their parameters' values where the emulator has them."""
    for test in small_tests("cuda"):
        file, name = test.split("::")
        assert f"def {name.split('[')[0]}(" in (ROOT / file).read_text()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_what_passed_before_a_kill_is_not_run_again(end: signal.Signals, tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    command = [sys.executable, "-S", "-c", RUNNER, str(path)]
    runner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT / "benchmarks" / "gpu")
    assert runner.stdout is not None
    while (line := runner.stdout.readline()) != "begun\n":
        assert line, "the runner ended before its second phase had begun"
    runner.send_signal(end)
    runner.wait(300)
    records = Results(path).read()["tests"]
    assert records["first"]["outcome"] == "passed" and records["second"]["outcome"] == "interrupted"
    log = path.with_suffix(".log").read_text()
    assert "a | one" in log and "b | two" in log and "waits | begun" in log

    # The second call: the first phase is of the same library and passed, so a command that fails is not run.
    again = [Phase("first", 60, {"a": python("raise SystemExit(1)")}), Phase("second", 60, {"b": python("")})]
    assert run_phases(again, Results(path), "tests", "library")
    assert Results(path).get("tests", "second")["outcome"] == "passed"
    assert not run_phases(again[:1], Results(path), "tests", "another library")
    assert Results(path).get("tests", "first")["outcome"] == "failed"


def test_a_phase_that_fails_or_takes_too_long_says_so_and_is_run_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results = Results(tmp_path / "gpu.json")
    fails = Phase("fails", 60, {"good": python(""), "bad": python("print('here is why'); raise SystemExit(3)")})
    # What a command started ends with it: the pipe is closed, or the reader would wait for the sleeper.
    sleeper = "import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])"
    late = Phase("late", 1, {"sleeps": python(sleeper)})
    last = Phase("last", 60, {"good": python("")})
    begun = time.monotonic()
    assert not run_phases([fails, late, last], results, "tests", "library")
    assert time.monotonic() - begun < 300
    told = capfd.readouterr().out
    assert "tests, fails: FAILED" in told and "tests, late: out of time" in told and "tests, last: passed" in told
    records = results.read()["tests"]
    assert records["fails"]["exit"] == {"good": 0, "bad": 3} and records["fails"]["ends"] == {"bad": ["here is why"]}
    assert records["late"]["outcome"] == "out of time"

    mended = Phase("fails", 60, {"bad": python("")})
    assert run_phases([mended, last], results, "tests", "library")
    assert "tests, last: passed before" in capfd.readouterr().out


def test_without_time_a_phase_waits_for_another_call(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    results = Results(tmp_path / "gpu.json")
    both = [Phase(name, 60, {"good": python("")}) for name in ("first", "second")]
    assert not run_phases(both, results, "tests", "library", seconds=LEAST_SECONDS - 1)
    assert "tests, first: NOT RUN" in capfd.readouterr().out and results.read() == {}
    assert run_phases(both, results, "tests", "library", seconds=600)


def test_without_a_device_the_suite_says_so_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And fails: it must not look like tests that passed."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a device here")
    monkeypatch.setattr(sys, "argv", ["gpu_suite.py", "list"])
    assert main() == 1
    assert capsys.readouterr().out.startswith("== no GPU tests here: torch")


def test_rows_that_were_measured_before_a_failure_are_not_measured_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(device, "machine", lambda: {"gpu": "NVIDIA H200"})  # there is none to ask here
    monkeypatch.setenv("GPU_RESULTS", str(tmp_path))
    monkeypatch.setenv("GPU_LIBRARY", "one build")
    assert device.Rows("table", quick=False).measured("first", lambda: {"ms": 1.5}) == {"ms": 1.5}
    with pytest.raises(ZeroDivisionError):
        device.Rows("table", quick=False).measured("second", lambda: 1 / 0)
    assert device.Rows("table", quick=False).measured("first", lambda: 1 / 0) == {"ms": 1.5}
    document = Results(tmp_path / "nvidia-h200.json").read()["tables"]["table"]
    assert document["machine"] == {"gpu": "NVIDIA H200"} and document["rows"] == {"first": {"ms": 1.5}}
    assert device.Rows("table", quick=True).measured("first", lambda: 2.0) == 2.0  # and this is not kept
    monkeypatch.setenv("GPU_LIBRARY", "another build")
    assert device.Rows("table", quick=False).measured("first", lambda: 3.0) == 3.0
    assert Results(tmp_path / "nvidia-h200.json").read()["tables"]["table"]["rows"] == {"first": 3.0}


def test_forecasts_stand_beside_what_was_measured() -> None:
    pairs = next(one for one in FORECASTS if one.what == "pairs of 10^6 shuffled atoms")
    speed = next(one for one in FORECASTS if one.more_is_better)
    ratio = next(one for one in FORECASTS if one.over is not None)
    rows = {pairs.row: {"ms": {"ours": 0.5}}, ratio.row: {"all pairs": 0.3, "cells": 0.15}}
    document = {"tables": {"neighbor_pairs": {"rows": rows}}}
    assert measured(document, pairs) == 0.5 and measured(document, ratio) == 2.0 and measured({}, pairs) is None
    assert verdict(0.5, pairs) == "as forecast; target 0.6 met"
    assert verdict(0.9, pairs) == "above; target 0.6 NOT met" and verdict(0.3, pairs) == "below; target 0.6 met"
    assert verdict(6.0, speed).endswith("met") and verdict(4.0, speed).endswith("NOT met")
    console = Console(width=130, record=True, file=io.StringIO())
    console.print(table_of(document))
    text = console.export_text()
    assert "0.4 .. 0.8" in text and text.count("not measured") == len(FORECASTS) - 2


def test_libraries_that_lie_elsewhere_are_loaded_and_missed_in_words(tmp_path: Path) -> None:
    program = "from openmm_gnn.kernels import library; print(library.FOLDER, library.HAS_CUDA_LIBRARY)"
    environment = {**os.environ, "OPENMM_GNN_LIBRARIES": str(tmp_path)}
    done = run_python("-c", program, cwd=ROOT, env=environment)
    assert done.returncode == 1 and f"libopenmm_gnn_cpu.so is not in {tmp_path}" in done.stderr
    (tmp_path / "libopenmm_gnn_cpu.so").symlink_to(ROOT / "openmm_gnn" / "libopenmm_gnn_cpu.so")
    done = run_python("-c", program, cwd=ROOT, env=environment)
    assert done.returncode == 0 and done.stdout.split() == [str(tmp_path), "False"], done.stderr


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
