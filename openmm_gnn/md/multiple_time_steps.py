"""Three time steps: bonded forces, a network, and the expensive forces less the network.

One outer step of length dt, with n network steps and m bonded substeps in each of those:

    v += dt/2 (expensive - network) / mass
    n times:  v += dt/2n network / mass;  m bonded substeps of length dt/nm;  v += dt/2n network / mass
    v += dt/2 (expensive - network) / mass

A bonded substep is velocity Verlet, or BAOAB where there is a temperature. Kicks at the same positions commute, so all
of them at one point in time are one kick; and the forces at the end of a step are those at the start of the next. So
the expensive force costs one evaluation per step and the network n; OpenMM's own multiple-time-step integrators would
evaluate the network n + 2 times, since a network that is subtracted in the outer level counts there too.

Sources: Tuckerman, Berne, Martyna, J. Chem. Phys. 97, 1990 (1992), doi 10.1063/1.463137 (r-RESPA); Lagardere, Aviat,
Piquemal, J. Phys. Chem. Lett. 10, 2593 (2019), doi 10.1021/acs.jpclett.9b00901 (BAOAB-RESPA).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
from openmm import unit

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K, kelvin, per_picosecond

NUM_GROUPS = 32
_UNSEEN = 1e10
"""A force that no System has: at its first step the integrator finds everything changed."""


@dataclass(frozen=True)
class TimeLevels:
    """Which force groups act how often, and for how long."""

    time_step_ps: float
    """dt, the outer step."""
    inner_steps: int
    """n, evaluations of the network per outer step."""
    bonded_substeps: int
    """m; 1 where there are no bonded groups."""
    bonded_groups: tuple[int, ...]
    """Force groups of the bonded forces, perhaps none."""
    network_group: int
    negated_group: int
    """Force group that takes the network out of the System's sum; never integrated."""
    inner_groups: tuple[int, ...] = ()
    """Force groups that act as often as the network, and are not replaced by it."""

    def __post_init__(self) -> None:
        if not (self.time_step_ps > 0 and self.time_step_ps < float("inf")):
            raise SpecError(f"time_step is {self.time_step_ps} ps: give a finite time above 0")
        for name in ("inner_steps", "bonded_substeps"):
            count = getattr(self, name)
            if not isinstance(count, int) or count < 1:
                raise SpecError(f"{name} is {count!r}: give a whole number, 1 or more")
        if not self.bonded_groups:
            object.__setattr__(self, "bonded_substeps", 1)

    @property
    def substeps(self) -> int:
        """Bonded substeps per outer step, in each of which the positions move once."""
        return self.inner_steps * self.bonded_substeps

    @property
    def as_often_as_the_network(self) -> tuple[int, ...]:
        """The group of the network and those that act with it."""
        return (self.network_group, *self.inner_groups)


@dataclass(frozen=True)
class Bath:
    """The thermostat of an accelerated run; None for both: constant energy."""

    temperature: float | None
    """K."""
    friction_per_ps: float | None
    """Friction of the thermostat."""
    friction_of_atoms: Mapping[int, float] | None = None
    """1/ps of some atoms by index, in place of that of all."""

    def __post_init__(self) -> None:
        if (self.temperature is None) is not (self.friction_per_ps is None):
            raise SpecError(
                f"temperature is {self.temperature} and friction {self.friction_per_ps}: give both for constant "
                "temperature, None for both for constant energy"
            )
        of_atoms = self.friction_of_atoms or {}
        if of_atoms and self.temperature is None:
            raise SpecError("hydrogen_friction is given without a temperature: give both, or neither")
        named = [("temperature", self.temperature), ("friction", self.friction_per_ps)]
        for name, value in [*named, *(("hydrogen_friction", value) for value in of_atoms.values())]:
            if value is not None and not 0 <= value < float("inf"):
                raise SpecError(f"{name} is {value}: give a finite number, 0 or more")


class LevelledIntegrator(openmm.CustomIntegrator):
    """An integrator of several time steps for what `accelerate` makes; its kinds write the step.

    The whole System without the two network groups is the integration force groups: what a minimiser or a barostat
    sees, and what the network corrects to. The expensive force is that whole less the bonded and the inner groups, so
    a force that is added to the System in any other group is integrated as part of it.

    Args:
        levels: groups and steps.
        bath: temperature and friction.
        steps_per_outer_step: OpenMM's steps in an outer step; the length of one is dt over this.
    Raises:
        SpecError: if a number is out of range, or only one of temperature and friction is given.
    """

    physical_velocities = True
    """Whether velocities have the temperature of the thermostat."""

    def __init__(self, levels: TimeLevels, bath: Bath, steps_per_outer_step: int = 1) -> None:
        super().__init__(levels.time_step_ps / steps_per_outer_step)
        self.levels = levels
        self.steps_per_outer_step = steps_per_outer_step
        """OpenMM's steps in an outer step."""
        self._thermostatted = bath.temperature is not None
        self._substep = f"dt*{steps_per_outer_step / levels.substeps!r}"
        """The length of a bonded substep."""
        self.setIntegrationForceGroups(set(range(NUM_GROUPS)) - {levels.network_group, levels.negated_group})
        # Names with a prefix: a parameter of some force in the System may be called kT too.
        if bath.temperature is not None and bath.friction_per_ps is not None:
            self.addGlobalVariable("mts_kT", BOLTZMANN_KJ_MOL_K * bath.temperature)
            self.addGlobalVariable("mts_friction", bath.friction_per_ps)

    def half_step_velocities(self, velocities: np.ndarray, masses: np.ndarray) -> np.ndarray:
        """(N, 3) nm/ps in the middle of a substep, whose mean kinetic energy is kT/2 for each coordinate.

        Velocities at a step are colder: by the factor 1 - (w h)^2 / 4 for a vibration of the frequency w in substeps of
        h, which is 8 % for 3000 / cm, a bond of hydrogen, at 1 fs. Source: Leimkuhler and Matthews, Molecular Dynamics
        (2015), chapter 7.

        Args:
            velocities: (N, 3) nm/ps at the end of a step, of a System without constraints.
            masses: (N,) dalton; particles of mass 0 stay.
        """
        raise NotImplementedError

    def setTemperature(self, temperature: Any) -> None:
        """Set the temperature of the thermostat, K; without a thermostat SpecError."""
        self._set("mts_kT", BOLTZMANN_KJ_MOL_K * float(kelvin(temperature)))

    def setFriction(self, friction: Any) -> None:
        """Set the friction of the thermostat, 1/ps; without a thermostat SpecError."""
        self._set("mts_friction", float(per_picosecond(friction)))

    def _set(self, name: str, value: float) -> None:
        if not self._thermostatted:
            raise SpecError("this integrator keeps the energy, not a temperature: give temperature and friction")
        self.setGlobalVariableByName(name, value)


class LangevinLevels(LevelledIntegrator):
    """Langevin dynamics, or constant energy, in the bonded substeps.

    Args:
        levels: groups and steps.
        bath: temperature and friction.
        constrained: whether the System has constraints.
        num_particles: of the System, for frictions of single atoms.
    """

    def __init__(
        self, levels: TimeLevels, bath: Bath, constrained: bool, num_particles: int, steps_per_outer_step: int = 1
    ) -> None:
        super().__init__(levels, bath, steps_per_outer_step)
        self.constrained = constrained
        """Whether the System has constraints."""
        if constrained:
            self.addPerDofVariable("mts_x_free", 0)
        self._of_atoms = dict(bath.friction_of_atoms or {})
        if self._thermostatted:
            add = self.addPerDofVariable if self._of_atoms else self.addGlobalVariable
            add("mts_keep", 1)
            add("mts_noise", 0)
        if self._of_atoms:
            self.addPerDofVariable("mts_own_friction", -1)
            values = np.full((num_particles, 3), -1.0)
            for atom, friction in self._of_atoms.items():
                values[atom] = friction
            self.setPerDofVariableByName("mts_own_friction", [openmm.Vec3(*row) for row in values])
        self._write_step()

    def _write_step(self) -> None:
        raise NotImplementedError

    def _write_thermostat(self) -> None:
        """Friction and noise of a substep, from the present settings."""
        if self._of_atoms:
            friction = "select(step(mts_own_friction), mts_own_friction, mts_friction)"
            self.addComputePerDof("mts_keep", f"exp(-{friction}*{self._substep})")
            self.addComputePerDof("mts_noise", "sqrt(mts_kT*(1-mts_keep^2))")
        elif self._thermostatted:
            self.addComputeGlobal("mts_keep", f"exp(-mts_friction*{self._substep})")
            self.addComputeGlobal("mts_noise", "sqrt(mts_kT*(1-mts_keep^2))")

    def _write_drift(self) -> None:
        """Positions over one bonded substep, with friction and noise in its middle."""
        if self._thermostatted:
            self.addComputePerDof("x", f"x+0.5*{self._substep}*v")
            self.addComputePerDof("v", "mts_keep*v+mts_noise*gaussian/sqrt(m)")
            self.addComputePerDof("x", f"x+0.5*{self._substep}*v")
        else:
            self.addComputePerDof("x", f"x+{self._substep}*v")
        if self.constrained:
            self.addComputePerDof("mts_x_free", "x")
            self.addConstrainPositions()
            self.addComputePerDof("v", f"v+(x-mts_x_free)/({self._substep})")
            self.addConstrainVelocities()


class MultipleTimeStepIntegrator(LangevinLevels):
    """One step of OpenMM is an outer step; velocities at its end are those of velocity Verlet.

    Forces are remembered from one step to the next. A change of positions or parameters from outside is noticed in the
    forces that it changes, and everything is computed anew. OpenMM notifies no integrator of a new box alone: set the
    positions after the box, even if they stay.
    """

    def half_step_velocities(self, velocities: np.ndarray, masses: np.ndarray) -> np.ndarray:
        """As `LevelledIntegrator.half_step_velocities`: those after the first kick of the next step."""
        kick = np.asarray(self.getPerDofVariableByName("mts_kick"))
        per_mass = np.divide(1.0, masses, out=np.zeros(len(masses)), where=masses > 0)
        return velocities + 0.5 * self.getStepSize().value_in_unit(unit.picosecond) * kick * per_mass[:, None]

    def _write_step(self) -> None:
        levels = self.levels
        self.addGlobalVariable("mts_changed", 0)
        self.addPerDofVariable("mts_kick", 0)
        self.addPerDofVariable("mts_whole", _UNSEEN)
        self.addPerDofVariable("mts_x_end", 0)
        self.addUpdateContextState()
        self._write_thermostat()
        self._write_memory_check()
        self.addComputePerDof("v", "v+0.5*dt*mts_kick/m")
        for drift in range(1, levels.substeps + 1):
            self._write_drift()
            if drift == levels.substeps:
                break
            for group in levels.bonded_groups:
                self.addComputePerDof("v", f"v+dt/{levels.substeps}*f{group}/m")
            if drift % levels.bonded_substeps == 0:
                for group in levels.as_often_as_the_network:
                    self.addComputePerDof("v", f"v+dt/{levels.inner_steps}*f{group}/m")
        self.addComputePerDof("mts_kick", "0")
        self._write_kick_of_inner_levels()
        self.addComputePerDof("mts_whole", "f")  # last: OpenMM keeps these forces for the check of the next step
        self.addComputePerDof("mts_kick", "mts_kick+mts_whole")
        self.addComputePerDof("v", "v+0.5*dt*mts_kick/m")
        if self.constrained:
            self.addConstrainVelocities()
        self.addComputePerDof("mts_x_end", "x")

    def _write_memory_check(self) -> None:
        """Compute the kick anew if the forces or positions are not those at the end of the last step.

        Where nothing happened since, OpenMM still has the forces `f`, and looking at them costs no evaluation.
        """
        self.addComputeSum("mts_changed", "(f-mts_whole)^2+(x-mts_x_end)^2")
        self.beginIfBlock("mts_changed > 0")
        self.addComputePerDof("mts_whole", "f")
        self.addComputePerDof("mts_kick", "mts_whole")
        self._write_kick_of_inner_levels()
        self.endBlock()

    def _write_kick_of_inner_levels(self) -> None:
        """Add to the kick what bonded forces, inner groups and network have of it, beside the whole System's forces.

        In units of dt/2: whole - bonded - inner - network for the outer level, (inner + network)/n and bonded/nm for
        the others.
        """
        levels = self.levels
        for group in levels.bonded_groups:
            if levels.substeps > 1:
                self.addComputePerDof("mts_kick", f"mts_kick+(1/{levels.substeps}-1)*f{group}")
        if levels.inner_steps > 1:
            for group in levels.as_often_as_the_network:
                self.addComputePerDof("mts_kick", f"mts_kick+(1/{levels.inner_steps}-1)*f{group}")
