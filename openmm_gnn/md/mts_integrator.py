"""The integrator of `accelerate`: three time steps, each force evaluated as rarely as the scheme allows.

One step of length dt, with n network steps and m bonded substeps in each of those:

    v += dt/2 (expensive - network) / mass
    n times:  v += dt/2n network / mass;  m bonded substeps of length dt/nm;  v += dt/2n network / mass
    v += dt/2 (expensive - network) / mass

A bonded substep is velocity Verlet, or BAOAB where there is a temperature. Kicks at the same positions commute, so all
of them at one place in time are one kick; and the forces at the end of a step are those at the start of the next. So
the expensive force costs one evaluation per step and the network n; OpenMM's own multiple-time-step integrators would
evaluate the network n + 2 times, since a network that is subtracted in the outer level counts there too.

Sources: Tuckerman, Berne, Martyna, J. Chem. Phys. 97, 1990 (1992), doi 10.1063/1.463137 (r-RESPA); Lagardere, Aviat,
Piquemal, J. Phys. Chem. Lett. 10, 2593 (2019), doi 10.1021/acs.jpclett.9b00901 (BAOAB-RESPA).
"""

from __future__ import annotations

from collections.abc import Sequence

import openmm

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K

NUM_GROUPS = 32
_UNSEEN = 1e10
"""A force that no System has: at its first step the integrator finds everything changed."""


class MultipleTimeStepIntegrator(openmm.CustomIntegrator):
    """Bonded forces, a network and the expensive rest, each with a time step of its own.

    The whole System without the two network groups is the integration force groups: what a minimiser or a barostat
    sees, and what the network corrects to. The expensive force is that whole less the bonded groups, so a force that
    is added to the System in any other group is integrated as part of it.

    Forces are remembered from one step to the next. A change of positions or parameters from outside is noticed in the
    forces that it changes, and everything is computed anew. Of a new box alone, OpenMM tells no integrator: set the
    positions after the box, even if they stay.

    Args:
        time_step_ps: dt, the outer step.
        inner_steps: n.
        bonded_substeps: m; without bonded groups each inner step is one drift.
        bonded_groups: force groups of the bonded forces, perhaps none.
        network_group: force group of the network.
        negated_group: force group that takes the network out of the System's sum; never integrated.
        temperature: K; None for constant energy.
        friction_per_ps: of the Langevin thermostat; None for constant energy.
        constrained: whether the System has constraints.
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
        self._network = network_group
        self._thermostatted = temperature is not None
        self._constrained = constrained
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
                self.addComputePerDof("v", f"v+dt/{self.inner_steps}*f{self._network}/m")
        self.addComputePerDof("mts_kick", "0")
        self._write_kick_of_bonded_and_network()
        self.addComputePerDof("mts_whole", "f")  # last: OpenMM keeps these forces for the check of the next step
        self.addComputePerDof("mts_kick", "mts_kick+mts_whole")
        self.addComputePerDof("v", "v+0.5*dt*mts_kick/m")
        if self._constrained:
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
        self._write_kick_of_bonded_and_network()
        self.endBlock()

    def _write_kick_of_bonded_and_network(self) -> None:
        """Add to the kick what bonded forces and network have of it, beside the whole System's forces.

        In units of dt/2: whole - bonded - network for the outer level, network/n and bonded/nm for the inner ones.
        """
        for group in self._bonded:
            if self._drifts > 1:
                self.addComputePerDof("mts_kick", f"mts_kick+(1/{self._drifts}-1)*f{group}")
        if self.inner_steps > 1:
            self.addComputePerDof("mts_kick", f"mts_kick+(1/{self.inner_steps}-1)*f{self._network}")

    def _write_drift(self) -> None:
        """Positions over one bonded substep, with friction and noise in its middle."""
        if self._thermostatted:
            self.addComputePerDof("x", f"x+dt/{2 * self._drifts}*v")
            self.addComputePerDof("v", "mts_keep*v+mts_noise*gaussian/sqrt(m)")
            self.addComputePerDof("x", f"x+dt/{2 * self._drifts}*v")
        else:
            self.addComputePerDof("x", f"x+dt/{self._drifts}*v")
        if self._constrained:
            self.addComputePerDof("mts_x_free", "x")
            self.addConstrainPositions()
            self.addComputePerDof("v", f"v+(x-mts_x_free)/(dt/{self._drifts})")
            self.addConstrainVelocities()
