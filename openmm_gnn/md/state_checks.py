"""Signs of a run that went wrong: a number that is not finite, a bond that came apart, a temperature far too high.

A force field tears on until a number is NaN. A machine-learned potential is smooth and bounded: its molecules fly
apart, every number stays finite, and the run ends as if nothing had been.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Protocol

import numpy as np

from openmm_gnn.base.elements import COVALENT_RADII_NM
from openmm_gnn.base.units import kinetic_temperature
from openmm_gnn.md.contexts import degrees_of_freedom
from openmm_gnn.md.simulation_system import is_periodic_system, masses_of

if TYPE_CHECKING:
    import openmm
    from openmm import app

    from openmm_gnn.md.run_settings import RunCourse

FARTHEST_NM = 1e6
"""A millimetre: a position beyond is as lost as one that is NaN, and neighbour lists refuse it."""
LONGEST_BOND = 1.5
"""Length of a bond, over the sum of its atoms' covalent radii, above which it is broken. In a peptide at 450 K all stay
below 1.25."""
HOTTEST = 2.0
"""Temperature over the thermostat's above which a run is not in equilibrium."""
SIGMAS = 7.03
"""In a small system it may be as high as a Gaussian is in 1e-12 of the states."""
HOT_PS = 5.0
"""Picoseconds from the start in which a strained start may be hot; or five times what the thermostat takes to cool."""


class StateCheck(Protocol):
    """A sign of a run that went wrong."""

    def fault(self, state: openmm.State) -> str | None:
        """What is wrong with a state and at which step, for an error; None where nothing is.

        Args:
            state: with positions, velocities and energy.
        """


class FiniteNumbers:
    """Positions, velocities and forces are finite, and positions within a millimetre."""

    def __init__(self, topology: app.Topology) -> None:
        self._topology = topology

    def fault(self, state: openmm.State) -> str | None:
        """As `StateCheck.fault`; the first atom, by positions, velocities and forces in that order."""
        import openmm

        getters = {"positions": state.getPositions, "velocities": state.getVelocities, "forces": state.getForces}
        for quantity, getter in getters.items():
            try:
                values = np.asarray(getter(asNumpy=True)._value)
            except openmm.OpenMMException:
                continue  # this part was not asked for
            good = np.isfinite(values)
            if quantity == "positions":
                good &= np.abs(values) < FARTHEST_NM
            bad = np.flatnonzero(~good.all(axis=1))
            if len(bad):
                return (
                    f"{quantity} became NaN or infinite at step {state.getStepCount()}: first atom "
                    f"{_name(self._topology, bad[0])}, {len(bad)} atom(s) in that step"
                )
        return None


class WholeBonds:
    """No bond of the topology is longer than 1.5 times the sum of its atoms' covalent radii.

    Bonds that are so at the start, such as those over missing residues or of a coarse model, are not looked at, and
    warned of; those of particles without a mass or an element are not looked at either.

    Args:
        start: with positions.
        longest: length of a bond, over the sum of its atoms' covalent radii, above which it is broken.
    """

    def __init__(
        self, system: openmm.System, topology: app.Topology, start: openmm.State, longest: float = LONGEST_BOND
    ) -> None:
        self._longest = longest
        masses, self._topology, self._periodic = masses_of(system), topology, is_periodic_system(system)
        atoms = [
            (first, second)
            for first, second in topology.bonds()
            if first.element is not None and second.element is not None
            if masses[first.index] > 0 and masses[second.index] > 0
        ]
        self._bonds = np.array([(first.index, second.index) for first, second in atoms], int).reshape(-1, 2)
        radii = [[COVALENT_RADII_NM[atom.element.atomic_number] for atom in bond] for bond in atoms]
        self._lengths = np.array(radii).reshape(-1, 2).sum(axis=1)
        whole = self._stretched(start) <= longest
        if not whole.all():
            first, second = (_name(topology, atom) for atom in self._bonds[~whole][0])
            warnings.warn(
                f"{int((~whole).sum())} of {len(whole)} bonds are longer at the start than {longest:g} times the "
                f"covalent radii, the first is that of atoms {first} and {second}: residues may be missing there, or "
                "positions and topology be of different order; whether these bonds break is not watched",
                stacklevel=3,
            )
        self._bonds, self._lengths = self._bonds[whole], self._lengths[whole]

    def fault(self, state: openmm.State) -> str | None:
        """As `StateCheck.fault`; the longest of the broken bonds."""
        stretched = self._stretched(state)
        broken = np.flatnonzero(stretched > self._longest)
        if not len(broken):
            return None
        worst = int(broken[np.argmax(stretched[broken])])
        first, second = (_name(self._topology, atom) for atom in self._bonds[worst])
        length = self._lengths[worst]
        others = f", and {len(broken) - 1} other bond(s) are broken" if len(broken) > 1 else ""
        return (
            f"the bond of atoms {first} and {second} is {stretched[worst] * length:.3g} nm long at step "
            f"{state.getStepCount()}, usual are {length:.3g} nm{others} (for a "
            "reaction, --allow-broken-bonds)"
        )

    def _stretched(self, state: openmm.State) -> np.ndarray:
        """(bonds,) lengths over those of the covalent radii."""
        positions = np.asarray(state.getPositions(asNumpy=True)._value)
        vectors = positions[self._bonds[:, 0]] - positions[self._bonds[:, 1]]
        if self._periodic:
            box = np.asarray(state.getPeriodicBoxVectors(asNumpy=True)._value)
            vectors = vectors - np.round(vectors @ np.linalg.inv(box)) @ box
        return np.linalg.norm(vectors, axis=1) / self._lengths


class BoundedTemperature:
    """The kinetic temperature is at most twice the thermostat's, or what chance allows a small system.

    Kinetic energies follow a chi-square distribution, the cube root of which is nearly a Gaussian. Source: Wilson and
    Hilferty, Proc. Natl. Acad. Sci. USA 17, 684 (1931).

    Args:
        temperature: of the thermostat, K.
        friction_per_ps: of the thermostat; a start may be hot for 5 ps, or five times as long as that takes to cool.
        time_step_ps: of the run.
        hot_ps: picoseconds from the start in which it may be hot, if the thermostat is strong.
    """

    def __init__(
        self,
        system: openmm.System,
        temperature: float,
        friction_per_ps: float,
        time_step_ps: float,
        hot_ps: float = HOT_PS,
    ) -> None:
        self._freedom, self._target = degrees_of_freedom(system), temperature
        variance = 2 / (9 * max(1, self._freedom))
        self._limit = temperature * max(HOTTEST, (1 - variance + SIGMAS * variance**0.5) ** 3)
        self._first_step = max(hot_ps, 5 / friction_per_ps) / time_step_ps

    def fault(self, state: openmm.State) -> str | None:
        """As `StateCheck.fault`."""
        if self._freedom <= 0 or state.getStepCount() < self._first_step:
            return None
        temperature = float(kinetic_temperature(state.getKineticEnergy()._value, self._freedom))
        if temperature <= self._limit:
            return None
        return (
            f"the temperature is {temperature:.0f} K at step {state.getStepCount()}, {self._target:g} K are asked for"
        )


def run_checks(
    context: openmm.Context, topology: app.Topology, course: RunCourse, allow_broken_bonds: bool = False
) -> list[StateCheck]:
    """What is looked at in a run that begins or goes on at the present positions of a Context."""
    system = context.getSystem()
    checks: list[StateCheck] = []
    if not allow_broken_bonds:
        checks.append(WholeBonds(system, topology, context.getState(positions=True)))
    if course.physical_velocities:
        friction, step_ps = course.friction_per_ps, course.time_step_ps
        checks.append(BoundedTemperature(system, course.temperature, friction, step_ps))
    return checks


def _name(topology: app.Topology, index: int) -> str:
    atom = list(topology.atoms())[index]
    return f"{index} ({atom.name} of residue {atom.residue.name} {atom.residue.id})"
