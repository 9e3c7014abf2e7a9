"""Integrators that evaluate some forces rarely: three time steps for `accelerate`, impulses for a bias.

One step of `MultipleTimeStepIntegrator` of length dt, with n network steps and m bonded substeps in each of those:

    v += dt/2 (expensive - network) / mass
    n times:  v += dt/2n network / mass;  m bonded substeps of length dt/nm;  v += dt/2n network / mass
    v += dt/2 (expensive - network) / mass

A bonded substep is velocity Verlet, or BAOAB where there is a temperature. Kicks at the same positions commute, so all
of them at one point in time are one kick; and the forces at the end of a step are those at the start of the next. So
the expensive force costs one evaluation per step and the network n; OpenMM's own multiple-time-step integrators would
evaluate the network n + 2 times, since a network that is subtracted in the outer level counts there too.

Sources: Tuckerman, Berne, Martyna, J. Chem. Phys. 97, 1990 (1992), doi 10.1063/1.463137 (r-RESPA); Lagardere, Aviat,
Piquemal, J. Phys. Chem. Lett. 10, 2593 (2019), doi 10.1021/acs.jpclett.9b00901 (BAOAB-RESPA).

`ImpulseLangevinIntegrator` is Langevin dynamics in which one force group acts rarely and the more strongly. Sources:
the first above; for a bias, Ferrarotti, Bottaro, Perez-Villa, Bussi, J. Chem. Theory Comput. 11, 139 (2015), doi
10.1021/ct5007086; the middle scheme: Zhang, Liu, Yan, Tuckerman, Liu, J. Phys. Chem. A 123, 6056 (2019), doi
10.1021/acs.jpca.9b02771.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openmm
from openmm import unit

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K, kelvin, per_picosecond
from openmm_gnn.md.run_settings import RunCourse
from openmm_gnn.md.simulation_system import BONDED_GROUP, NONBONDED_GROUP, Thermostat

NOSE_HOOVER_CHAIN_LENGTH = 10
NOSE_HOOVER_MULTIPLE_TIME_STEPS = 5
NOSE_HOOVER_YOSHIDA_SUZUKI = 5
NUM_GROUPS = 32
_UNSEEN = 1e10
"""A force that no System has: at its first step the integrator finds everything changed."""


def make_integrator(course: RunCourse) -> openmm.Integrator:
    """Returns the OpenMM integrator of a run; with bonded substeps its System needs `split_groups` first."""
    if course.bonded_substeps > 1:
        integrator = openmm.MTSLangevinIntegrator(  # plain numbers raise
            course.temperature * unit.kelvin,
            course.friction_per_ps / unit.picosecond,
            course.time_step_ps * unit.picoseconds,
            [(NONBONDED_GROUP, 1), (BONDED_GROUP, course.bonded_substeps)],
        )
        integrator.setRandomNumberSeed(course.seed)
        return integrator

    if course.thermostat is Thermostat.LANGEVIN:
        langevin = openmm.LangevinMiddleIntegrator(course.temperature, course.friction_per_ps, course.time_step_ps)
        langevin.setRandomNumberSeed(course.seed)
        return langevin
    return openmm.NoseHooverIntegrator(
        course.temperature,
        course.friction_per_ps,
        course.time_step_ps,
        NOSE_HOOVER_CHAIN_LENGTH,
        NOSE_HOOVER_MULTIPLE_TIME_STEPS,
        NOSE_HOOVER_YOSHIDA_SUZUKI,
    )


class MultipleTimeStepIntegrator(openmm.CustomIntegrator):
    """Bonded forces, a network and the expensive rest, each with a time step of its own.

    The whole System without the two network groups is the integration force groups: what a minimiser or a barostat
    sees, and what the network corrects to. The expensive force is that whole less the bonded and the inner groups, so
    a force that is added to the System in any other group is integrated as part of it.

    Forces are remembered from one step to the next. A change of positions or parameters from outside is noticed in the
    forces that it changes, and everything is computed anew. OpenMM notifies no integrator of a new box alone: set the
    positions after the box, even if they stay.

    Args:
        time_step_ps: dt, the outer step.
        inner_steps: n.
        bonded_substeps: m; without bonded groups each inner step is one drift.
        bonded_groups: force groups of the bonded forces, perhaps none.
        network_group: force group of the network.
        negated_group: force group that takes the network out of the System's sum; never integrated.
        temperature: K; None for constant energy.
        friction_per_ps: friction of the Langevin thermostat; None for constant energy.
        constrained: whether the System has constraints.
        inner_groups: force groups that act as often as the network, and are not replaced by it.
    Raises:
        SpecError: if a number is out of range, or only one of temperature and friction is given.
    """

    def __init__(
        self,
        time_step_ps: float,
        inner_steps: int,
        bonded_substeps: int,
        bonded_groups: Sequence[int],
        network_group: int,
        negated_group: int,
        temperature: float | None,
        friction_per_ps: float | None,
        constrained: bool,
        inner_groups: Sequence[int] = (),
    ) -> None:
        if not (time_step_ps > 0 and time_step_ps < float("inf")):
            raise SpecError(f"time_step is {time_step_ps} ps: give a finite time above 0")
        for name, count in (("inner_steps", inner_steps), ("bonded_substeps", bonded_substeps)):
            if not isinstance(count, int) or count < 1:
                raise SpecError(f"{name} is {count!r}: give a whole number, 1 or more")
        if (temperature is None) is not (friction_per_ps is None):
            raise SpecError(
                f"temperature is {temperature} and friction {friction_per_ps}: give both for constant temperature, "
                "None for both for constant energy"
            )
        for name, value in (("temperature", temperature), ("friction", friction_per_ps)):
            if value is not None and not 0 <= value < float("inf"):
                raise SpecError(f"{name} is {value}: give a finite number, 0 or more")
        super().__init__(time_step_ps)
        self.inner_steps = inner_steps
        self.bonded_substeps = bonded_substeps if bonded_groups else 1
        self._bonded = tuple(bonded_groups)
        self._inner = (network_group, *inner_groups)
        self._thermostatted = temperature is not None
        self.constrained = constrained
        """Whether the System has constraints."""
        self._drifts = self.inner_steps * self.bonded_substeps
        self.setIntegrationForceGroups(set(range(NUM_GROUPS)) - {network_group, negated_group})
        # Names with a prefix: a parameter of some force in the System may be called kT too.
        self.addGlobalVariable("mts_changed", 0)
        self.addPerDofVariable("mts_kick", 0)
        self.addPerDofVariable("mts_whole", _UNSEEN)
        self.addPerDofVariable("mts_x_end", 0)
        if constrained:
            self.addPerDofVariable("mts_x_free", 0)
        if temperature is not None and friction_per_ps is not None:
            self.addGlobalVariable("mts_kT", BOLTZMANN_KJ_MOL_K * temperature)
            self.addGlobalVariable("mts_friction", friction_per_ps)
            self.addGlobalVariable("mts_keep", 1)
            self.addGlobalVariable("mts_noise", 0)
        self._write_step()

    def half_step_velocities(self, velocities: np.ndarray, masses: np.ndarray) -> np.ndarray:
        """(N, 3) nm/ps after the first kick of the next step, whose mean kinetic energy is kT/2 for each coordinate.

        Velocities at a step are colder: by the factor 1 - (w h)^2 / 4 for a vibration of the frequency w in substeps of
        h, which is 8 % for 3000 / cm, a bond of hydrogen, at 1 fs. Source: Leimkuhler and Matthews, Molecular Dynamics
        (2015), chapter 7.

        Args:
            velocities: (N, 3) nm/ps at the end of a step, of a System without constraints.
            masses: (N,) dalton; particles of mass 0 stay.
        """
        kick = np.asarray(self.getPerDofVariableByName("mts_kick"))
        per_mass = np.divide(1.0, masses, out=np.zeros(len(masses)), where=masses > 0)
        return velocities + 0.5 * self.getStepSize().value_in_unit(unit.picosecond) * kick * per_mass[:, None]

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

    def _write_step(self) -> None:
        self.addUpdateContextState()
        if self._thermostatted:
            self.addComputeGlobal("mts_keep", f"exp(-mts_friction*dt/{self._drifts})")
            self.addComputeGlobal("mts_noise", "sqrt(mts_kT*(1-mts_keep^2))")
        self._write_memory_check()
        self.addComputePerDof("v", "v+0.5*dt*mts_kick/m")
        for drift in range(1, self._drifts + 1):
            self._write_drift()
            if drift == self._drifts:
                break
            for group in self._bonded:
                self.addComputePerDof("v", f"v+dt/{self._drifts}*f{group}/m")
            if drift % self.bonded_substeps == 0:
                for group in self._inner:
                    self.addComputePerDof("v", f"v+dt/{self.inner_steps}*f{group}/m")
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
        for group in self._bonded:
            if self._drifts > 1:
                self.addComputePerDof("mts_kick", f"mts_kick+(1/{self._drifts}-1)*f{group}")
        if self.inner_steps > 1:
            for group in self._inner:
                self.addComputePerDof("mts_kick", f"mts_kick+(1/{self.inner_steps}-1)*f{group}")

    def _write_drift(self) -> None:
        """Positions over one bonded substep, with friction and noise in its middle."""
        if self._thermostatted:
            self.addComputePerDof("x", f"x+dt/{2 * self._drifts}*v")
            self.addComputePerDof("v", "mts_keep*v+mts_noise*gaussian/sqrt(m)")
            self.addComputePerDof("x", f"x+dt/{2 * self._drifts}*v")
        else:
            self.addComputePerDof("x", f"x+dt/{self._drifts}*v")
        if self.constrained:
            self.addComputePerDof("mts_x_free", "x")
            self.addConstrainPositions()
            self.addComputePerDof("v", f"v+(x-mts_x_free)/(dt/{self._drifts})")
            self.addConstrainVelocities()


class ImpulseLangevinIntegrator(openmm.CustomIntegrator):
    """As OpenMM's LangevinMiddleIntegrator, but for one group that kicks at every `interval`-th step, `interval`-fold.

    Args:
        temperature: K.
        friction_per_ps: friction of the thermostat.
        time_step_ps: time step of every other force.
        interval: steps between two impulses.
        group: the force group of the impulses; all other forces must be in `own_group`.
    """

    def __init__(
        self, temperature: float, friction_per_ps: float, time_step_ps: float, interval: int, group: int, own_group: int
    ) -> None:
        super().__init__(time_step_ps)
        self.addGlobalVariable("impulse_keep", 0)
        self.addGlobalVariable("impulse_noise", 0)
        self.addGlobalVariable("impulse_phase", 0)
        self.addPerDofVariable("impulse_x_free", 0)
        kt = BOLTZMANN_KJ_MOL_K * temperature
        self.addUpdateContextState()
        self.addComputeGlobal("impulse_keep", f"exp(-{friction_per_ps!r}*dt)")
        self.addComputeGlobal("impulse_noise", f"sqrt({kt!r}*(1-impulse_keep^2))")
        self.beginIfBlock("impulse_phase < 0.5")
        self.addComputePerDof("v", f"v+{interval}*dt*f{group}/m")
        self.endBlock()
        self.addComputePerDof("v", f"v+dt*f{own_group}/m")
        self.addConstrainVelocities()
        self.addComputePerDof("x", "x+0.5*dt*v")
        self.addComputePerDof("v", "impulse_keep*v+impulse_noise*gaussian/sqrt(m)")
        self.addComputePerDof("x", "x+0.5*dt*v")
        self.addComputePerDof("impulse_x_free", "x")
        self.addConstrainPositions()
        self.addComputePerDof("v", "v+(x-impulse_x_free)/dt")
        self.addComputeGlobal("impulse_phase", f"select(step({interval - 1.5}-impulse_phase), impulse_phase+1, 0)")
