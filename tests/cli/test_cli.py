"""The command line as a whole: its commands, its help, and how it fails."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import openmm
import pytest
import torch
from command_lines import invoke
from warm_python import run_python

from openmm_gnn import cli
from openmm_gnn.base.errors import DataError
from openmm_gnn.runs.directory import RunDirectory


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The installed command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "openmm_gnn", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "120", **environment},
    )


def test_help_names_every_command() -> None:
    result = invoke(["--help"])
    assert result.exit_code == 0
    named = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("  ")]
    assert named == list(cli.COMMANDS)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_each_command_has_help_of_its_own(command: str) -> None:
    result = invoke([command, "--help"])
    assert result.exit_code == 0
    assert f"openmm-gnn {command}" in result.stdout


def test_help_answers_at_once() -> None:
    def processor_seconds_of_children() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before = processor_seconds_of_children()
    assert run("--help").returncode == 0
    assert processor_seconds_of_children() - before < 1.5  # 0.2 s; importing torch alone takes 2 s


@pytest.mark.parametrize("name", ["kernels", "--quicker"])
def test_an_unknown_benchmark_is_a_usage_error(name: str) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "run.py"
    failed = subprocess.run([sys.executable, script, name], capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert name in failed.stderr


def test_the_version_is_printed() -> None:
    import openmm_gnn

    assert run("--version").stdout == f"openmm-gnn {openmm_gnn.__version__}\n"


def fail_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command line meet this error."""

    def fail(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "run", fail)
    monkeypatch.delenv(cli.DEBUG_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DataError("the file is cut short [line 3]: copy it again"), "the file is cut short [line 3]: copy it again"),
        (
            PermissionError(13, "Permission denied", "/out"),
            "/out: Permission denied: mend its permissions, or give another path",
        ),
        (ValueError("could not convert string to float: 'x'"), "could not convert string to float: 'x'"),
        (openmm.OpenMMException("Traceback (most recent call last):\n  in x\nRuntimeError: too hot"), "too hot"),
        (
            MemoryError("Unable to allocate 9 GiB"),
            "not enough memory (Unable to allocate 9 GiB): give fewer atoms or frames at once, or a machine with more",
        ),
        (
            ModuleNotFoundError("No module named 'lightning'", name="lightning"),
            "No module named 'lightning': install it with `pip install lightning tensorboard`",
        ),
        (ImportError("the compiled operators are missing"), "the compiled operators are missing"),
    ],
)
def test_an_expected_error_is_one_message_and_exit_code_1(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(error, monkeypatch)
    assert cli.main(["doctor"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"Error: {message}\n"


def test_the_environment_can_ask_for_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(DataError("cut short"), monkeypatch)
    monkeypatch.setenv(cli.DEBUG_VARIABLE, "1")
    with pytest.raises(DataError, match="cut short"):
        cli.main(["doctor"])


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), KeyError("width"), RuntimeError("shapes differ")])
def test_a_fault_of_the_program_shows_its_traceback_and_says_that_it_is_one(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(error, monkeypatch)
    assert cli.main(["doctor"]) == cli.FAULT == 70
    said = capsys.readouterr().err
    assert "Traceback" in said and type(error).__name__ in said
    assert "This is a fault of openmm-gnn, not of your input: please report it where you got openmm-gnn from" in said


def test_what_a_compiled_operator_refuses_is_an_error_of_the_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(arguments: list[str]) -> int:
        from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs

        neighbor_pairs(torch.full((3, 3), torch.nan), 1.0)
        return 0

    monkeypatch.setattr(cli, "run", refuse)
    monkeypatch.delenv(cli.DEBUG_VARIABLE, raising=False)
    assert cli.main(["doctor"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: ") and said.count("\n") == 1 and "atom 0" in said


def test_a_warning_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # main replaces it, this restores it
    monkeypatch.setattr(cli, "run", lambda arguments: 0)
    cli.main([])
    assert warnings.formatwarning("the start is hot", UserWarning, "simulate.py", 7) == "Warning: the start is hot\n"


@pytest.mark.parametrize(("options", "shows_traceback"), [([], False), (["--debug"], True)])
def test_a_missing_file_is_a_clean_message_unless_debugging(
    options: list[str], shows_traceback: bool, tmp_path: Path
) -> None:
    missing = tmp_path / "none.safetensors"
    failed = run_python("-m", "openmm_gnn", *options, "export", missing, "argon", "--out", tmp_path / "out.pt")
    assert failed.returncode == 1
    assert str(missing) in failed.stderr
    assert failed.stderr.startswith("Error: ") is not shows_traceback
    assert ("Traceback" in failed.stderr) is shows_traceback


@pytest.mark.parametrize(("users", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_waiting_threads_do_not_spin_unless_the_user_says_so(
    users: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "run", lambda arguments: 0)
    monkeypatch.setenv("OMP_WAIT_POLICY", "to be restored")
    monkeypatch.delenv("OMP_WAIT_POLICY") if users is None else monkeypatch.setenv("OMP_WAIT_POLICY", users)
    cli.main([])
    assert os.environ["OMP_WAIT_POLICY"] == expected


def test_a_command_in_a_cell_of_a_notebook_does_not_ask_for_the_notebook_to_draw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel's backend, which is inherited, may not be installed beside this package."""
    monkeypatch.setenv("MPLBACKEND", "module://of_another_environment")
    program = "from openmm_gnn import cli; cli.main(['--version']); import matplotlib; print(matplotlib.get_backend())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["agg"]), done.stderr


def test_an_unknown_command_is_a_usage_error() -> None:
    failed = run("optimise")
    assert failed.returncode == 2
    assert "there is no command optimise" in failed.stderr


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_says_how_to_go_on(command: str) -> None:
    message, code = cli.message_of(KeyboardInterrupt(), [command])
    assert code == 130 and message.startswith("Stopped. ") and "the same command" in message.lower()


@pytest.fixture
def _stoppable() -> Iterator[None]:
    """Ctrl-C reaches this process, as it does in a shell: workers of pytest-xdist ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def stop_when_there(path: Path) -> threading.Thread:
    """Press ctrl-C, as it were, once a file is there."""

    def press() -> None:
        while not path.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press, daemon=True)
    thread.start()
    return thread


@pytest.mark.usefixtures("_stoppable")
def test_a_run_that_is_stopped_says_how_to_go_on_and_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    line = f"simulate argon --out {out} --stride 5 --equilibration 0 --threads 1 --quiet"
    stopper = stop_when_there(out / "checkpoint")
    assert cli.main([*line.split(), "--steps", "100000"]) == 130
    stopper.join()
    assert capsys.readouterr().err == "Stopped. The same command goes on where it was.\n"
    done = RunDirectory(out).read_log()["step"][-1]
    assert cli.main([*line.split(), "--steps", str(int(done) // 100 * 100 + 200)]) == 0
    assert len(RunDirectory(out).read_log()) == len(RunDirectory(out).read_positions()[0])


@pytest.mark.usefixtures("_stoppable")
def test_a_training_that_is_stopped_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "data", tmp_path / "network"
    label = "label argon --seeds 1-2 --frames 2 --stride 5 --equilibration 0.02 --processes 1 --quiet --out"
    assert cli.main([*label.split(), str(data)]) == 0
    small = "--max-neighbors 50 --width 8 --layers 1 --radial 8 --cutoff 0.6 --batch-size 1 --validate-every 2"
    train = f"train {data} --out {out} --train-seeds 1 --validation-seeds 2 --steps 100000 --quiet {small}"
    stopper = stop_when_there(out / "last.ckpt")
    capsys.readouterr()
    assert cli.main(train.split()) == 130
    stopper.join()
    assert capsys.readouterr().err.endswith("Stopped. The same command goes on where it was.\n")
    assert (out / "model.safetensors").is_file()
