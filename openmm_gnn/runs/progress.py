"""The progress bar of a run: how far, how fast in ns/day, how long still."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from openmm_gnn.md.run_settings import RunCourse

SECONDS_PER_DAY = 86_400.0


class RunProgress:
    """A context manager; `update` after each report. Silent without a console."""

    def __init__(self, settings: RunCourse, console: Console | None, name: str) -> None:
        self._settings = settings
        self._name = name
        self._start: tuple[int, float] | None = None
        self.ns_per_day = 0.0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[progress_text]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=console is None,
            expand=True,
        )
        self._task = self._bar.add_task(name, total=self._total, progress_text="")

    @property
    def _total(self) -> int:
        return self._settings.equilibration_steps + self._settings.steps

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, step: int, temperature: float | None = None) -> None:
        """`step` counts from the start of equilibration; speed is measured from the first call."""
        now = time.perf_counter()
        if self._start is None:
            self._start = (step, now)
        elif now > self._start[1]:
            simulated_ns = (step - self._start[0]) * self._settings.time_step_ps / 1000
            self.ns_per_day = simulated_ns / (now - self._start[1]) * SECONDS_PER_DAY
        equilibrating = step < self._settings.equilibration_steps
        text = f"{max(0, step - self._settings.equilibration_steps) * self._settings.time_step_ps:.1f} ps"
        text += f" · {self.ns_per_day:.1f} ns/day" if self.ns_per_day else ""
        text += f" · {temperature:.0f} K" if temperature is not None else ""
        description = f"{self._name} (equilibration)" if equilibrating else self._name
        self._bar.update(self._task, completed=step, description=description, progress_text=text)
