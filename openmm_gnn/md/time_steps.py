"""The longest time step that the masses and constraints of a System allow, and a question where more is asked for."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openmm
    from openmm import app

HEAVY_HYDROGEN = 1.49
"""Dalton; from 1.5 on hydrogens with fixed bonds allow steps of 4 fs, as OpenMM's guide has it."""
HEAVY_FREE_HYDROGEN = 2.5
"""Dalton; from here on hydrogens whose bonds vibrate allow steps of 1.5 fs."""
NOTHING_FASTER = "the network makes nothing faster here"
"""How the warning begins where an accelerated run costs more than steps of the System's own forces."""
QUESTIONED = 1.5
"""Multiple of the longest step above which a step is questioned."""


def longest_time_step(
    system: openmm.System, topology: app.Topology, hydrogen_mass: float | None = None
) -> tuple[float, str]:
    """The time step that is customary for a System, ps, and its reason.

    1 fs where bonds of hydrogens are free to vibrate, with a period of 10 fs; 2 fs where they are fixed, and 4 fs where
    those hydrogens are heavy too. What has no hydrogens takes 2 fs.

    Args:
        hydrogen_mass: of bonded hydrogens, dalton, in place of the System's.
    Source: Feenstra, Hess, Berendsen, J. Comput. Chem. 20, 786 (1999); Hopkins et al., J. Chem. Theory Comput. 11, 1864
        (2015).
    """
    masses = _hydrogens(system, topology, hydrogen_mass)
    fixed = dict.fromkeys(masses, 0)
    for index in range(system.getNumConstraints()):
        for atom in system.getConstraintParameters(index)[:2]:
            if atom in fixed:
                fixed[atom] += 1
    if not masses:
        return 0.002, "it has no hydrogens"
    if free := [atom for atom, count in fixed.items() if count == 0]:
        return 0.001, f"the bonds of {len(free)} hydrogens are free to vibrate, with a period of 10 fs"
    # The hydrogens of rigid water have two constraints each, and turn as slowly as heavy ones do.
    lightest = min([masses[atom] for atom, count in fixed.items() if count == 1] or masses.values())
    if lightest < HEAVY_HYDROGEN:
        return 0.002, f"the bonds of hydrogens are fixed, and hydrogens have {lightest:.3g} Da"
    return 0.004, f"the bonds of hydrogens are fixed, and hydrogens have {lightest:.3g} Da"


def accelerated_steps(
    system: openmm.System, topology: app.Topology, hydrogen_mass: float | None = None, untimed: bool = False
) -> tuple[float, int]:
    """Outer time step, ps, and inner steps of an accelerated run that are safe for a System.

    The network acts every 2 fs, three times in an outer step, where bonded forces in steps of their own or constraints
    hold all hydrogens. Where the bonds of hydrogens are the network's, as under a machine-learned potential, it acts
    every 1 fs, or 1.5 fs with heavy hydrogens, four times in an outer step. Isokinetic dynamics and hybrid
    Monte Carlo take 10 fs, with network steps of 2 fs, or 1 fs where the bonds of hydrogens are the network's.

    Args:
        hydrogen_mass: of bonded hydrogens, dalton, in place of the System's.
        untimed: whether the run is isokinetic or Monte Carlo.
    """
    free = free_hydrogens(system, topology, hydrogen_mass)
    if untimed:
        return 0.010, 10 if free else 5
    if not free:
        return 0.006, 3
    return (0.006, 4) if min(free.values()) >= HEAVY_FREE_HYDROGEN else (0.004, 4)


def free_hydrogens(
    system: openmm.System, topology: app.Topology, hydrogen_mass: float | None = None
) -> dict[int, float]:
    """Masses by index, dalton, of hydrogens that neither a constraint nor a bonded force holds, but the network.

    Args:
        hydrogen_mass: of bonded hydrogens, dalton, in place of the System's.
    """
    held = {atom for k in range(system.getNumConstraints()) for atom in system.getConstraintParameters(k)[:2]}
    for force in system.getForces():
        if type(force).__name__ in ("HarmonicBondForce", "CustomBondForce"):
            held.update(atom for k in range(force.getNumBonds()) for atom in force.getBondParameters(k)[:2])
    return {atom: mass for atom, mass in _hydrogens(system, topology, hydrogen_mass).items() if atom not in held}


def _hydrogens(system: openmm.System, topology: app.Topology, hydrogen_mass: float | None) -> dict[int, float]:
    """Masses of hydrogens by index, dalton."""
    return {
        atom.index: mass if hydrogen_mass is None else hydrogen_mass
        for atom in topology.atoms()
        if (mass := system.getParticleMass(atom.index)._value) > 0
        if (mass < HEAVY_HYDROGEN if atom.element is None else atom.element.atomic_number == 1)
    }


def question_time_step(asked_ps: float, longest_ps: float, reason: str) -> None:
    """Warn of a time step that is longer than a System allows."""
    if asked_ps > QUESTIONED * longest_ps:
        warnings.warn(
            f"the time step is {1000 * asked_ps:g} fs, where {1000 * longest_ps:g} fs is customary, as {reason}: a "
            "longer one warms the System, or tears it apart",
            stacklevel=3,
        )
