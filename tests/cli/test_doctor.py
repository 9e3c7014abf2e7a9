"""The doctor: rules against versions known to clash, crashes survived, and the truth about this very environment."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest
from command_lines import invoke

from openmm_gnn.base.version_rules import Breaks, Versions, find_mismatches, installed_version, release
from openmm_gnn.forces import doctor as doctor
from openmm_gnn.forces.doctor import (
    Diagnosis,
    Outcome,
    Trial,
    absent_backends,
    examine,
    run_command,
    run_probe,
    versions_here,
)
from openmm_gnn.forces.doctor_probes import RESULT_PREFIX

TORCHFORCE_STACK = Versions(torch="2.9.1", openmm="8.4.0.post2", openmmtorch="1.5")
PYTHONFORCE_STACK = Versions(torch="2.13.0+cpu", openmm="8.6.1", openmmtorch=None, torch_has_cuda=False)


@pytest.mark.parametrize("versions", [TORCHFORCE_STACK, PYTHONFORCE_STACK])
def test_the_two_stacks_have_no_mismatch(versions: Versions) -> None:
    assert find_mismatches(versions) == []


@pytest.mark.parametrize(
    ("versions", "breaks", "says", "mends"),
    [
        (Versions("2.8.0", "8.4.0.post2", "1.5"), Breaks.TORCHFORCE, "segmentation fault", "torch==2.9.1"),
        (Versions("2.10.0", "8.4.0.post2", "1.5"), Breaks.TORCHFORCE, "set_stride", "torch==2.9.1"),
        (Versions("2.11.0+cu130", "8.4.0.post2", "1.5"), Breaks.TORCHFORCE, "set_stride", "torch==2.9.1"),
        (Versions("2.9.1+cpu", "8.4.0.post2", "1.5", torch_has_cuda=False), Breaks.TORCHFORCE, "libnvrtc.so.12",
         "--force-reinstall torch==2.9.1"),
        (Versions("2.9.1", "8.6.1", "1.5"), Breaks.TORCHFORCE_ON_OPENCL, "undefined symbol", "openmm==8.4.0.post2"),
        (Versions("2.9.1", "8.4.0.post2", None), Breaks.EVERYTHING, "no backend is left", '"openmm>=8.5"'),
        (Versions("2.8.0", "8.6.1", None), Breaks.EVERYTHING, "stable ABI", '"torch>=2.9"'),
        (Versions("2.9.1", "8.1.2", None), Breaks.EVERYTHING, "older than 8.4", '"openmm>=8.5"'),
        (Versions(None, "8.6.1", None), Breaks.EVERYTHING, "PyTorch is not installed", '"torch>=2.9"'),
        (Versions("2.13.0", None, None), Breaks.EVERYTHING, "OpenMM is not installed", '"openmm>=8.5"'),
        (Versions("2.9.1", "8.4.0.post2", "1.4"), Breaks.NOTHING_KNOWN, "never tried", "openmmtorch==1.5"),
        (Versions("2.9.1", "8.4.0.post2", "1.5", gpu_visible=True), Breaks.SPEED, "CUDA platform",
         '"openmm[cuda12]==8.4.0.post2" "openmmtorch[cuda12]==1.5"'),
        (Versions("2.13.0+cpu", "8.6.1", None, False, True, True), Breaks.SPEED, "CPU-only", "torch==2.13.0"),
        (Versions("2.13.0+cpu", "8.6.1", None, False, python=(3, 14)), Breaks.TORCHSCRIPT, "on Python 3.14",
         "Python 3.11 to 3.13"),
    ],
)  # fmt: skip
def test_each_known_mismatch_is_named_with_its_command(
    versions: Versions, breaks: Breaks, says: str, mends: str
) -> None:
    found = [mismatch for mismatch in find_mismatches(versions) if mismatch.breaks is breaks]
    assert any(says in mismatch.what and mends in mismatch.remedy for mismatch in found), found
    assert all("pip install" in mismatch.remedy for mismatch in found)


def test_the_most_serious_mismatch_comes_first() -> None:
    found = find_mismatches(Versions("2.8.0", "8.6.1", "1.5", gpu_visible=True))
    assert [mismatch.breaks for mismatch in found] == [
        Breaks.EVERYTHING,
        Breaks.TORCHFORCE,
        Breaks.TORCHFORCE_ON_OPENCL,
        Breaks.SPEED,
    ]


def test_a_release_is_read_from_every_form_of_version() -> None:
    assert release("2.9.1+cu128") == (2, 9, 1)
    assert release("8.4.0.post2") == (8, 4, 0)
    assert release("2.13.0a0+git123") == (2, 13)
    assert release("2.9") < release("2.10")


def test_the_build_of_torch_is_guessed_where_it_cannot_be_imported() -> None:
    crashed = Outcome(failure="the process died")
    packages = {"torch": "2.9.1+cpu", "openmm": "8.4.0", "openmmtorch": "1.5"}
    assert not versions_here(packages, crashed, crashed).torch_has_cuda
    assert versions_here({**packages, "torch": "2.9.1"}, crashed, crashed).torch_has_cuda


def test_a_backend_that_is_not_installed_is_not_probed() -> None:
    assert absent_backends({"openmm": "8.4.0.post2", "openmmtorch": "1.5"}) == {
        "PythonForce": "OpenMM 8.4.0.post2 has no PythonForce, it came with 8.5"
    }
    assert absent_backends({"openmm": "8.6.1", "openmmtorch": None}) == {"TorchForce": "openmmtorch is not installed"}
    assert set(absent_backends({"openmm": None, "openmmtorch": None})) == {"TorchForce", "PythonForce"}


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV (segmentation fault)"),
        ("import os; os.abort()", "SIGABRT (abort)"),
        ("import ctypes; ctypes.CDLL('libnvrtc.so.none')", "libnvrtc.so.none"),
        ("import sys; sys.stderr.write('lib.so: undefined symbol: xyz\\n'); sys.exit(127)", "undefined symbol: xyz"),
        ("print('chatter, but no result')", "no message"),
        ("import time; time.sleep(60)", "no answer within 2 s"),
        (f"import sys; print('{RESULT_PREFIX}' + '{{}}', flush=True); sys.exit(3)", "no message"),
    ],
)
def test_a_probe_that_crashes_is_reported_in_words(program: str, says: str) -> None:
    outcome = run_command([sys.executable, "-c", program], seconds=2.0)
    assert not outcome.works
    assert says in (outcome.failure or "")


def test_a_probe_that_works_gives_its_values_among_chatter() -> None:
    program = f"print('hello'); print('{RESULT_PREFIX}' + '{{\"a\": 1}}'); print('bye')"
    assert run_command([sys.executable, "-c", program], seconds=20.0) == Outcome(values={"a": 1})


def test_a_probe_imports_what_this_process_does_also_in_a_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "openmm_gnn").mkdir()
    (tmp_path / "openmm_gnn" / "__init__.py").write_text("raise ImportError('a clone without built operators')")
    monkeypatch.chdir(tmp_path)
    assert "version" in run_probe(["torch"]).values


@pytest.fixture(scope="module")
def diagnosis() -> Diagnosis:
    return examine()


def test_the_doctor_finds_what_this_environment_has(diagnosis: Diagnosis) -> None:
    assert diagnosis.torch.works
    assert diagnosis.openmm.works
    assert diagnosis.kernels.works, diagnosis.kernels.failure
    assert diagnosis.packages["torch"] == metadata.version("torch")
    assert {"Reference", "CPU"} <= set(diagnosis.openmm.values["platforms"])


def test_each_installed_backend_works_on_each_platform(diagnosis: Diagnosis) -> None:
    expected = set()
    if installed_version("openmmtorch") is not None:
        expected.add("TorchForce")
    if release(metadata.version("openmm")) >= (8, 5):
        expected.add("PythonForce")
    working = {(trial.backend, trial.platform) for trial in diagnosis.trials if trial.outcome.works}
    assert expected
    assert working == {(backend, name) for backend in expected for name in diagnosis.openmm.values["platforms"]}
    assert diagnosis.healthy


def test_this_environment_has_no_mismatch_that_breaks_a_backend(diagnosis: Diagnosis) -> None:
    harmless = {Breaks.SPEED, Breaks.NOTHING_KNOWN}
    assert [mismatch for mismatch in diagnosis.mismatches if mismatch.breaks not in harmless] == []


def test_the_json_form_holds_the_diagnosis(diagnosis: Diagnosis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "examine", lambda report: diagnosis)
    result = invoke(["doctor", "--json"])
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["healthy"] is True
    assert len(document["trials"]) == len(diagnosis.trials)


(MISMATCH,) = find_mismatches(Versions("2.10.0", "8.4.0.post2", "1.5"))


def sick(kernels: Outcome, trial: Outcome) -> Diagnosis:
    """A diagnosis of a machine where something fails."""
    return Diagnosis(
        python="3.11.7",
        machine="Linux x86_64",
        packages={"torch": "2.10.0", "openmm": "8.4.0.post2", "openmmtorch": "1.5"},
        torch=Outcome(failure="ImportError: [broken]"),
        openmm=Outcome(values={"plugin_failures": ["Error loading library libX.so: libnvrtc.so.12"]}),
        kernels=kernels,
        trials=[Trial("TorchForce", "CPU", trial)],
        mismatches=[MISMATCH],
    )


@pytest.mark.parametrize(
    ("kernels", "trial", "says"),
    [
        (Outcome(), Outcome(failure="set_stride [not allowed]"), "set_stride [not allowed]"),
        (Outcome(), Outcome(failure="symbol lookup error"), "no force backend works"),
        (Outcome(), Outcome(failure=f"BackendError: {MISMATCH.what} (mend it)"), "a known mismatch, see below"),
        (
            Outcome(failure="ImportError: the compiled operators are missing"),
            Outcome(values={"milliseconds": 0.1, "error": 0.0}),
            "compiled kernels do not load",
        ),
    ],
)
def test_a_sick_machine_is_described_and_exits_with_1(
    kernels: Outcome, trial: Outcome, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda report: sick(kernels, trial))
    result = invoke(["doctor"], env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert says in result.stdout
    assert "[broken]" in result.stdout
    assert "libnvrtc.so.12" in result.stdout
    assert "pip install openmmtorch==1.5 torch==2.9.1 openmm==8.4.0.post2" in result.stdout
