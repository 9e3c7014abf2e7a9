"""Langevin dynamics in which one force group acts rarely and the more strongly: impulses.

Source: Tuckerman, Berne, Martyna, J. Chem. Phys. 97, 1990 (1992), doi 10.1063/1.463137; for a bias, Ferrarotti,
Bottaro, Perez-Villa, Bussi, J. Chem. Theory Comput. 11, 139 (2015), doi 10.1021/ct5007086; the middle scheme: Zhang,
Liu, Yan, Tuckerman, Liu, J. Phys. Chem. A 123, 6056 (2019), doi 10.1021/acs.jpca.9b02771.
"""

from __future__ import annotations

import openmm

from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K


class ImpulseLangevinIntegrator(openmm.CustomIntegrator):
    """As OpenMM's LangevinMiddleIntegrator, but for one group that kicks at every `interval`-th step, `interval`-fold.

    Args:
        temperature: K.
        friction_per_ps: of the thermostat.
        time_step_ps: of every other force.
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
