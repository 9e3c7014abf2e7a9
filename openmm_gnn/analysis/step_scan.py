"""The longest outer step of an accelerated run, from short runs at several step sizes and one of the system's own.

Too long a step feeds energy into the fastest motions of the expensive forces (a resonance), and the thermostat cannot
remove it: the first sign is that light elements are hotter than the thermostat. A scan therefore compares the
temperature of each element, and the mean potential energy of the system's own forces.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.errors import DataError, NonFiniteError, SpecError, positive
from openmm_gnn.base.figures import COLORS, QUIET_COLOR, REFERENCE_COLOR, RUN_COLOR, figure_file, terminal_table
from openmm_gnn.base.files import write_json
from openmm_gnn.base.statistics import Estimate, mean_with_error
from openmm_gnn.md.run_settings import ComputeSettings, RunCourse, RunSettings, course_hash
from openmm_gnn.md.simulation_system import Thermostat
from openmm_gnn.runs.directory import RunDirectory, element_column, elements_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

    from openmm_gnn.md.simulation_system import SimulationSystem
    from openmm_gnn.networks.force_model import ForceModel

REFERENCE = "reference"
ROW_FILE = "row.json"
NUM_BLOCKS = 10
SAMPLE_PS = 0.02
"""Time between two samples."""
SIGMAS, SMALLEST_DEVIATION = 3.0, 0.01
"""Deviations above which a temperature is wrong: in standard errors, and as a fraction; both must be exceeded."""
BLOW_UP = 2.0
"""Temperature of an element, relative to the thermostat, above which a run has blown up."""
_MARKERS = "osD^v"


class Verdict(str, Enum):
    """The verdict on a step size."""

    STABLE = "stable"
    HEATS = "heats"
    COOLS = "cools"
    ENERGY_OFF = "energy off"
    """Temperatures are right, but not the mean potential energy."""
    BLEW_UP = "blew up"


@dataclass(frozen=True)
class ScanRow:
    """One run of a scan; energies in kJ/mol, temperatures in K."""

    name: str
    time_step_fs: float
    inner_steps: int
    """0 in the reference row: the system's own forces alone."""
    bonded_substeps: int
    target: float
    ns_per_day: float
    temperatures: dict[str, Estimate]
    """Temperatures by element, after equilibration; empty if the run blew up."""
    potential: Estimate | None
    verdict: Verdict
    remark: str = ""
    """The error that ended the run, if there was one."""

    def energy_shift(self, reference: ScanRow | None) -> Estimate | None:
        """Mean potential energy less the reference's."""
        if self.potential is None or reference is None or reference.potential is None:
            return None
        error = float(np.hypot(self.potential.error, reference.potential.error))
        return Estimate(self.potential.value - reference.potential.value, error)


@dataclass(frozen=True)
class ScanSettings:
    """The step sizes of a scan, and the length of its runs."""

    outer: tuple[float, ...] = (4.0, 6.0, 8.0, 10.0)
    """Outer time steps in fs; in each the system's own forces are computed once."""
    inner: tuple[int, ...] = (3,)
    """Numbers of network steps per outer step; each is combined with each outer step."""
    picoseconds: float = 5.0
    """Length of each run in ps, after equilibration."""
    equilibration: float | None = None
    """Time before the first sample in ps. Default: the system's."""
    bonded_substeps: int | None = None
    """Number of steps of the bonded forces per inner step. Default: the fewest of at most 0.5 fs."""
    hydrogen_mass: float | None = None
    """Mass of bonded hydrogens in dalton in accelerated runs. Default: masses stay as they are."""
    temperature: float | None = None
    """Temperature of the thermostat in K. Default: the system's."""
    friction: float | None = None
    """Friction of Langevin dynamics in 1/ps. Default: the system's, or 1 where it has no Langevin dynamics."""
    reference: bool = True
    """Run the system's own forces alone too, to compare with."""
    reference_step: float | None = None
    """Time step of that run in fs. Default: the system's."""
    expensive: tuple[str, ...] = ()
    """Name or force group of a force that the network stands for; may be given again. Default: all but the bonded
    ones."""
    network_atoms: str | None = None
    """Atoms that the network sees, as a selection of MDTraj such as "resname LIG". Default: all."""
    seed: int = 1
    """Seed of initial velocities and random forces, 1 or more."""

    def __post_init__(self) -> None:
        positive(self, "reference_step")
        if not self.outer or not self.inner:
            raise SpecError("the scan has no step sizes: give at least one outer step and one number of inner steps")
        if min(self.outer) <= 0 or min(self.inner) < 1:
            raise SpecError(
                f"outer steps are {list(self.outer)} fs, inner steps {list(self.inner)}: give times above 0, and 1 or "
                "more"
            )
        shortest = NUM_BLOCKS * max(SAMPLE_PS, max(self.outer) / 1000)
        if self.picoseconds < shortest:
            raise SpecError(
                f"length is {self.picoseconds} ps: give at least {shortest:g} ps, for the {NUM_BLOCKS} blocks of the "
                "error"
            )

    def runs(self, system: SimulationSystem) -> Iterator[tuple[str, RunCourse]]:
        """Names and courses, the reference first: the system's own step and masses, Langevin like the others."""
        friction = self.friction
        if friction is None:
            friction = system.friction_per_ps if system.thermostat is Thermostat.LANGEVIN else 1.0
        common = RunSettings(
            equilibration=self.equilibration,
            temperature=self.temperature,
            thermostat=Thermostat.LANGEVIN,
            friction=friction,
            seed=self.seed,
        )
        accelerated = replace(
            common,
            accelerate=True,
            bonded_substeps=self.bonded_substeps,
            hydrogen_mass=self.hydrogen_mass,
            expensive=self.expensive,
            network_atoms=self.network_atoms,
        )
        if self.reference:
            step_ps = system.time_step_ps if self.reference_step is None else self.reference_step / 1000
            own = replace(self._of_length(common, step_ps), time_step=self.reference_step)
            yield REFERENCE, own.course(system)
        for inner_steps in self.inner:
            for outer in self.outer:
                settings = self._of_length(accelerated, outer / 1000)
                settings = replace(settings, time_step=outer, inner_steps=inner_steps)
                yield f"outer-{outer:g}fs-inner-{inner_steps}", settings.course(system)

    def _of_length(self, settings: RunSettings, time_step_ps: float) -> RunSettings:
        interval = max(1, round(SAMPLE_PS / time_step_ps))
        steps = interval * max(NUM_BLOCKS, round(self.picoseconds / time_step_ps / interval))
        return replace(settings, steps=steps, stride=interval, checkpoint_every=10 * interval)


def scan_steps(
    system: SimulationSystem,
    model: ForceModel,
    directory: Path | str,
    settings: ScanSettings,
    compute: ComputeSettings | None = None,
    progress: bool = False,
) -> Iterator[ScanRow]:
    """Run the scan row by row, each a run in a directory of its own; yields a row when it is measured.

    An interrupted scan is resumed by the same call; rows that are complete are read. scan.json has the rows so far.

    Raises:
        SpecError: if a row's directory holds a run with other settings, or the model does not fit the system.
    """
    import openmm

    from openmm_gnn.md.contexts import choose_platform
    from openmm_gnn.runs.simulate import run_identity, simulate

    compute = compute or ComputeSettings()
    compute = replace(compute, platform=choose_platform(compute.platform))
    reference: ScanRow | None = None
    rows: list[dict[str, Any]] = []
    for name, course in settings.runs(system):
        run = RunDirectory(Path(directory) / name)
        network = model if course.accelerated else None
        identity = run_identity(system, course, network, name, compute.platform)
        key = f"{course_hash(identity)}-{course.steps}"
        row = _read_row(run.path / ROW_FILE, key)
        if row is None:
            speed, remark = 0.0, ""
            try:
                result = simulate(system, run.path, course, network, name, compute, resume=True, progress=progress)
                speed = result.ns_per_day
            except (NonFiniteError, openmm.OpenMMException) as error:
                remark = str(error)
            row = _measure(name, run, course, speed, remark, reference)
            run.path.mkdir(parents=True, exist_ok=True)
            write_json(run.path / ROW_FILE, {"key": key, "row": dataclasses.asdict(row)}, indent=2)
        if name == REFERENCE and row.verdict is Verdict.BLEW_UP:
            warnings.warn(
                f"the system's own forces blew up in steps of {row.time_step_fs:g} fs ({row.remark or 'too hot'}): no "
                "energy is compared with them; give a shorter --reference-step, or relax the start (--minimize)",
                stacklevel=2,
            )
        elif name == REFERENCE:
            reference = row
        rows.append(dataclasses.asdict(row))
        write_json(Path(directory) / "scan.json", rows, indent=2)
        yield row


def _measure(
    name: str, run: RunDirectory, course: RunCourse, speed: float, remark: str, reference: ScanRow | None
) -> ScanRow:
    temperatures: dict[str, Estimate] = {}
    potential = None
    if not remark:
        log = run.read_log()
        names = list(log.dtype.names or ())
        temperatures = {e: mean_with_error(log[element_column(e)], num_blocks=NUM_BLOCKS) for e in elements_in(names)}
        potential = mean_with_error(log["potential_kj_mol"], num_blocks=NUM_BLOCKS)
    lengths = course.time_step_ps * 1000, course.inner_steps, course.bonded_substeps, course.temperature
    row = ScanRow(name, *lengths, speed, temperatures, potential, Verdict.BLEW_UP, remark)
    return row if remark else replace(row, verdict=judge(row, reference))


def judge(row: ScanRow, reference: ScanRow | None) -> Verdict:
    """The verdict on a run that came to its end."""
    excess = {name: estimate.value - row.target for name, estimate in row.temperatures.items()}
    if any(estimate.value > BLOW_UP * row.target for estimate in row.temperatures.values()):
        return Verdict.BLEW_UP
    off = [
        excess[name]
        for name, estimate in row.temperatures.items()
        if abs(excess[name]) > max(SIGMAS * estimate.error, SMALLEST_DEVIATION * row.target)
    ]
    if off:
        return Verdict.HEATS if max(off, key=abs) > 0 else Verdict.COOLS
    shift = row.energy_shift(reference)
    return Verdict.ENERGY_OFF if shift is not None and abs(shift.value) > SIGMAS * shift.error else Verdict.STABLE


def _read_row(path: Path, key: str) -> ScanRow | None:
    """The row of exactly this run, or None.

    Raises:
        DataError: if the file is damaged.
    """
    if not path.exists():
        return None
    try:
        document = json.loads(path.read_text())
        if document["key"] != key:
            return None
        fields = document["row"]
        fields["temperatures"] = {name: Estimate(**value) for name, value in fields["temperatures"].items()}
        fields["potential"] = None if fields["potential"] is None else Estimate(**fields["potential"])
        return ScanRow(**{**fields, "verdict": Verdict(fields["verdict"])})
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}): delete it to measure this row again") from error


def save_scan_plot(rows: Sequence[ScanRow], title: str, path: Path | str) -> Path:
    """Draw the rows into a PNG (or whatever the path's ending says)."""
    with figure_file(path, 10.5, 4.4, title) as figure:
        temperature_axes, speed_axes = figure.subplots(1, 2)
        _draw_temperatures(temperature_axes, rows)
        _draw_speed(speed_axes, rows)
    return Path(path)


def _draw_temperatures(axes: Axes, rows: Sequence[ScanRow]) -> None:
    elements = list(dict.fromkeys(name for row in rows for name in row.temperatures))
    for element, color, marker in zip(elements, COLORS, _MARKERS, strict=False):
        measured = [row for row in rows if element in row.temperatures]
        deviations = [100 * (row.temperatures[element].value / row.target - 1) for row in measured]
        errors = [100 * row.temperatures[element].error / row.target for row in measured]
        steps = [row.time_step_fs for row in measured]
        axes.errorbar(steps, deviations, errors, label=element, color=color, marker=marker, linestyle="none", capsize=3)
    broken = [row.time_step_fs for row in rows if row.verdict is Verdict.BLEW_UP and not row.temperatures]
    if broken:
        axes.plot(broken, [0.0] * len(broken), "x", color=QUIET_COLOR, markersize=9, label="blew up")
    percent = 100 * SMALLEST_DEVIATION
    axes.axhspan(-percent, percent, color=QUIET_COLOR, alpha=0.15, linewidth=0)
    axes.set(xlabel="outer step (fs)", ylabel="off the thermostat (%)", title="Temperature of each element")
    axes.legend()


def _draw_speed(axes: Axes, rows: Sequence[ScanRow]) -> None:
    for row in rows:
        if row.inner_steps == 0:
            axes.axhline(row.ns_per_day, color=REFERENCE_COLOR, linewidth=1.5, label="own forces alone")
    for inner, marker in zip(sorted({row.inner_steps for row in rows} - {0}), _MARKERS, strict=False):
        for stable, fill in ((True, RUN_COLOR), (False, "none")):
            chosen = [r for r in rows if r.inner_steps == inner and (r.verdict is Verdict.STABLE) is stable]
            if chosen:
                steps, speeds = [row.time_step_fs for row in chosen], [row.ns_per_day for row in chosen]
                label = f"{inner} inner steps, {'stable' if stable else 'not stable'}"
                style: Any = {"marker": marker, "color": RUN_COLOR, "markerfacecolor": fill}
                axes.plot(steps, speeds, linestyle="none", label=label, **style)
    axes.set(xlabel="outer step (fs)", ylabel="ns/day", title="Speed", ylim=(0, None))
    axes.legend()


def scan_table(rows: Sequence[ScanRow]) -> Table:
    """The rows for the terminal."""
    reference = next((row for row in rows if row.inner_steps == 0), None)
    elements = list(dict.fromkeys(name for row in rows for name in row.temperatures))
    headings = ["run", "outer / inner / bonded (fs)", *(f"T({element}) (K)" for element in elements)]
    headings += ["potential (kJ/mol)", "less reference", "ns/day", "verdict"]
    cells = []
    for row in rows:
        inner = row.time_step_fs / max(1, row.inner_steps)
        steps = [f"{row.time_step_fs:.3g}", f"{inner:.3g}" if row.inner_steps else "-"]
        shift = row.energy_shift(reference) if row is not reference else None
        cells.append(
            [
                row.name,
                " / ".join([*steps, f"{inner / row.bonded_substeps:.3g}"]),
                *(row.temperatures[name].format(1) if name in row.temperatures else "-" for name in elements),
                *("-" if one is None else one.format(1) for one in (row.potential, shift)),
                f"{row.ns_per_day:.3g}" if row.ns_per_day else "-",
                row.verdict.value,
            ]
        )
    return terminal_table(f"Thermostat {rows[0].target:g} K", headings, cells, left=(0, len(headings) - 1))
