"""The settings of `label`: what a user asks for, and what all trajectories of a directory have in common."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openmm_gnn.base.errors import SettingsError, at_least, one_of, positive, whole
from openmm_gnn.md.run_settings import RunCourse, RunSettings, check_time_step
from openmm_gnn.md.simulation_system import LabelledForces, Thermostat

if TYPE_CHECKING:
    from openmm_gnn.md.simulation_system import SimulationSystem


@dataclass(frozen=True)
class ImportSettings:
    """How frames of other programs become seeds, which are held out as a whole."""

    blocks: int | None = None
    """Number of blocks of consecutive frames that each file is cut into; each becomes a seed. Default: 10 for a single
    file, 1 for several."""
    gap: int = 0
    """Number of frames left out between two blocks of a file, so that no frame has a neighbour in another block."""
    published_split: bool = False
    """Take the training frames of a published file as seed 1 and its test frames as seed 2, instead of blocks; frames
    of one run then lie in both, and errors on the test frames are too small."""
    forces: LabelledForces = LabelledForces.ALL
    """Forces that the frames carry: all, or nonbonded without the bonded terms, as in `label`."""

    def __post_init__(self) -> None:
        one_of(self, LabelledForces, "forces")
        whole(self, 1, "blocks")
        whole(self, 0, "gap")


@dataclass(frozen=True)
class GeometrySettings:
    """Which frames of trajectories are labelled, and as which seeds they are held out."""

    stride: int = 1
    """Number of frames of a file from one that is used to the next, with geometries: 10 uses every tenth."""
    blocks: int | None = None
    """Number of blocks of consecutive frames that each file is cut into; each becomes a seed. Default: 10 for a single
    file, 1 for several."""
    gap: int = 0
    """Number of frames left out between two blocks of a file, so that no frame has a neighbour in another block."""

    def __post_init__(self) -> None:
        whole(self, 1, "stride", "blocks")
        whole(self, 0, "gap")


@dataclass(frozen=True)
class LabelSettings:
    """Which trajectories are run and labelled. What is left at None follows from the system."""

    temperatures: tuple[float, ...] = ()
    """Temperatures, K: every seed is run at each. Default: the system's."""
    seeds: tuple[int, ...] = tuple(range(1, 11))
    """Seeds of initial velocities and random forces, such as 1-10 or 1,2,5-8: one trajectory each and per
    temperature."""
    frames: int = 1000
    """Number of frames per trajectory."""
    stride: int = 50
    """Number of time steps between two stored frames."""
    equilibration: float | None = None
    """Time before the first frame in ps; nothing of it is stored. Default: the system's."""
    thermostat: Thermostat | None = None
    """Thermostat: nose-hoover or langevin. Default: the system's."""
    friction: float | None = None
    """Friction of langevin, or collision frequency of nose-hoover, in 1/ps. Default: the system's."""
    time_step: float | None = None
    """Time step in fs. Default: the system's."""
    hydrogen_mass: float | None = None
    """Mass of bonded hydrogens in dalton, taken from their neighbours, which allows longer steps. Default: masses
    stay as they are."""
    forces: LabelledForces = LabelledForces.ALL
    """Forces that frames carry: all, or nonbonded without the bonded terms, for networks that accelerate a run."""
    allow_broken_bonds: bool = False
    """Go on when a bond of the topology breaks, as in a reaction. Default: a run stops where one is longer than 1.5
    times the sum of its atoms' covalent radii."""
    platform: str = "CPU"
    """Name of an OpenMM platform; Reference computes in double precision, and resumes bit for bit."""
    processes: int | None = None
    """Number of processes, each with one thread. Default: one per core."""
    checkpoint_seconds: float = 1.0
    """Wall time between two checkpoints in s: a killed run repeats at most this; a checkpoint takes about 10 ms."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperatures", tuple(float(kelvin) for kelvin in self.temperatures))
        object.__setattr__(self, "seeds", tuple(int(seed) for seed in self.seeds))
        one_of(self, LabelledForces, "forces")
        check_time_step(self)
        whole(self, 1, "frames", "stride", "processes")
        at_least(self, 0, "checkpoint_seconds")
        positive(self, "hydrogen_mass")
        for name in ("seeds", "temperatures"):
            values = getattr(self, name)
            if len(set(values)) < len(values) or (name == "seeds" and not values):
                raise SettingsError(self, name, "give each once, and one seed at least")

    def without_run(self) -> tuple[LabelledForces, str, bool]:
        """Forces, platform and whether bonds may be broken: what is asked of frames that are there.

        Raises:
            SettingsError: if something is asked of a run.
        """
        kept = ("forces", "platform", "allow_broken_bonds", "processes", "checkpoint_seconds")
        for one in dataclasses.fields(self):
            if one.name not in kept and getattr(self, one.name) != one.default:
                raise SettingsError(self, one.name, "it is for a run, and with geometries nothing is run: leave it out")
        return self.forces, self.platform, self.allow_broken_bonds

    def runs(self, system: SimulationSystem) -> list[tuple[float, int]]:
        """Temperature in K and seed of every trajectory."""
        return [(kelvin, seed) for kelvin in self.temperatures or (system.temperature,) for seed in self.seeds]

    def course(self, system: SimulationSystem) -> LabelCourse:
        """What the trajectories of this system have in common.

        Raises:
            SpecError: if a setting is out of range, or settings and system do not go together.
            BackendError: if OpenMM has no such platform here.
        """
        from openmm_gnn.md.contexts import choose_platform

        for kelvin, seed in self.runs(system):
            asked = RunSettings(
                steps=self.frames * self.stride,
                stride=self.stride,
                equilibration=self.equilibration,
                temperature=kelvin,
                thermostat=self.thermostat,
                friction=self.friction,
                time_step=self.time_step,
                hydrogen_mass=self.hydrogen_mass,
                seed=seed,
                checkpoint_every=self.stride,
            ).course(system)
        return LabelCourse(
            stride=asked.report_interval,
            equilibration_steps=asked.equilibration_steps,
            time_step_ps=asked.time_step_ps,
            thermostat=asked.thermostat,
            friction_per_ps=asked.friction_per_ps,
            platform=choose_platform(self.platform),
            bonded_substeps=asked.bonded_substeps,
            forces=self.forces,
            allow_broken_bonds=self.allow_broken_bonds,
        )


@dataclass(frozen=True)
class LabelCourse:
    """What all trajectories of a directory have in common, as its meta.json records it."""

    stride: int
    """Steps between two frames."""
    equilibration_steps: int
    """Steps before the first frame counts; nothing of them is stored."""
    time_step_ps: float
    thermostat: Thermostat
    friction_per_ps: float
    platform: str
    """Name of an OpenMM platform."""
    bonded_substeps: int = 1
    """Steps of the bonded forces within one time step."""
    forces: LabelledForces = LabelledForces.ALL
    """Which forces the frames carry; the dynamics is that of all."""
    allow_broken_bonds: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "thermostat", Thermostat(self.thermostat))
        object.__setattr__(self, "forces", LabelledForces(self.forces))

    def run(self, temperature: float, seed: int, frames: int) -> RunCourse:
        """The run of one trajectory.

        Raises:
            SpecError: if a number is out of range.
        """
        return RunCourse(
            steps=frames * self.stride,
            equilibration_steps=self.equilibration_steps,
            report_interval=self.stride,
            time_step_ps=self.time_step_ps,
            temperature=temperature,
            thermostat=self.thermostat,
            friction_per_ps=self.friction_per_ps,
            bonded_substeps=self.bonded_substeps,
            seed=seed,
            checkpoint_interval=self.stride,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; whether bonds may break only where they may."""
        values = {**dataclasses.asdict(self), "thermostat": self.thermostat.value, "forces": self.forces.value}
        return {name: value for name, value in values.items() if name != "allow_broken_bonds" or value}
