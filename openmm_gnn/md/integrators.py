"""Integrators of runs that are not accelerated, and impulses for a bias.

`ImpulseLangevinIntegrator` is Langevin dynamics in which one force group acts rarely and the more strongly. Sources:
Tuckerman, Berne, Martyna, J. Chem. Phys. 97, 1990 (1992), doi 10.1063/1.463137 (r-RESPA); for a bias, Ferrarotti,
Bottaro, Perez-Villa, Bussi, J. Chem. Theory Comput. 11, 139 (2015), doi 10.1021/ct5007086; the middle scheme: Zhang,
Liu, Yan, Tuckerman, Liu, J. Phys. Chem. A 123, 6056 (2019), doi 10.1021/acs.jpca.9b02771.
"""

from __future__ import annotations

import openmm
from openmm import unit

from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.md.run_settings import RunCourse
from openmm_gnn.md.simulation_system import BONDED_GROUP, NONBONDED_GROUP, Thermostat

NOSE_HOOVER_CHAIN_LENGTH = 10
NOSE_HOOVER_MULTIPLE_TIME_STEPS = 5
NOSE_HOOVER_YOSHIDA_SUZUKI = 5


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
