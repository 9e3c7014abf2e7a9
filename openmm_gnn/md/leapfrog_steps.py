"""Multiple time steps in leapfrog form: every force acts once, at the start of the substep that it is due in.

Substep k of the nm substeps of length h in an outer step dt, at the positions where it begins:

    impulse = h bonded                                  every substep
            + m h (network and what acts with it)       every m-th substep
            + dt (expensive - network)                  the first substep of an outer step
    velocities take the impulse; positions move by h

These are the positions of `multiple_time_steps` with velocities half a kick earlier. No force is needed at the end of
a step, so that nothing is remembered, and a step may be split: on the CPU, OpenMM moves virtual sites only between two
of its steps, which are substeps here (`LeapfrogLangevinIntegrator`).

`IsokineticIntegrator` is free of the resonances that limit the outer step of Langevin dynamics: each coordinate has a
velocity below sqrt(kT/m). It is the stochastic isokinetic Nose-Hoover method, SIN(R), with one thermostat variable
(L = 1). The method constrains m v^2 + Q1 v1^2 / 2 = kT; velocities on that ellipse are one number,

    v = sqrt(kT/m) tanh(y),  v1 = sqrt(2 kT/Q1) / cosh(y),

in which its equations of motion, with Q1 = Q2 = kT tau^2, are

    dx/dt = sqrt(kT/m) tanh(y)
    dy/dt = F / sqrt(m kT) + xi tanh(y)
    dxi   = [(1 - 2 tanh(y)^2) / tau^2 - gamma xi] dt + sqrt(2 gamma) / tau dW

with the stationary density exp(-U/kT) exp(-tau^2 xi^2 / 2) / cosh(y): positions have the canonical distribution, and
velocities do not. A force adds to y, whatever its strength; the thermostat maps sinh(y) to sinh(y) exp(xi t) at
constant xi. Each map is exact; they are applied with the thermostat in the middle of each substep.

Sources: Leimkuhler, Margul, Tuckerman, Mol. Phys. 111, 3579 (2013), doi 10.1080/00268976.2013.844369; Margul,
Tuckerman, J. Chem. Theory Comput. 12, 2170 (2016), doi 10.1021/acs.jctc.6b00188; the middle: Zhang, Liu, Yan,
Tuckerman, Liu, J. Phys. Chem. A 123, 6056 (2019), doi 10.1021/acs.jpca.9b02771. The parametrisation by y is ours.
"""

from __future__ import annotations

import numpy as np

from openmm_gnn.base.errors import SpecError
from openmm_gnn.md.multiple_time_steps import Bath, LangevinLevels, LevelledIntegrator, TimeLevels

ISOKINETIC_TIME_PS = 0.01
"""tau. With gamma = 10/ps it samples stiff oscillators in long outer steps with the smallest error, of 2 to 20 fs; a
gamma of 100/ps doubles that error."""
LARGEST_Y = 30.0
"""Where it cuts off, 1 - |tanh(y)| is 1e-26."""


class _Impulses(LevelledIntegrator):
    """Writes the impulse of a substep into `mts_push`."""

    def _write_substeps(self) -> None:
        """All substeps of an outer step, or that whose turn it is where OpenMM's step is one."""
        if self.steps_per_outer_step == 1:
            for substep in range(self.levels.substeps):
                self._write_impulse(substep)
                self._write_substep()
            return
        bonded, all_of_them = self.levels.bonded_substeps, self.levels.substeps
        self.addGlobalVariable("mts_phase", 0)
        self.addGlobalVariable("mts_due", 0)
        self.addComputeGlobal(
            "mts_due", f"select(mts_phase, select(mts_phase-{bonded}*floor((mts_phase+0.5)/{bonded}), 2, 1), 0)"
        )
        for due, substep in enumerate((0, bonded, 1)):
            if due == 0 or (substep < all_of_them and (due == 1 or bonded > 1)):
                self.beginIfBlock(f"mts_due = {due}")
                self._write_impulse(substep)
                self.endBlock()
        self._write_substep()
        self.addComputeGlobal("mts_phase", f"select(step(mts_phase-{all_of_them - 1.5}), 0, mts_phase+1)")

    def _write_impulse(self, substep: int) -> None:
        """The sum of force times time of all that is due in a substep, kJ/mol/nm ps."""
        levels, weights = self.levels, {}
        for group in levels.bonded_groups:
            weights[group] = 1
        if substep % levels.bonded_substeps == 0:
            for group in levels.as_often_as_the_network:
                weights[group] = levels.bonded_substeps
        if substep == 0:
            weights = {group: weight - levels.substeps for group, weight in weights.items()}
        terms = [f"{weight}*{self._substep}*f{group}" for group, weight in weights.items() if weight]
        terms += [f"{levels.substeps}*{self._substep}*f"] if substep == 0 else []
        for number, term in enumerate(terms or ["0"]):
            self.addComputePerDof("mts_push", term if number == 0 else f"mts_push+({term})")

    def _write_substep(self) -> None:
        raise NotImplementedError

    def half_step_velocities(self, velocities: np.ndarray, masses: np.ndarray) -> np.ndarray:
        """As `LevelledIntegrator.half_step_velocities`: those at a step are in the middle of a substep."""
        return velocities


class LeapfrogLangevinIntegrator(_Impulses, LangevinLevels):
    """Langevin dynamics, or constant energy, for Systems with virtual sites: one step of OpenMM is one substep.

    Velocities are those of half steps, as in OpenMM's VerletIntegrator and LangevinMiddleIntegrator.

    Args:
        levels: groups and steps.
        bath: temperature and friction.
        constrained: whether the System has constraints.
        num_particles: of the System.
    """

    def __init__(self, levels: TimeLevels, bath: Bath, constrained: bool, num_particles: int) -> None:
        super().__init__(levels, bath, constrained, num_particles, levels.substeps)

    def _write_step(self) -> None:
        self.addPerDofVariable("mts_push", 0)
        self.addUpdateContextState()
        self._write_thermostat()
        self._write_substeps()

    def _write_substep(self) -> None:
        self.addComputePerDof("v", "v+mts_push/m")
        if self.constrained:
            self.addConstrainVelocities()
        self._write_drift()
        if not self.constrained:
            self.addConstrainPositions()  # here OpenMM moves virtual sites on GPUs


class IsokineticIntegrator(_Impulses):
    """Configurations of the canonical ensemble in outer steps beyond the resonances; its velocities mean nothing.

    Velocities that a Context is given are not used: the first step draws its own. A CMMotionRemover, which would change
    them, must not be in the System.

    Args:
        levels: groups and steps.
        bath: temperature and gamma, the friction of the thermostat's variable.
        virtual_sites: whether the System has some; one step of OpenMM is then one substep.
        time_ps: tau, the time in which the thermostat acts.
    Raises:
        SpecError: if there is no temperature, or a number is out of range.
    """

    physical_velocities = False
    constrained = False

    def __init__(
        self, levels: TimeLevels, bath: Bath, virtual_sites: bool = False, time_ps: float = ISOKINETIC_TIME_PS
    ) -> None:
        if not bath.temperature:
            raise SpecError(f"temperature is {bath.temperature}: isokinetic dynamics needs one above 0")
        if bath.friction_of_atoms:
            raise SpecError("hydrogen_friction is of Langevin dynamics: leave it out in isokinetic dynamics")
        if not 0 < time_ps < float("inf"):
            raise SpecError(f"time_ps is {time_ps}: give a finite time above 0")
        super().__init__(levels, bath, levels.substeps if virtual_sites else 1)
        self._rate = 1 / time_ps
        self.addGlobalVariable("mts_started", 0)
        for name in ("mts_y", "mts_xi", "mts_push"):
            self.addPerDofVariable(name, 0)
        self.addUpdateContextState()
        self.beginIfBlock("mts_started = 0")
        self.addComputePerDof("mts_y", f"log(tan({np.pi / 2!r}*(0.0001+0.9998*uniform)))")
        self.addComputePerDof("mts_xi", f"{self._rate!r}*gaussian")
        self.addComputeGlobal("mts_started", "1")
        self.endBlock()
        self._write_substeps()
        if virtual_sites:
            self.addConstrainPositions()  # here OpenMM moves them on GPUs
        self.addComputePerDof("v", "sqrt(mts_kT/m)*tanh(mts_y)")

    def _write_substep(self) -> None:
        half, rate = f"0.5*{self._substep}", repr(self._rate)
        move = f"x+{half}*sqrt(mts_kT/m)*tanh(mts_y)"
        keep = f"keep=exp(-mts_friction*{half})"
        noise = f"{rate}*sqrt(1-keep^2)*gaussian"
        pull = f"{half}*{rate}^2*(1-2*tanh(mts_y)^2)"
        # By comparisons, which a force that is not a number fails: on a GPU the smaller of it and a bound is the bound,
        # and nobody would see it.
        bounded = f"select(step(abs(pushed)-{LARGEST_Y}), {LARGEST_Y}*(2*step(pushed)-1), pushed)"
        self.addComputePerDof("mts_y", f"{bounded}; pushed=mts_y+mts_push/sqrt(m*mts_kT)")
        self.addComputePerDof("x", move)
        self.addComputePerDof("mts_xi", f"keep*mts_xi+{noise}+{pull}; {keep}")
        # asinh(s), of the sign of y
        self.addComputePerDof(
            "mts_y", f"(2*step(mts_y)-1)*log(s+sqrt(s*s+1)); s=sinh(abs(mts_y))*exp(mts_xi*{self._substep})"
        )
        self.addComputePerDof("mts_xi", f"keep*(mts_xi+{pull})+{noise}; {keep}")
        self.addComputePerDof("x", move)
