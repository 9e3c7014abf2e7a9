"""What defines a run: integrator, temperature, lengths, seed; checked at birth, hashed, stored as JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from openmm_gnn.base.errors import SpecError
from openmm_gnn.md.force_parts import BONDED_GROUP, NONBONDED_GROUP

if TYPE_CHECKING:
    import openmm

    from openmm_gnn.md.simulation_system import SimulationSystem

ACCELERATED_STEP_PS, BONDED_STEP_PS, ACCELERATED_FRICTION_PER_PS = 0.006, 0.0005, 1.0
NOSE_HOOVER_CHAIN_LENGTH = 10
NOSE_HOOVER_MULTIPLE_TIME_STEPS = 5
NOSE_HOOVER_YOSHIDA_SUZUKI = 5


class Thermostat(str, Enum):
    """How the temperature is held."""

    NOSE_HOOVER = "nose-hoover"
    """Nose-Hoover chain: deterministic, hardly disturbs the dynamics; the one to measure diffusion with."""
    LANGEVIN = "langevin"
    """Langevin, middle scheme: robust; its friction slows diffusion."""


@dataclass(frozen=True)
class RunSettings:
    """Everything that decides the course of a run but the system and its forces.

    The defaults are those of the GAMD paper for argon (J. Chem. Phys. 156, 144103 (2022)): 2 fs, 100 K,
    Nose-Hoover chain of length 10 with frequency 25/ps, multiple time stepping 5, Yoshida-Suzuki 5.
    """

    steps: int = 100_000
    """Production steps; frames are reported in these."""
    equilibration_steps: int = 10_000
    """Steps before production, with the same forces and integrator; nothing of them is stored."""
    report_interval: int = 50
    """Steps between two frames."""
    time_step_ps: float = 0.002
    temperature: float = 100.0
    """K."""
    thermostat: Thermostat = Thermostat.NOSE_HOOVER
    friction_per_ps: float = 25.0
    """Friction of Langevin, or collision frequency of Nose-Hoover."""
    bonded_substeps: int = 1
    """Steps of the bonded forces within one time step (BAOAB-RESPA), or within one inner step of an accelerated run;
    more than 1 needs Langevin."""
    inner_steps: int = 0
    """Evaluations of the network per time step of an accelerated run; 0: a run that is not accelerated."""
    hydrogen_mass: float | None = None
    """Dalton, taken from the atoms that the hydrogens are bonded to; None: masses stay."""
    seed: int = 1
    """Of the initial velocities and of Langevin's random forces; 1 or more."""
    checkpoint_interval: int = 1000
    """Steps between two checkpoints: what a kill loses at most. A multiple of report_interval."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "thermostat", Thermostat(self.thermostat))
        least_values = {
            "steps": 1,
            "equilibration_steps": 0,
            "report_interval": 1,
            "bonded_substeps": 1,
            "inner_steps": 0,
            "seed": 1,
        }
        for name, least in least_values.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise SpecError(f"RunSettings.{name} is {value!r}: give a whole number, {least} or more")
        for name in ("time_step_ps", "temperature", "friction_per_ps"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise SpecError(f"RunSettings.{name} is {value!r}: give a finite number above 0")
        if self.checkpoint_interval < 1 or self.checkpoint_interval % self.report_interval:
            raise SpecError(
                f"RunSettings.checkpoint_interval is {self.checkpoint_interval}: give a multiple of "
                f"report_interval ({self.report_interval})"
            )
        if (self.bonded_substeps > 1 or self.accelerated) and self.thermostat is not Thermostat.LANGEVIN:
            name = "inner_steps" if self.accelerated else "bonded_substeps"
            raise SpecError(
                f"RunSettings.{name} is {getattr(self, name)} with thermostat {self.thermostat.value}: "
                "multiple time steps need langevin"
            )
        if self.steps % self.report_interval:
            raise SpecError(
                f"RunSettings.steps is {self.steps}: give a multiple of report_interval ({self.report_interval})"
            )

    @property
    def accelerated(self) -> bool:
        return self.inner_steps > 0

    @property
    def num_frames(self) -> int:
        return self.steps // self.report_interval

    @property
    def frame_interval_ps(self) -> float:
        return self.report_interval * self.time_step_ps


def settings_for(
    system: SimulationSystem,
    steps: int,
    report_interval: int = 50,
    checkpoint_interval: int | None = None,
    equilibration_ps: float | None = None,
    temperature: float | None = None,
    thermostat: Thermostat | None = None,
    friction_per_ps: float | None = None,
    time_step_ps: float | None = None,
    seed: int = 1,
    inner_steps: int = 0,
    bonded_substeps: int | None = None,
    hydrogen_mass: float | None = None,
) -> RunSettings:
    """Settings for a system: what is not given is the system's own default.

    An accelerated run (inner_steps above 0) has Langevin dynamics, a time step of 6 fs and bonded substeps of at most
    0.5 fs where nothing else is given.
    """
    if inner_steps > 0:
        time_step_ps = ACCELERATED_STEP_PS if time_step_ps is None else time_step_ps
        if bonded_substeps is None:
            bonded_substeps = max(1, math.ceil(time_step_ps / inner_steps / BONDED_STEP_PS - 1e-9))
        if thermostat is None and system.thermostat is not Thermostat.LANGEVIN:
            thermostat = Thermostat.LANGEVIN
            friction_per_ps = ACCELERATED_FRICTION_PER_PS if friction_per_ps is None else friction_per_ps
    time_step = system.time_step_ps if time_step_ps is None else time_step_ps
    equilibration = system.equilibration_ps if equilibration_ps is None else equilibration_ps
    return RunSettings(
        steps=steps,
        equilibration_steps=round(equilibration / time_step) if time_step > 0 else 0,
        report_interval=report_interval,
        time_step_ps=time_step,
        temperature=system.temperature if temperature is None else temperature,
        thermostat=system.thermostat if thermostat is None else thermostat,
        friction_per_ps=system.friction_per_ps if friction_per_ps is None else friction_per_ps,
        bonded_substeps=system.bonded_substeps if bonded_substeps is None else bonded_substeps,
        inner_steps=inner_steps,
        hydrogen_mass=hydrogen_mass,
        seed=seed,
        checkpoint_interval=20 * report_interval if checkpoint_interval is None else checkpoint_interval,
    )


def make_integrator(settings: RunSettings) -> openmm.Integrator:
    """The OpenMM integrator of these settings; with bonded substeps the System needs `split_groups` first."""
    import openmm
    from openmm import unit

    if settings.bonded_substeps > 1:
        integrator = openmm.MTSLangevinIntegrator(  # plain numbers raise
            settings.temperature * unit.kelvin,
            settings.friction_per_ps / unit.picosecond,
            settings.time_step_ps * unit.picoseconds,
            [(NONBONDED_GROUP, 1), (BONDED_GROUP, settings.bonded_substeps)],
        )
        integrator.setRandomNumberSeed(settings.seed)
        return integrator

    if settings.thermostat is Thermostat.LANGEVIN:
        langevin = openmm.LangevinMiddleIntegrator(
            settings.temperature, settings.friction_per_ps, settings.time_step_ps
        )
        langevin.setRandomNumberSeed(settings.seed)
        return langevin
    return openmm.NoseHooverIntegrator(
        settings.temperature,
        settings.friction_per_ps,
        settings.time_step_ps,
        NOSE_HOOVER_CHAIN_LENGTH,
        NOSE_HOOVER_MULTIPLE_TIME_STEPS,
        NOSE_HOOVER_YOSHIDA_SUZUKI,
    )


EXTENDABLE = ("steps", "checkpoint_interval")
"""Settings that a resumed run may change: they do not alter what is stored already."""


def settings_to_dict(settings: RunSettings) -> dict[str, Any]:
    """A plain dictionary for JSON."""
    fields = dataclasses.asdict(settings)
    return {**fields, "thermostat": settings.thermostat.value}


def course_hash(identity: dict[str, Any]) -> str:
    """A hash of what decides the course of a run; the extendable settings are left out."""
    fixed = {**identity, "settings": {k: v for k, v in identity["settings"].items() if k not in EXTENDABLE}}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()


def text_hash(text: str) -> str:
    """The SHA-256 of a text, such as the XML of a System."""
    return hashlib.sha256(text.encode()).hexdigest()
