"""A System with all that is needed to run it, and which of its forces are cheap bonded terms.

A time step need not be the same for bonded forces and the expensive rest: bonds want 0.5 fs, and cost next to nothing.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.base.errors import SpecError, TopologyError

if TYPE_CHECKING:
    import openmm
    from openmm import app


class Thermostat(str, Enum):
    """How the temperature is held."""

    NOSE_HOOVER = "nose-hoover"
    """Nose-Hoover chain: deterministic, hardly disturbs the dynamics; the one to measure diffusion with."""
    LANGEVIN = "langevin"
    """Langevin, middle scheme: robust; its friction slows diffusion."""
    ISOKINETIC = "isokinetic"
    """The longest outer steps of accelerated runs; configurations alone, without temperatures or times."""
    MONTE_CARLO = "monte-carlo"
    """The network of an accelerated run proposes, the System's energy accepts: exact at any step, without times."""


UNTIMED = (Thermostat.ISOKINETIC, Thermostat.MONTE_CARLO)
"""Kinds of accelerated runs whose times mean nothing."""


@dataclass(frozen=True)
class SimulationSystem:
    """An OpenMM System with all that is needed to run it, and good defaults for how."""

    name: str
    system: openmm.System
    topology: app.Topology
    positions: np.ndarray
    """(num_particles, 3) start, nm."""
    temperature: float = 300.0
    """K."""
    time_step_ps: float = 0.002
    thermostat: Thermostat = Thermostat.LANGEVIN
    friction_per_ps: float = 1.0
    """Friction of Langevin, or collision frequency of Nose-Hoover."""
    equilibration_ps: float = 20.0
    """How long the start takes to be forgotten."""
    bonded_substeps: int = 1
    """Steps of the bonded forces within one time step; more than 1 asks for Langevin."""
    prepare: Callable[[int], np.ndarray] | None = field(default=None, compare=False)
    """Starting positions for a seed, (num_particles, 3) nm, where the same start for all would take long to forget."""
    started_from: str = ""
    """The run whose last frame the positions are, as it was given; empty if they are the system's own."""

    def __post_init__(self) -> None:
        num_particles = self.system.getNumParticles()
        num_atoms = self.topology.getNumAtoms()
        if num_atoms != num_particles:
            raise TopologyError(
                f"the topology of {self.name} has {num_atoms} atoms, the System {num_particles} particles: "
                "give the topology that the System was made from, virtual sites included"
            )
        if self.positions.shape != (num_particles, 3):
            raise TopologyError(
                f"the positions of {self.name} have shape {self.positions.shape}: expected ({num_particles}, 3)"
            )

    def __repr__(self) -> str:
        box = self.box_vectors
        where = "no box" if box is None else "box " + " x ".join(f"{np.linalg.norm(v):.3g}" for v in box) + " nm"
        of = f"{self.temperature:g} K, {self.thermostat.value}, steps of {1000 * self.time_step_ps:g} fs"
        return f"SimulationSystem({self.name!r}: {len(self.positions)} particles, {where}, {of})"

    def start(self, seed: int) -> np.ndarray:
        """(num_particles, 3) positions in nm from which a run with this seed begins."""
        return self.positions if self.prepare is None else self.prepare(seed)

    def at_pressure(self, pressure: float, temperature: float, seed: int) -> SimulationSystem:
        """The same with a Monte Carlo barostat.

        Args:
            pressure: bar.
            temperature: of the thermostat, K.
        Raises:
            SpecError: if there is no box, or a barostat already.
        """
        import openmm

        if not self.periodic:
            raise SpecError(f"{self.name} has no periodic box, whose pressure could be held: leave the pressure out")
        own = [force.getName() for force in self.system.getForces() if "Barostat" in type(force).__name__]
        if own:
            raise SpecError(f"{self.name} has a barostat of its own, {own[0]}: leave the pressure out, or remove it")
        system = copy.deepcopy(self.system)
        barostat = openmm.MonteCarloBarostat(pressure, temperature)
        barostat.setRandomNumberSeed(seed)
        system.addForce(barostat)
        return replace(self, system=system)

    @property
    def periodic(self) -> bool:
        return is_periodic_system(self.system)

    @property
    def box_vectors(self) -> np.ndarray | None:
        """(3, 3) rows a, b, c in nm; None without periodic boundaries."""
        from openmm import unit

        if not self.periodic:
            return None
        return np.array([v.value_in_unit(unit.nanometer) for v in self.system.getDefaultPeriodicBoxVectors()])

    @property
    def masses(self) -> np.ndarray:
        """(num_particles,) in dalton; 0 marks virtual sites and frozen atoms."""
        return masses_of(self.system)


def masses_of(system: openmm.System) -> np.ndarray:
    """(num_particles,) in dalton; 0 marks virtual sites and frozen atoms."""
    return np.array([system.getParticleMass(index)._value for index in range(system.getNumParticles())])


def virtual_sites_of(system: openmm.System) -> list[int]:
    """Indices of the particles that are virtual sites."""
    return [index for index in range(system.getNumParticles()) if system.isVirtualSite(index)]


BONDED_GROUP, NONBONDED_GROUP = 0, 1
"""Force groups that `split_groups` assigns."""

_BONDED_NAMES = (
    "HarmonicBondForce HarmonicAngleForce PeriodicTorsionForce RBTorsionForce CMAPTorsionForce CustomBondForce "
    "CustomAngleForce CustomTorsionForce CustomCompoundBondForce CustomCentroidBondForce CustomExternalForce "
    "RMSDForce AmoebaTorsionTorsionForce"
)
BONDED_FORCES = frozenset(_BONDED_NAMES.split())
"""Classes whose cost grows with the number of bonds, restraints included."""


class ForcePart(str, Enum):
    """What a Force is to a time step."""

    BONDED = "bonded"
    """Cheap and fast."""
    NONBONDED = "nonbonded"
    """Everything else that has an energy: pair forces, Ewald sums, polarisation, machine-learned potentials."""
    NO_FORCE = "no force"
    """Thermostats, barostats, removal of the centre of mass's motion."""


class LabelledForces(str, Enum):
    """Which of a System's forces a frame is labelled with and a network learns; those of constraints are in none."""

    ALL = "all"
    NONBONDED = "nonbonded"
    """All but the bonded terms and restraints: the part that is worth replacing."""


def part_of(force: openmm.Force) -> ForcePart:
    """The part a Force belongs to, by its class."""
    name = type(force).__name__
    if name in BONDED_FORCES:
        return ForcePart.BONDED
    if name in ("CMMotionRemover", "AndersenThermostat") or "Barostat" in name:
        return ForcePart.NO_FORCE
    return ForcePart.NONBONDED


def is_periodic_system(system: openmm.System) -> bool:
    """Whether a force of a System uses its periodic box; a force of a plugin that does not say counts as one that not.

    This, and never a topology's box, decides whether positions of the System are periodic.
    """
    import openmm

    for force in system.getForces():
        try:
            if force.usesPeriodicBoundaryConditions():
                return True
        except openmm.OpenMMException:
            continue
    return False


_PICKLED = re.compile(r' function="80[0-9a-f]*"')
"""The callable of a PythonForce in XML, pickled."""
_OURS = b"openmm_gnn.forces.python_force".hex()


def stable_xml(system: openmm.System | openmm.Force) -> str:
    """A System or a Force as XML by which a run knows again, in another process, what it was begun with.

    What a PythonForce of other packages calls is left out: pickled again it has other bytes in every process.
    """
    import openmm

    written = openmm.XmlSerializer.serialize(system)
    return _PICKLED.sub(lambda found: found[0] if _OURS in found[0] else "", written)


def split_groups(system: openmm.System) -> None:
    """Put the bonded forces of a System into `BONDED_GROUP` and all others into `NONBONDED_GROUP`, in place."""
    for force in system.getForces():
        force.setForceGroup(BONDED_GROUP if part_of(force) is ForcePart.BONDED else NONBONDED_GROUP)
        if hasattr(force, "setReciprocalSpaceForceGroup"):
            force.setReciprocalSpaceForceGroup(-1)  # that of the force
