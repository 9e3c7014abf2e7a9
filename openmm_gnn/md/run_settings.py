"""The settings of a run: what a user asks for, and what it comes to for one system, hashed and stored as JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openmm_gnn.base.errors import SettingsError, SpecError, at_least, positive, whole
from openmm_gnn.md.simulation_system import UNTIMED, Thermostat
from openmm_gnn.md.time_steps import accelerated_steps, longest_time_step, question_time_step

if TYPE_CHECKING:
    from openmm_gnn.md.simulation_system import SimulationSystem

BONDED_STEP_PS, ACCELERATED_FRICTION_PER_PS, UNTIMED_FRICTION_PER_PS = 0.0005, 1.0, 10.0
LONGEST_OUTER_STEP_PS = 0.004
"""Customary with bonded substeps, which follow the bonds of hydrogens."""
FRAMES_PER_CHECKPOINT = 20


@dataclass(frozen=True)
class ComputeSettings:
    """Where a run is computed; its results are the same but for rounding."""

    platform: str = "auto"
    """Name of an OpenMM platform, such as CPU, CUDA or Reference. Default: CUDA where it works, else CPU."""
    backend: str = "auto"
    """Plugin that calls the network: auto, torchforce or pythonforce."""
    threads: int | None = None
    """Number of CPU threads of each process. Default: all cores."""

    def __post_init__(self) -> None:
        whole(self, 1, "threads")


@dataclass(frozen=True)
class RunSettings:
    """What is asked of a run. What is left at None follows from the system and is filled in by `course`."""

    steps: int = 100_000
    """Number of time steps of the production, a multiple of stride."""
    stride: int = 50
    """Number of time steps between two stored frames."""
    equilibration: float | None = None
    """Time before the first frame in ps; nothing of it is stored. Default: the system's."""
    temperature: float | None = None
    """Temperature of the thermostat in K. Default: the system's."""
    thermostat: Thermostat | None = None
    """Thermostat: nose-hoover or langevin; of accelerated runs langevin, isokinetic or monte-carlo. isokinetic bears
    outer steps of 10 fs and more and samples configurations alone: its velocities, temperatures and times mean nothing.
    monte-carlo takes or refuses each time step by the system's own energy: exact, without times. Default: the system's;
    accelerated runs take langevin."""
    friction: float | None = None
    """Friction of langevin, or collision frequency of nose-hoover, in 1/ps. Default: the system's; isokinetic and
    monte-carlo 10."""
    hydrogen_friction: float | None = None
    """Friction of hydrogens in 1/ps, in an accelerated run with langevin; 20 damps the resonances of their vibrations
    and bears longer outer steps. Default: that of the other atoms."""
    time_step: float | None = None
    """Time step in fs. Default: a named system's own; else 4 with heavy hydrogens whose bonds are fixed, 2 with light
    ones, 1 where they vibrate; 6 for accelerated runs, 4 where the network holds the bonds of light hydrogens, 10 for
    isokinetic and monte-carlo;
    `scan-steps` finds the longest stable one."""
    seed: int = 1
    """Seed of initial velocities and random forces, 1 or more."""
    checkpoint_every: int | None = None
    """Number of time steps between two checkpoints: a killed run repeats at most these; a multiple of stride. Default:
    20 frames."""
    accelerate: bool = False
    """Sample the system's own ensemble: the network acts in short steps, the system's own forces correct its error."""
    inner_steps: int | None = None
    """Number of evaluations of the network per time step of an accelerated run. Default: 3, or 4 where the network
    holds the bonds of hydrogens; 5 and 10 for isokinetic and
    monte-carlo."""
    expensive: tuple[str, ...] = ()
    """Name or force group of a force that the network stands for, in an accelerated run; may be given again. Default:
    all but the bonded ones."""
    network_atoms: str | None = None
    """Atoms that the network sees, in an accelerated run, as a selection of MDTraj such as "resname LIG". Default:
    all."""
    bonded_substeps: int | None = None
    """Number of steps of the bonded forces per step of the rest. Default: the system's; in accelerated runs the fewest
    of at most 0.5 fs."""
    hydrogen_mass: float | None = None
    """Mass of bonded hydrogens in dalton, taken from their neighbours, which allows longer steps. Default: masses
    stay as they are."""
    pressure: float | None = None
    """Pressure in bar, held by a Monte Carlo barostat. Default: the box stays, or as the system's own barostat has
    it."""

    network_pressure: bool = False
    """Let a barostat act on the pressure of a network, which no training fits: the network that you give has been
    checked for it. Default: it is refused."""
    allow_broken_bonds: bool = False
    """Go on when a bond of the topology breaks, as in a reaction. Default: a run stops where one is longer than 1.5
    times the sum of its atoms' covalent radii."""

    def __post_init__(self) -> None:
        if self.thermostat is not None:
            object.__setattr__(self, "thermostat", Thermostat(self.thermostat))
        check_time_step(self)
        for name in ("expensive", "network_atoms", "hydrogen_friction"):
            if getattr(self, name) and not self.accelerate:
                raise SettingsError(self, name, "it is for accelerated runs: give accelerate too")
        at_least(self, 0, "pressure")
        whole(self, 1, "steps", "stride", "seed", "checkpoint_every", "inner_steps", "bonded_substeps")
        positive(self, "temperature", "friction", "hydrogen_friction", "time_step", "hydrogen_mass")
        at_least(self, 0, "equilibration")
        for name in ("steps", "checkpoint_every"):
            if (getattr(self, name) or 0) % self.stride:
                raise SettingsError(self, name, f"give a multiple of stride, {self.stride} steps between two frames")

    def course(self, system: SimulationSystem) -> RunCourse:
        """The run of one system, with everything that was left open taken from it.

        Raises:
            SpecError: if settings and system do not go together.
        """
        thermostat = self.thermostat or system.thermostat
        friction = system.friction_per_ps if self.friction is None else self.friction
        bonded_substeps = self.bonded_substeps or system.bonded_substeps
        if thermostat in UNTIMED and self.friction is None:
            friction = UNTIMED_FRICTION_PER_PS
        safe_step_ps, safe_inner_steps = accelerated_steps(
            system.system, system.topology, self.hydrogen_mass, thermostat in UNTIMED
        )
        inner_steps = (self.inner_steps or safe_inner_steps) if self.accelerate else 0
        if self.time_step is not None:
            time_step_ps = self.time_step / 1000
        elif self.accelerate:
            time_step_ps = safe_step_ps
        elif self.hydrogen_mass is not None:
            longest, _ = longest_time_step(system.system, system.topology, self.hydrogen_mass)
            time_step_ps = max(longest, system.time_step_ps)
        else:
            time_step_ps = system.time_step_ps
        if self.accelerate:
            inner_step_ps = time_step_ps / inner_steps
            bonded_substeps = self.bonded_substeps or max(1, math.ceil(inner_step_ps / BONDED_STEP_PS - 1e-9))
            if self.thermostat is None and system.thermostat is not Thermostat.LANGEVIN:
                thermostat = Thermostat.LANGEVIN
                friction = ACCELERATED_FRICTION_PER_PS if self.friction is None else friction
        if self.time_step is not None:
            longest, reason = longest_time_step(system.system, system.topology, self.hydrogen_mass)
            longest = max(longest, min(bonded_substeps * longest, LONGEST_OUTER_STEP_PS))
            question_time_step(time_step_ps / max(1, inner_steps), longest, reason)
        equilibration_ps = system.equilibration_ps if self.equilibration is None else self.equilibration
        return RunCourse(
            steps=self.steps,
            equilibration_steps=round(equilibration_ps / time_step_ps),
            report_interval=self.stride,
            time_step_ps=time_step_ps,
            temperature=system.temperature if self.temperature is None else self.temperature,
            thermostat=thermostat,
            friction_per_ps=friction,
            bonded_substeps=bonded_substeps,
            inner_steps=inner_steps,
            hydrogen_mass=self.hydrogen_mass,
            pressure=self.pressure,
            expensive=tuple(self.expensive),
            network_atoms=self.network_atoms,
            hydrogen_friction=self.hydrogen_friction,
            seed=self.seed,
            checkpoint_interval=self.checkpoint_every or FRAMES_PER_CHECKPOINT * self.stride,
        )


LEAST_STEP_FS, MOST_STEP_FS = 0.05, 50.0


def check_time_step(settings: Any) -> None:
    """Question a `time_step` in fs that nobody can mean, such as one that was meant in ps.

    Raises:
        SettingsError: if it is below 0.05 or above 50 fs.
    """
    step = settings.time_step
    positive(settings, "time_step")
    if step is not None and not LEAST_STEP_FS <= step <= MOST_STEP_FS:
        meant = f", or {1000 * step:g} if ps were meant" if LEAST_STEP_FS <= 1000 * step <= MOST_STEP_FS else ""
        raise SettingsError(
            settings, "time_step", f"it is in fs: give {LEAST_STEP_FS:g} to {MOST_STEP_FS:g}, usually 0.5 to 4{meant}"
        )


@dataclass(frozen=True)
class RunCourse:
    """Everything that decides the course of a run but the system and its forces, as run.json records it."""

    steps: int
    """Production steps; frames are reported in these."""
    equilibration_steps: int
    """Steps before production, with the same forces and integrator; nothing of them is stored."""
    report_interval: int
    """Steps between two frames."""
    time_step_ps: float
    temperature: float
    """K."""
    thermostat: Thermostat
    friction_per_ps: float
    """Friction of Langevin, or collision frequency of Nose-Hoover."""
    checkpoint_interval: int
    """Steps between two checkpoints: what a kill loses at most. A multiple of report_interval."""
    seed: int
    """Seed of the initial velocities and of Langevin's random forces; 1 or more."""
    bonded_substeps: int = 1
    """Steps of the bonded forces within one time step (BAOAB-RESPA), or within one inner step of an accelerated run;
    more than 1 needs Langevin."""
    inner_steps: int = 0
    """Evaluations of the network per time step of an accelerated run; 0: a run that is not accelerated."""
    hydrogen_mass: float | None = None
    """Dalton, taken from the atoms that the hydrogens are bonded to; None: masses stay."""
    pressure: float | None = None
    """Bar, of the barostat that the run adds; None: it adds none."""
    expensive: tuple[str, ...] = ()
    """Names or groups of the forces that the network of an accelerated run stands for; none: all but the bonded."""
    network_atoms: str | None = None
    """Selection of the atoms that this network sees; None: all."""
    hydrogen_friction: float | None = None
    """1/ps, of hydrogens in an accelerated run with Langevin; None: that of the other atoms."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "thermostat", Thermostat(self.thermostat))
        object.__setattr__(self, "expensive", tuple(self.expensive))
        whole(self, 1, "steps", "report_interval", "bonded_substeps", "seed", "checkpoint_interval")
        whole(self, 0, "equilibration_steps", "inner_steps")
        positive(self, "time_step_ps", "temperature", "friction_per_ps")
        for name in ("steps", "checkpoint_interval"):
            if getattr(self, name) % self.report_interval:
                remedy = f"give a multiple of report_interval, the {self.report_interval} steps between two frames"
                raise SettingsError(self, name, remedy)
        if self.thermostat in UNTIMED:
            name = self.thermostat.value
            if not self.accelerated:
                raise SettingsError(self, "thermostat", f"{name} is for accelerated runs: give accelerate too")
            if self.hydrogen_friction is not None:
                raise SettingsError(self, "hydrogen_friction", f"it is of langevin: leave it out with {name}")
        elif (self.bonded_substeps > 1 or self.accelerated) and self.thermostat is not Thermostat.LANGEVIN:
            name = "inner_steps" if self.accelerated else "bonded_substeps"
            raise SpecError(
                f"RunCourse.{name} is {getattr(self, name)} with thermostat {self.thermostat.value}: "
                "multiple time steps need langevin"
            )

    @property
    def accelerated(self) -> bool:
        return self.inner_steps > 0

    @property
    def physical_times(self) -> bool:
        """Whether the run is dynamics, in which things diffuse."""
        return self.thermostat not in UNTIMED

    @property
    def physical_velocities(self) -> bool:
        """Whether kinetic energies and temperatures mean anything."""
        return self.thermostat is not Thermostat.ISOKINETIC

    @property
    def total_steps(self) -> int:
        """Steps of equilibration and production together."""
        return self.equilibration_steps + self.steps

    @property
    def num_frames(self) -> int:
        return self.steps // self.report_interval

    @property
    def frame_interval_ps(self) -> float:
        return self.report_interval * self.time_step_ps

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; those that not every run has only where there are some."""
        values = {**dataclasses.asdict(self), "thermostat": self.thermostat.value, "expensive": list(self.expensive)}
        return {name: value for name, value in values.items() if name not in _OPTIONAL or value not in (None, [])}


_OPTIONAL = ("pressure", "expensive", "network_atoms", "hydrogen_friction")
EXTENDABLE = ("steps", "checkpoint_interval")
"""Settings that a resumed run may change: they do not alter what is stored already."""


def course_hash(identity: dict[str, Any]) -> str:
    """A hash of what decides the course of a run; the extendable settings are left out."""
    fixed = {**identity, "settings": {k: v for k, v in identity["settings"].items() if k not in EXTENDABLE}}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def text_hash(text: str) -> str:
    """The SHA-256 of a text, such as the XML of a System."""
    return hashlib.sha256(text.encode()).hexdigest()
