"""The one loop of resumable dynamics: equilibration and production, with listeners, survive kill -9.

Every run follows one rule. Listeners put their results on the disk first, then the checkpoint is replaced atomically;
the checkpoint alone decides how far a run has come, and a restart cuts results that lie past it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import Checkpoint, read_checkpoint, write_checkpoint

if TYPE_CHECKING:
    import openmm

    from openmm_gnn.md.run_guard import RunGuard
    from openmm_gnn.md.run_settings import RunCourse


class Listener(Protocol):
    """What follows the production of a run, such as its frames. Steps count from the start of production."""

    @property
    def intervals(self) -> tuple[int, ...]:
        """`take` is called at the multiples of each, 1 step or more."""

    def resume(self, step: int) -> None:
        """Cut results past this step, from which the run goes on; called once, before the first `take`."""

    def take(self, step: int, state: openmm.State) -> None:
        """Take the state of a step."""

    def sync(self) -> None:
        """Return when all results are on the disk, as before a checkpoint."""

    def close(self) -> None:
        """Give up files; called once, also after an error."""


def start_or_resume(
    context: openmm.Context, checkpoint_file: Path, positions: Callable[[], np.ndarray], course: RunCourse, remedy: str
) -> int:
    """Put a Context where its run goes on; returns that step, counted from the start of equilibration.

    Args:
        positions: makes the start of a run without a checkpoint, (num_particles, 3) nm.
        remedy: what the user can do where OpenMM cannot load the checkpoint.
    Raises:
        DataError: if the checkpoint is damaged, or of another OpenMM or machine.
        SpecError: if the run has gone further than `course`.
    """
    import openmm

    checkpoint = read_checkpoint(checkpoint_file)
    if checkpoint is None:
        context.setPositions(np.asarray(positions()))
        context.applyConstraints(1e-6)
        context.computeVirtualSites()
        context.setVelocitiesToTemperature(course.temperature, course.seed)
        return 0
    if checkpoint.step > course.total_steps:
        reached = checkpoint.step - course.equilibration_steps
        raise SpecError(
            f"{checkpoint_file.parent} has reached step {reached}: steps is {course.steps}, give at least as many"
        )
    try:
        context.loadCheckpoint(checkpoint.state)
    except openmm.OpenMMException as error:
        raise DataError(f"{checkpoint_file} cannot be loaded ({error}): {remedy}") from error
    return checkpoint.step


def advance(
    guard: RunGuard,
    step: int,
    course: RunCourse,
    listeners: Sequence[Listener],
    checkpoint_file: Path,
    checkpoint_due: Callable[[int, float], bool],
    report: Callable[[int], None] = lambda step: None,
) -> None:
    """Run from a step, counted from the start of equilibration, to the end, and close the listeners.

    Args:
        checkpoint_due: whether to write a checkpoint, of the steps and the seconds since the last one; the ends of
            equilibration and production always have one.
        report: called with the step after every stop.
    """
    with ExitStack() as stack:
        for listener in listeners:
            stack.callback(listener.close)
        for listener in listeners:
            listener.resume(max(0, step - course.equilibration_steps))
        written_at, written_step = time.monotonic(), step
        while step < course.total_steps:
            begin, end, intervals = 0, course.equilibration_steps, {course.report_interval}
            if step >= end:
                begin, end = end, course.total_steps
                intervals.update(interval for listener in listeners for interval in listener.intervals)
            num_steps = min(end - step, *(interval - (step - begin) % interval for interval in intervals))
            guard.step(num_steps)
            step += num_steps
            production = step - course.equilibration_steps
            if production > 0:
                for listener in listeners:
                    if any(production % interval == 0 for interval in listener.intervals):
                        listener.take(production, guard.state)
            if step == end or checkpoint_due(step - written_step, time.monotonic() - written_at):
                for listener in listeners:
                    listener.sync()
                write_checkpoint(checkpoint_file, Checkpoint(step, guard.snapshot))
                written_at, written_step = time.monotonic(), step
            report(step)
