"""`openmm-gnn doctor`: what works on this machine, and the command that mends what does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openmm_gnn.cli.options import Command

if TYPE_CHECKING:
    from rich.console import Console

    from openmm_gnn.forces.doctor import Diagnosis, Trial


@dataclass(frozen=True, kw_only=True)
class Doctor(Command):
    """Compute a small force on every backend and platform, and say what to install where one fails.

    Exit code 0 if the compiled kernels and at least one backend work, else 1.
    """

    json: bool = False
    """Print one JSON object instead of tables."""

    def run(self) -> int:
        from json import dumps

        from rich.console import Console

        from openmm_gnn.forces.doctor import examine

        with Console(stderr=True).status("Looking ...") as status:
            diagnosis = examine(lambda step: status.update(f"Looking at {step} ..."))
        if self.json:
            print(dumps(diagnosis.to_dict(), indent=2))
        else:
            _print_tables(diagnosis, Console())
        return 0 if diagnosis.healthy else 1


def _print_tables(diagnosis: Diagnosis, console: Console) -> None:
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
    console.print(parts)

    trials = Table("backend", "platform", "works", title="Forces", title_justify="left")
    trials.add_column(overflow="fold")
    for trial in diagnosis.trials:
        if trial.outcome.works:
            said = f"{trial.outcome.values['milliseconds']:.2f} ms per call, error {trial.outcome.values['error']:.0e}"
            trials.add_row(trial.backend, trial.platform, "[green]yes[/]", said)
        else:
            trials.add_row(trial.backend, trial.platform, "[red]no[/]", escape(_reason(trial, diagnosis)))
    console.print(trials)

    for mismatch in diagnosis.mismatches:
        console.print(f"[yellow]Mismatch:[/] {escape(mismatch.what)}.", soft_wrap=True)
        console.print(f"  Does not work: {escape(mismatch.breaks)}.", soft_wrap=True)
        console.print(f"  Mend it with:  {escape(mismatch.remedy)}", soft_wrap=True, highlight=False)
    if diagnosis.healthy:
        working = [trial for trial in diagnosis.trials if trial.outcome.works]
        names = ", ".join(f"{trial.backend} on {trial.platform}" for trial in working)
        console.print(f"[green]Ready:[/] {names}.", soft_wrap=True)
    elif not diagnosis.kernels.works:
        console.print(
            "[red]Not ready:[/] the compiled kernels do not load; build them again: "
            'pip install --no-build-isolation --force-reinstall --no-deps openmm-gnn, or "make test" in a clone.',
            soft_wrap=True,
        )
    else:
        console.print("[red]Not ready:[/] no force backend works.", soft_wrap=True)


def _reason(trial: Trial, diagnosis: Diagnosis) -> str:
    failure = trial.outcome.failure or ""
    if any(mismatch.what in failure for mismatch in diagnosis.mismatches):
        return "a known mismatch, see below"
    return failure


def _words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
