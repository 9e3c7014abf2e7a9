"""The step sizes of a distilled network: a scan within the evaluations of the teacher that are left for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from openmm_gnn.analysis.distillation.rounds import Distilled
from openmm_gnn.analysis.force_checks import ReferenceFrame
from openmm_gnn.analysis.step_scan import NUM_BLOCKS, SAMPLE_PS, ScanRow, ScanSettings, recommended, scan_steps
from openmm_gnn.analysis.validation import Validation, validate_on
from openmm_gnn.analysis.validation_frames import Source
from openmm_gnn.analysis.verdicts import ValidationSettings
from openmm_gnn.md.run_settings import ComputeSettings
from openmm_gnn.md.time_steps import accelerated_steps
from openmm_gnn.networks.weights import load_model

TRIED = (2 / 3, 1.0, 4 / 3)
"""Outer steps that are tried, over the one that is customary for the System."""
SCAN_FRICTION_PER_PS = 5.0
EQUILIBRATION_SHARE = 0.2
VALIDATED_PS = 1.0
VALIDATION_CALLS = round(VALIDATED_PS / SAMPLE_PS) + 1
"""Energies of the teacher along a run of the network at constant energy; a conservative network needs none."""


@dataclass(frozen=True)
class Steps:
    """The time steps to use, and how they were found."""

    time_step_fs: float
    """The outer step."""
    inner_steps: int
    stable: bool
    """Whether the scan found them stable; if not, they are the shortest that were tried."""
    rows: list[ScanRow]
    calls: int
    """Evaluations of the teacher."""


def found_steps(
    distilled: Distilled,
    scan_calls: int,
    temperature: float,
    compute: ComputeSettings,
    progress: bool,
    say: Callable[[str], None],
) -> Steps:
    """Scan outer steps around the customary one; the longest stable one is taken.

    The runs are short, and steps beside the longest are not tried: `openmm-gnn scan-steps` looks closer.

    Args:
        scan_calls: evaluations of the teacher that may be spent.
        temperature: K.
    """
    system = distilled.system
    safe_ps, inner = accelerated_steps(system.system, system.topology)
    outer = tuple(float(f"{1000 * safe_ps * factor:.3g}") for factor in TRIED)
    length = (scan_calls - 2 * len(outer)) / sum(1000 / step for step in outer)
    shortest = NUM_BLOCKS * max(SAMPLE_PS, max(outer) / 1000) / (1 - EQUILIBRATION_SHARE)
    if length < shortest and scan_calls == 0:
        return Steps(outer[0], inner, False, [], 0)
    if length < shortest:
        warnings.warn(
            f"{scan_calls} evaluations of the teacher are left for a scan of steps, which needs "
            f"{round(shortest * sum(1000 / step for step in outer)) + 2 * len(outer)}: no step was tried, give more "
            "scan_calls or use `openmm-gnn scan-steps`",
            stacklevel=2,
        )
        return Steps(outer[0], inner, False, [], 0)
    asked = ScanSettings(
        outer=outer,
        inner=(inner,),
        picoseconds=(1 - EQUILIBRATION_SHARE) * length,
        equilibration=EQUILIBRATION_SHARE * length,
        temperature=temperature,
        friction=SCAN_FRICTION_PER_PS,
        neighbors=(),
        reference=False,
    )
    rows = []
    folder = distilled.directory / "scan" / distilled.rounds[-1].name  # of this network: another has its own
    for row in scan_steps(system, load_model(distilled.model), folder, asked, compute, progress):
        rows.append(row)
        say(f"steps of {row.time_step_fs:g} fs, {row.inner_steps} of the network: {row.verdict.value}")
    calls = sum(course.total_steps + 1 for _, course in asked.runs(system))
    best = recommended(rows)
    if best is None:
        warnings.warn(
            "none of the steps that were tried is stable: label more (--teacher-calls), or run `openmm-gnn scan-steps` "
            "with shorter ones",
            stacklevel=2,
        )
    return Steps(outer[0] if best is None else best.time_step_fs, inner, best is not None, rows, calls)


def validated(
    distilled: Distilled, temperature: float, compute: ComputeSettings, report: Callable[[str, float], None]
) -> Validation:
    """The network's validation on held-out frames, which are labelled already; into OUT/validation."""
    frames = [
        ReferenceFrame(row["positions"], row["box_vectors"] if distilled.system.periodic else None, row["forces"])
        for row in distilled.held_out[-ValidationSettings.frames :]
    ]
    system = replace(distilled.system, temperature=temperature, friction_per_ps=SCAN_FRICTION_PER_PS)
    settings = ValidationSettings(
        quick=True, constant_energy_ps=VALIDATED_PS, sizes=(), platform=compute.platform, backend=compute.backend
    )
    source = Source(system, frames, distilled.forces, None)
    out: Path = distilled.directory / "validation"
    return validate_on(source, load_model(distilled.model), distilled.directory.name, out, settings, report)
