"""Which force backends and platforms work on this machine, found by computing a small force on each.

Each computation runs in a process of its own, see doctor_probes: a crash there is a finding here.
"""

from __future__ import annotations

import dataclasses
import platform
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from json import loads
from typing import Any

from openmm_gnn.base.version_rules import (
    BUILD_AGAIN,
    OPENMM_WITH_PYTHONFORCE,
    Mismatch,
    Versions,
    find_mismatches,
    installed_version,
    release,
)
from openmm_gnn.base.worker_processes import python_command
from openmm_gnn.forces.doctor_probes import RESULT_PREFIX

PROBE_SECONDS = 180.0
"""An OpenCL or CUDA platform may compile its kernels for a minute at first use."""
BACKENDS = ("TorchForce", "PythonForce")
PACKAGES = ("openmm-gnn", "torch", "openmm", "openmmtorch")
SIGNAL_WORDS = {signal.SIGSEGV: "segmentation fault", signal.SIGABRT: "abort", signal.SIGILL: "illegal instruction"}


@dataclass(frozen=True)
class Outcome:
    """What one probe said: its values, or why there are none."""

    values: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None

    @property
    def works(self) -> bool:
        return self.failure is None


@dataclass(frozen=True)
class Trial:
    """One force backend on one platform."""

    backend: str
    platform: str
    outcome: Outcome


@dataclass(frozen=True)
class Diagnosis:
    """Everything the doctor found."""

    python: str
    machine: str
    packages: dict[str, str | None]
    torch: Outcome
    openmm: Outcome
    kernels: Outcome
    trials: list[Trial]
    mismatches: list[Mismatch]

    @property
    def healthy(self) -> bool:
        """Whether a network can run in OpenMM here: the kernels and at least one backend on one platform work."""
        return self.kernels.works and any(trial.outcome.works for trial in self.trials)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form, with `healthy` added."""
        return {"healthy": self.healthy, **dataclasses.asdict(self)}


def examine(report: Callable[[str], None] = lambda step: None) -> Diagnosis:
    """Probe this machine; takes about ten seconds, more where OpenCL or CUDA kernels are compiled for the first time.

    Args:
        report: called with what is looked at, for a progress display.
    """
    packages = {name: installed_version(name) for name in PACKAGES}
    absent = absent_backends(packages)
    report("versions, compiled kernels, platforms")
    with ThreadPoolExecutor(max_workers=2) as pool:
        torch, openmm, kernels = pool.map(lambda name: run_probe([name]), ("torch", "openmm", "kernels"))
        platforms = openmm.values.get("platforms", ["Reference", "CPU"])
        tried = [(backend, name) for backend in BACKENDS if backend not in absent for name in platforms]
        report("forces: " + ", ".join(f"{backend} on {name}" for backend, name in tried))
        trials = list(pool.map(lambda pair: Trial(pair[0], pair[1], run_probe(["force", *pair])), tried))
    return Diagnosis(
        python=platform.python_version(),
        machine=f"{platform.system()} {platform.machine()}",
        packages=packages,
        torch=torch,
        openmm=openmm,
        kernels=kernels,
        trials=[*trials, *(Trial(backend, "every", Outcome(failure=why)) for backend, why in absent.items())],
        mismatches=find_mismatches(versions_here(packages, torch, openmm)),
    )


def versions_here(packages: dict[str, str | None], torch: Outcome, openmm: Outcome) -> Versions:
    """What the version rules need to know, also where torch or OpenMM could not even be imported."""
    torch_version = packages["torch"]
    return Versions(
        torch=torch_version,
        openmm=packages["openmm"],
        openmmtorch=packages["openmmtorch"],
        torch_has_cuda=bool(torch.values["cuda"]) if torch.works else "+cpu" not in (torch_version or ""),
        gpu_visible=_gpu_visible(),
        openmm_has_cuda="CUDA" in openmm.values.get("platforms", []),
    )


def run_probe(arguments: Sequence[str], seconds: float = PROBE_SECONDS) -> Outcome:
    """Run doctor_probes with these arguments and read its result."""
    return run_command(python_command("openmm_gnn.forces.doctor_probes", *arguments), seconds)


def run_command(command: Sequence[str], seconds: float) -> Outcome:
    """Run a probe's command; its crash, error or silence becomes the outcome's failure, in words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return Outcome(failure=f"no answer within {seconds:.0f} s")
    for line in done.stdout.splitlines():
        if line.startswith(RESULT_PREFIX) and done.returncode == 0:
            return Outcome(values=loads(line.removeprefix(RESULT_PREFIX)))
    last_words = next((line.strip() for line in reversed(done.stderr.splitlines()) if line.strip()), "no message")
    if done.returncode < 0:
        sent = signal.Signals(-done.returncode)
        words = SIGNAL_WORDS.get(sent, "killed")
        return Outcome(failure=f"the process died of {sent.name} ({words}); its last words: {last_words}")
    return Outcome(failure=last_words)


def absent_backends(packages: dict[str, str | None]) -> dict[str, str]:
    """The backends that are not installed at all, each with the reason."""
    if packages["openmm"] is None:
        return dict.fromkeys(BACKENDS, "OpenMM is not installed")
    absent = {}
    if packages["openmmtorch"] is None:
        absent["TorchForce"] = "openmmtorch is not installed"
    if release(packages["openmm"]) < OPENMM_WITH_PYTHONFORCE:
        absent["PythonForce"] = f"OpenMM {packages['openmm']} has no PythonForce, it came with 8.5"
    return absent


def _gpu_visible() -> bool:
    """Whether the NVIDIA driver lists a GPU."""
    if shutil.which("nvidia-smi") is None:
        return False
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listing.startswith("GPU ")


def diagnosis_words(diagnosis: Diagnosis) -> list[Any]:
    """What is installed, what works, and what to install where something does not: tables and lines."""
    from rich.markup import escape
    from rich.table import Table

    parts = Table(title="Installed", title_justify="left", show_header=False)
    parts.add_column()
    parts.add_column(overflow="fold")
    parts.add_row("machine", f"{diagnosis.machine}, Python {diagnosis.python}")
    for name, version in diagnosis.packages.items():
        parts.add_row(name, version or "[yellow]not installed[/]")
    for name, outcome in (("PyTorch", diagnosis.torch), ("kernels", diagnosis.kernels)):
        if outcome.works:
            facts = ", ".join(f"{key} {_words(value)}" for key, value in outcome.values.items() if key != "version")
            parts.add_row(name, escape(facts))
        else:
            parts.add_row(name, f"[red]{escape(outcome.failure or '')}[/]")
    for failure in diagnosis.openmm.values.get("plugin_failures", []):
        parts.add_row("plugin", f"[yellow]{escape(failure)}[/]")

    trials = Table("backend", "platform", "works", title="Forces", title_justify="left")
    trials.add_column(overflow="fold")
    for trial in diagnosis.trials:
        if trial.outcome.works:
            said = f"{trial.outcome.values['milliseconds']:.2f} ms per call, error {trial.outcome.values['error']:.0e}"
            trials.add_row(trial.backend, trial.platform, "[green]yes[/]", said)
        else:
            trials.add_row(trial.backend, trial.platform, "[red]no[/]", escape(_reason(trial, diagnosis)))
    lines: list[Any] = [parts, trials]

    for mismatch in diagnosis.mismatches:
        lines.append(f"Mismatch: {mismatch.what}.")
        lines.append(f"  Does not work: {mismatch.breaks}.")
        lines.append(f"  Mend it with:  {mismatch.remedy}")
    if diagnosis.healthy:
        working = [trial for trial in diagnosis.trials if trial.outcome.works]
        names = ", ".join(f"{trial.backend} on {trial.platform}" for trial in working)
        lines.append(f"Ready: {names}.")
    elif not diagnosis.kernels.works:
        lines.append(
            f"Not ready: the compiled kernels do not load; build them again in the folder of the sources: {BUILD_AGAIN}"
        )
    else:
        lines.append("Not ready: no force backend works.")
    return lines


def _reason(trial: Trial, diagnosis: Diagnosis) -> str:
    failure = trial.outcome.failure or ""
    if any(mismatch.what in failure for mismatch in diagnosis.mismatches):
        return "a known mismatch, see below"
    return failure


def _words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
