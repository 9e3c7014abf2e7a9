"""The longest outer step of an accelerated run, from short runs at several step sizes and one of the system's own.

Too long a step feeds energy into the fastest motions of the expensive forces (a resonance), and the thermostat cannot
remove it: the first sign is that light elements are hotter than the thermostat. A scan therefore compares the
temperature of each element, and the mean potential energy of the system's own forces; in isokinetic dynamics, which has
no temperature, the energy alone. Resonances are narrow, so that a step may be stable by chance: one is recommended when
slightly shorter and longer ones are stable too.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.base.errors import DataError, NonFiniteError, SettingsError, SpecError, positive
from openmm_gnn.base.files import write_json
from openmm_gnn.base.statistics import Estimate, mean_with_error
from openmm_gnn.md.run_settings import ComputeSettings, RunCourse, RunSettings, course_hash
from openmm_gnn.md.simulation_system import Thermostat
from openmm_gnn.md.time_steps import NOTHING_FASTER
from openmm_gnn.runs.directory import RunDirectory, element_column, elements_in

if TYPE_CHECKING:
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
    neighbor_of: str = ""
    """Name of the row whose step this one differs from by a few per cent; empty in rows that were asked for."""

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
    """Friction of Langevin dynamics in 1/ps. Default: the system's, or 1 where it has no Langevin dynamics; isokinetic
    10."""
    thermostat: Thermostat = Thermostat.LANGEVIN
    """Thermostat of the accelerated runs: langevin or isokinetic."""
    hydrogen_friction: float | None = None
    """Friction of hydrogens in 1/ps, in accelerated runs with langevin. Default: that of the other atoms."""
    neighbors: tuple[float, ...] = (-5.0, 5.0)
    """Changes in per cent of the longest stable outer step, with which it may not heat either to be recommended; 0: no
    more runs."""
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
        positive(self, "reference_step", "hydrogen_friction")
        object.__setattr__(self, "thermostat", Thermostat(self.thermostat))
        if self.thermostat not in (Thermostat.LANGEVIN, Thermostat.ISOKINETIC):
            raise SettingsError(self, "thermostat", "give langevin or isokinetic: others have no step that is too long")
        if self.thermostat is Thermostat.ISOKINETIC and not self.reference:
            raise SettingsError(self, "reference", "isokinetic runs are judged by their energy: run the reference too")
        for percent in self.neighbors:
            if not -50 <= percent <= 50:
                raise SettingsError(self, "neighbors", "give changes in per cent, from -50 to 50")
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
        if self.reference:
            step_ps = system.time_step_ps if self.reference_step is None else self.reference_step / 1000
            own = replace(self._of_length(common, step_ps), time_step=self.reference_step)
            yield REFERENCE, own.course(system)
        for inner_steps in self.inner:
            for outer in self.outer:
                yield self.accelerated_run(system, outer, inner_steps, self.bonded_substeps)

    def accelerated_run(
        self, system: SimulationSystem, outer: float, inner_steps: int, bonded_substeps: int | None
    ) -> tuple[str, RunCourse]:
        """Name and course of a run with an outer step in fs."""
        friction = self.friction
        if friction is None and self.thermostat is Thermostat.LANGEVIN:
            friction = system.friction_per_ps if system.thermostat is Thermostat.LANGEVIN else 1.0
        settings = RunSettings(
            equilibration=self.equilibration,
            temperature=self.temperature,
            thermostat=self.thermostat,
            friction=friction,
            hydrogen_friction=self.hydrogen_friction,
            seed=self.seed,
            accelerate=True,
            inner_steps=inner_steps,
            bonded_substeps=bonded_substeps,
            hydrogen_mass=self.hydrogen_mass,
            expensive=self.expensive,
            network_atoms=self.network_atoms,
            time_step=outer,
        )
        return f"outer-{outer:g}fs-inner-{inner_steps}", self._of_length(settings, outer / 1000).course(system)

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
    rows: list[ScanRow] = []

    def measured(name: str, course: RunCourse, neighbor_of: str = "") -> ScanRow:
        """The row of a run, read where it was run before."""
        run = RunDirectory(Path(directory) / name)
        network = model if course.accelerated else None
        identity = run_identity(system, course, network, name, compute.platform)
        key = f"{course_hash(identity)}-{course.steps}"
        row = _read_row(run.path / ROW_FILE, key)
        if row is None:
            speed, remark = 0.0, ""
            try:
                with warnings.catch_warnings():
                    if any(one.inner_steps for one in rows):
                        warnings.filterwarnings("ignore", message=NOTHING_FASTER)  # said of the first run
                    result = simulate(system, run.path, course, network, name, compute, progress=progress)
                speed = result.ns_per_day
            except (NonFiniteError, openmm.OpenMMException) as error:
                remark = str(error)
            row = _measure(name, run, course, speed, remark, reference)
            run.path.mkdir(parents=True, exist_ok=True)
            write_json(run.path / ROW_FILE, {"key": key, "row": dataclasses.asdict(row)}, indent=2)
        rows.append(replace(row, neighbor_of=neighbor_of))
        write_json(Path(directory) / "scan.json", [dataclasses.asdict(one) for one in rows], indent=2)
        return rows[-1]

    for name, course in settings.runs(system):
        row = measured(name, course)
        if name == REFERENCE and row.verdict is Verdict.BLEW_UP:
            warnings.warn(
                f"the system's own forces blew up in steps of {row.time_step_fs:g} fs ({row.remark or 'too hot'}): no "
                "energy is compared with them; give a shorter --reference-step, or relax the start (--minimize)",
                stacklevel=2,
            )
        elif name == REFERENCE:
            reference = row
        yield row
    for candidate in candidates(rows):
        stable = True
        for percent in filter(None, settings.neighbors):
            if stable:
                outer = float(f"{candidate.time_step_fs * (1 + percent / 100):.4g}")
                run = settings.accelerated_run(system, outer, candidate.inner_steps, candidate.bonded_substeps)
                row = measured(*run, neighbor_of=candidate.name)
                stable = not resonates(row, reference)
                yield row
        if stable:
            return


def candidates(rows: Sequence[ScanRow]) -> list[ScanRow]:
    """The stable accelerated rows that were asked for, the longest outer step first, of these the cheapest."""
    stable = [row for row in rows if row.inner_steps and not row.neighbor_of and row.verdict is Verdict.STABLE]
    return sorted(stable, key=lambda row: (-row.time_step_fs, row.inner_steps))


def resonates(row: ScanRow, reference: ScanRow | None) -> bool:
    """Whether a run takes up energy: it heats, blew up, or has a potential energy above the reference's."""
    shift = row.energy_shift(reference)
    above = row.verdict is Verdict.ENERGY_OFF and shift is not None and shift.value > 0
    return above or row.verdict in (Verdict.HEATS, Verdict.BLEW_UP)


def recommended(rows: Sequence[ScanRow]) -> ScanRow | None:
    """The first of the candidates none of whose neighbours resonates; None if there is none."""
    reference = next((row for row in rows if row.inner_steps == 0 and row.potential is not None), None)
    unstable = {row.neighbor_of for row in rows if resonates(row, reference)}
    return next((row for row in candidates(rows) if row.name not in unstable), None)


def options_of_step(row: ScanRow, settings: ScanSettings) -> str:
    """The options of `openmm-gnn simulate` that take a step as the scan has tried it."""
    given = {"time-step": f"{row.time_step_fs:g}", "inner-steps": f"{row.inner_steps}"}
    if settings.thermostat is not Thermostat.LANGEVIN:
        given["thermostat"] = settings.thermostat.value
    for name in ("friction", "hydrogen_friction", "hydrogen_mass"):
        if (value := getattr(settings, name)) is not None:
            given[name.replace("_", "-")] = f"{value:g}"
    return " ".join(f"--{name} {value}" for name, value in given.items())


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
