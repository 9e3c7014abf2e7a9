"""Which forces of a System are cheap bonded terms and which are its expensive rest.

A time step need not be the same for both: bonds want 0.5 fs, and what they cost is nothing beside the rest.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openmm

BONDED_GROUP, NONBONDED_GROUP = 0, 1
"""Force groups that `split_groups` assigns."""

BONDED_FORCES = frozenset(
    {
        "HarmonicBondForce",
        "HarmonicAngleForce",
        "PeriodicTorsionForce",
        "RBTorsionForce",
        "CMAPTorsionForce",
        "CustomBondForce",
        "CustomAngleForce",
        "CustomTorsionForce",
        "CustomCompoundBondForce",
        "CustomCentroidBondForce",
        "CustomExternalForce",
        "RMSDForce",
        "AmoebaTorsionTorsionForce",
    }
)
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


def split_groups(system: openmm.System) -> None:
    """Put the bonded forces of a System into `BONDED_GROUP` and all others into `NONBONDED_GROUP`, in place."""
    for force in system.getForces():
        force.setForceGroup(BONDED_GROUP if part_of(force) is ForcePart.BONDED else NONBONDED_GROUP)
        if hasattr(force, "setReciprocalSpaceForceGroup"):
            force.setReciprocalSpaceForceGroup(-1)  # that of the force
