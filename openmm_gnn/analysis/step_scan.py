"""How long may the outer step of an accelerated run be? Short runs at several step sizes, beside the system's own.

Too long a step feeds energy into the fastest motions of the expensive forces (a resonance), and the thermostat cannot
take it away: the first sign is that light elements are hotter than the thermostat. A scan therefore looks at the
temperature of each element and at the mean potential energy of the system's own forces.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import openmm

from openmm_gnn.base.errors import DataError, NonFiniteError, SpecError
from openmm_gnn.base.files import write_atomically
from openmm_gnn.base.statistics import Estimate, mean_with_error
from openmm_gnn.md.contexts import choose_platform
from openmm_gnn.md.run_settings import RunSettings, Thermostat, course_hash, settings_for
from openmm_gnn.runs.directory import RunDirectory, element_column, elements_in
from openmm_gnn.runs.simulate import run_identity, simulate

if TYPE_CHECKING:
    from rich.console import Console

    from openmm_gnn.md.simulation_system import SimulationSystem
    from openmm_gnn.networks.force_model import ForceModel

REFERENCE = "reference"
ROW_FILE = "row.json"
NUM_BLOCKS = 10
SIGMAS, SMALLEST_DEVIATION = 3.0, 0.01
"""A temperature is off if it is so by more than this many standard errors, and by more than this fraction."""
BLOW_UP = 2.0
"""Times the thermostat's temperature."""


class Verdict(str, Enum):
    """What a step size does."""

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
    """By element, after equilibration; empty if the run blew up."""
    potential: Estimate | None
    verdict: Verdict
    remark: str = ""
    """What broke, if something did."""

    def energy_shift(self, reference: ScanRow | None) -> Estimate | None:
        """Mean potential energy less the reference's."""
        if self.potential is None or reference is None or reference.potential is None:
            return None
        error = float(np.hypot(self.potential.error, reference.potential.error))
        return Estimate(self.potential.value - reference.potential.value, error)


@dataclass(frozen=True)
class ScanPlan:
    """Which step sizes are tried, and for how long."""

    outer_steps_fs: tuple[float, ...]
    inner_steps: tuple[int, ...]
    """Each is combined with each outer step."""
    length_ps: float
    """After equilibration."""
    equilibration_ps: float | None = None
    sample_ps: float = 0.02
    bonded_substeps: int | None = None
    """Per inner step; so many that they are 0.5 fs at most if None."""
    hydrogen_mass: float | None = None
    temperature: float | None = None
    friction_per_ps: float | None = None
    seed: int = 1
    with_reference: bool = True

    def __post_init__(self) -> None:
        if not self.outer_steps_fs or not self.inner_steps:
            raise SpecError("the scan has no step sizes: give at least one outer step and one number of inner steps")
        if min(self.outer_steps_fs) <= 0 or min(self.inner_steps) < 1:
            raise SpecError(
                f"outer steps are {list(self.outer_steps_fs)} fs, inner steps {list(self.inner_steps)}: give times "
                "above 0, and 1 or more"
            )
        longest = max(self.outer_steps_fs) / 1000
        if self.length_ps < NUM_BLOCKS * max(self.sample_ps, longest):
            raise SpecError(
                f"length is {self.length_ps} ps: give at least {NUM_BLOCKS * max(self.sample_ps, longest):g} ps, for "
                f"the {NUM_BLOCKS} blocks of the error"
            )

    def runs(self, system: SimulationSystem) -> Iterator[tuple[str, RunSettings]]:
        """Names and settings, the reference first: the system's own step and masses, Langevin like the others."""
        if self.with_reference:
            yield REFERENCE, self._settings(system, system.time_step_ps, 0, system.bonded_substeps, None)
        for inner_steps in self.inner_steps:
            for outer in self.outer_steps_fs:
                name = f"outer-{outer:g}fs-inner-{inner_steps}"
                yield name, self._settings(system, outer / 1000, inner_steps, self.bonded_substeps, self.hydrogen_mass)

    def _settings(
        self,
        system: SimulationSystem,
        time_step_ps: float,
        inner_steps: int,
        bonded_substeps: int | None,
        hydrogen_mass: float | None,
    ) -> RunSettings:
        interval = max(1, round(self.sample_ps / time_step_ps))
        friction = self.friction_per_ps
        if friction is None:
            friction = system.friction_per_ps if system.thermostat is Thermostat.LANGEVIN else 1.0
        return settings_for(
            system,
            steps=interval * max(NUM_BLOCKS, round(self.length_ps / time_step_ps / interval)),
            report_interval=interval,
            checkpoint_interval=10 * interval,
            equilibration_ps=self.equilibration_ps,
            temperature=self.temperature,
            thermostat=Thermostat.LANGEVIN,
            friction_per_ps=friction,
            time_step_ps=time_step_ps,
            seed=self.seed,
            inner_steps=inner_steps,
            bonded_substeps=bonded_substeps,
            hydrogen_mass=hydrogen_mass,
        )


def scan_steps(
    system: SimulationSystem,
    model: ForceModel,
    directory: Path | str,
    plan: ScanPlan,
    backend: str = "auto",
    platform: str = "auto",
    threads: int | None = None,
    console: Console | None = None,
) -> Iterator[ScanRow]:
    """Run the plan row by row, each a run in a directory of its own; yields a row when it is measured.

    Interrupted, it goes on where it was when called again with the same arguments; rows that are done are read.

    Raises:
        SpecError: if a row's directory holds a run with other settings, or the model does not fit the system.
    """
    platform = choose_platform(platform)
    reference: ScanRow | None = None
    for name, settings in plan.runs(system):
        run = RunDirectory(Path(directory) / name)
        network = model if settings.accelerated else None
        identity = run_identity(system, settings, network, name, platform)
        key = f"{course_hash(identity)}-{settings.steps}"
        row = _read_row(run.path / ROW_FILE, key)
        if row is None:
            speed, remark = 0.0, ""
            try:
                result = simulate(
                    system, run.path, settings, network, name, backend, platform, threads, resume=True, console=console
                )
                speed = result.ns_per_day
            except (NonFiniteError, openmm.OpenMMException) as error:
                remark = str(error)
            row = _measure(name, run, settings, speed, remark, reference)
            _write_row(run.path / ROW_FILE, key, row)
        reference = row if name == REFERENCE else reference
        yield row


def _measure(
    name: str, run: RunDirectory, settings: RunSettings, speed: float, remark: str, reference: ScanRow | None
) -> ScanRow:
    temperatures: dict[str, Estimate] = {}
    potential = None
    if not remark:
        log = run.read_log()
        names = list(log.dtype.names or ())
        temperatures = {e: mean_with_error(log[element_column(e)], NUM_BLOCKS) for e in elements_in(names)}
        potential = mean_with_error(log["potential_kj_mol"], NUM_BLOCKS)
    row = ScanRow(
        name,
        settings.time_step_ps * 1000,
        settings.inner_steps,
        settings.bonded_substeps,
        settings.temperature,
        speed,
        temperatures,
        potential,
        Verdict.BLEW_UP,
        remark,
    )
    return row if remark else dataclasses.replace(row, verdict=judge(row, reference))


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


def save_scan(rows: Sequence[ScanRow], path: Path) -> None:
    """All rows as JSON."""
    write_atomically(path, (json.dumps([dataclasses.asdict(row) for row in rows], indent=2) + "\n").encode())


def _write_row(path: Path, key: str, row: ScanRow) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({"key": key, "row": dataclasses.asdict(row)}, indent=2).encode())


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
