"""Hybrid Monte Carlo: the network proposes an outer step, and the energy of the System's own forces accepts it.

A proposal is velocity Verlet under the network, bonded forces in substeps, from velocities that were partly drawn anew:

    v = c v + sqrt((1 - c^2) kT/m) gaussian,  c = exp(-friction dt)
    x', v' = n network steps from x, v
    x', v' are taken with the probability min(1, exp(-[H(x', v') - H(x, v)] / kT)); else x, -v

with H the kinetic energy and the System's own potential energy. The proposal is reversible and keeps volumes whatever
the forces are, also those of a network without an energy, so that positions and velocities have exactly the canonical
distribution at any step. A network that is off costs proposals: where the difference of energies along them is
Gaussian, of mean D, the fraction erfc(sqrt(D/kT)/2) is taken. D grows with the size of the System.

Sources: Duane, Kennedy, Pendleton, Roweth, Phys. Lett. B 195, 216 (1987), doi 10.1016/0370-2693(87)91197-X; partly new
velocities: Horowitz, Phys. Lett. B 268, 247 (1991), doi 10.1016/0370-2693(91)90812-5; the fraction: Gupta, Irback,
Karsch, Petersson, Phys. Lett. B 242, 437 (1990), doi 10.1016/0370-2693(90)91790-I.
"""

from __future__ import annotations

import numpy as np

from openmm_gnn.base.errors import SpecError
from openmm_gnn.md.multiple_time_steps import Bath, LevelledIntegrator, TimeLevels


class HybridMonteCarloIntegrator(LevelledIntegrator):
    """One step of OpenMM is a proposal; times have no meaning.

    One evaluation of the System's own energy decides on a proposal, and another follows one that was not taken. A
    CMMotionRemover, which would change velocities, must not be in the System.

    Args:
        levels: groups and steps.
        bath: temperature, and the rate at which velocities are drawn anew.
        constrained: whether the System has constraints; they hold to the tolerance of the integrator.
    Raises:
        SpecError: if there is no temperature.
    """

    def __init__(self, levels: TimeLevels, bath: Bath, constrained: bool) -> None:
        if not bath.temperature:
            raise SpecError(f"temperature is {bath.temperature}: hybrid Monte Carlo needs one above 0")
        if bath.friction_of_atoms:
            raise SpecError("hydrogen_friction is of Langevin dynamics: leave it out in hybrid Monte Carlo")
        super().__init__(levels, bath)
        self.constrained = constrained
        """Whether the System has constraints."""
        for name in ("mts_keep", "mts_kinetic", "mts_before", "mts_after", "mts_taken", "mts_sum_taken", "mts_tried"):
            self.addGlobalVariable(name, 0)
        for name in ("mts_x_before", "mts_v_before", *(["mts_x_free"] if constrained else [])):
            self.addPerDofVariable(name, 0)
        self.addUpdateContextState()
        self.addComputeGlobal("mts_keep", "exp(-mts_friction*dt)")
        self.addComputePerDof("v", "mts_keep*v+sqrt((1-mts_keep^2)*mts_kT/m)*gaussian")
        if constrained:
            self.addConstrainVelocities()
        self._write_energy("mts_before")
        self.addComputePerDof("mts_x_before", "x")
        self.addComputePerDof("mts_v_before", "v")
        self._write_proposal()
        self._write_energy("mts_after")
        self.addComputeGlobal("mts_taken", "step(exp((mts_before-mts_after)/mts_kT)-uniform)")
        self.addComputeGlobal("mts_tried", "mts_tried+1")
        self.addComputeGlobal("mts_sum_taken", "mts_sum_taken+mts_taken")
        self.beginIfBlock("mts_taken < 0.5")
        self.addComputePerDof("x", "mts_x_before")
        self.addComputePerDof("v", "-mts_v_before")
        self.endBlock()

    @property
    def acceptance(self) -> float:
        """The fraction of proposals that was taken so far; NaN before the first."""
        tried = self.getGlobalVariableByName("mts_tried")
        return self.getGlobalVariableByName("mts_sum_taken") / tried if tried else float("nan")

    def half_step_velocities(self, velocities: np.ndarray, masses: np.ndarray) -> np.ndarray:
        """As `LevelledIntegrator.half_step_velocities`: those at a step have the temperature."""
        return velocities

    def _write_energy(self, name: str) -> None:
        self.addComputeSum("mts_kinetic", "0.5*m*v*v")
        self.addComputeGlobal(name, "energy+mts_kinetic")

    def _write_proposal(self) -> None:
        levels, substep = self.levels, self._substep
        for drift in range(levels.substeps + 1):
            ends = 0.5 if drift in (0, levels.substeps) else 1.0
            for group in levels.bonded_groups:
                self.addComputePerDof("v", f"v+{ends}*{substep}*f{group}/m")
            if drift % levels.bonded_substeps == 0:
                for group in levels.as_often_as_the_network:
                    self.addComputePerDof("v", f"v+{ends * levels.bonded_substeps}*{substep}*f{group}/m")
            if self.constrained:
                self.addConstrainVelocities()
            if drift == levels.substeps:
                break
            self.addComputePerDof("x", f"x+{substep}*v")
            if self.constrained:
                self.addComputePerDof("mts_x_free", "x")
                self.addConstrainPositions()
                self.addComputePerDof("v", f"v+(x-mts_x_free)/({substep})")
