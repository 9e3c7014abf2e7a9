"""The whole of a distillation: rounds, scan of steps, validation, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from openmm_gnn.analysis.distillation.report import Distillation, final_errors, write_report
from openmm_gnn.analysis.distillation.rounds import distill_rounds
from openmm_gnn.analysis.distillation.settings import DistillSettings, StudentSettings
from openmm_gnn.analysis.distillation.steps import VALIDATION_CALLS, found_steps, validated
from openmm_gnn.base.files import locked
from openmm_gnn.base.worker_processes import ProgressBar
from openmm_gnn.md.run_settings import ComputeSettings
from openmm_gnn.md.simulation_system import SimulationSystem


def distill(
    system: SimulationSystem,
    out: Path | str,
    settings: DistillSettings | None = None,
    student: StudentSettings | None = None,
    compute: ComputeSettings | None = None,
    geometries: Sequence[Path | str] = (),
    cheap: SimulationSystem | None = None,
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
    runs: Sequence[Path | str] = (),
) -> Distillation:
    """A network that stands for the expensive forces of a System, for `accelerate`; see `rounds` for how.

    Called again after a kill it goes on, and evaluates the teacher at no geometry twice; but for the steps of its scan
    since their last checkpoint.

    Args:
        system: the teacher; stays as it is. Where it has bonded forces the network learns the others alone.
        out: directory of all results; `accelerate` and `load_model` take it as a model.
        geometries: trajectories of its atoms for the first round, in place of runs of the teacher.
        cheap: a System of the same atoms, such as a force field's, whose runs give the geometries of the first round.
        progress: show bars.
        say: called with a line about each round and step.
        runs: directories of accelerated runs of this System that were made with `relearn`, whose labels the last
            training learns too. They cost no evaluation, and may be added to a distillation that is finished.
    Raises:
        SpecError: if the System has virtual sites or no expensive forces, or settings contradict each other.
        DataError: if the directory holds something else, or geometries do not belong to the System.
        NonFiniteError: if the teacher's own run comes apart.
    """
    settings, student, compute = (
        settings or DistillSettings(),
        student or StudentSettings(),
        compute or ComputeSettings(),
    )
    out = Path(out)
    if compute.threads is not None:
        import torch

        torch.set_num_threads(compute.threads)
    begun = time.process_time()
    with locked(out):
        files = [Path(path) for path in geometries]
        distilled = distill_rounds(
            system, out, settings, student, compute, files, cheap, progress, say, [Path(run) for run in runs]
        )
        temperature = settings.temperature or system.temperature
        for_scan = max(0, settings.scan_calls - VALIDATION_CALLS)
        steps = found_steps(distilled, for_scan, temperature, compute, progress, say)
        validation, calls = None, {"labels": distilled.rounds[-1].calls, "scan": steps.calls, "validation": 0}
        if settings.scan_calls >= VALIDATION_CALLS:
            with ProgressBar(1.0, progress) as bar:
                validation = validated(distilled, temperature, compute, lambda what, done: bar.update(done, what))
            calls["validation"] = 0 if student.conservative else VALIDATION_CALLS
        calls["all"] = sum(calls.values())
        found = Distillation(
            distilled,
            settings,
            steps,
            validation,
            final_errors(distilled),
            calls,
            temperature,
            time.process_time() - begun,
        )
        write_report(found)
    return found
