"""Argon, the Lennard-Jones fluid of the GAMD paper, and starting sites without overlaps."""

from __future__ import annotations

import numpy as np

from openmm_gnn.base.units import ANGSTROM_PER_NM, KJ_PER_KCAL
from openmm_gnn.md.simulation_system import SimulationSystem, Thermostat


def lattice_sites(num_atoms: int, edge: float) -> np.ndarray:
    """(num_atoms, 3) sites of a simple cubic lattice that fills the box, chosen at random but always the same."""
    sites_per_edge = int(np.ceil(num_atoms ** (1 / 3)))
    sites = np.stack(np.meshgrid(*[np.arange(sites_per_edge)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    chosen = np.random.default_rng(0).permutation(len(sites))[:num_atoms]
    return (sites[np.sort(chosen)] + 0.5) * (edge / sites_per_edge)


NUM_ATOMS = 258


def argon(num_atoms: int = NUM_ATOMS) -> SimulationSystem:
    """Argon at the density of 258 atoms in a cube of 27.27 angstrom: the Lennard-Jones fluid of the GAMD paper.

    Truncated at 10.2 angstrom, the energy shifted to zero there (which changes no force), no long-range correction.
    At 100 K this density lies between vapour and liquid: the atoms condense and leave a void, which takes about
    50 ps from the homogeneous start.

    Source: Li et al., J. Chem. Phys. 156, 144103 (2022); sigma 3.4 angstrom, epsilon 0.238 kcal/mol, mass 39.9.
    """
    import openmm
    from openmm import app, unit

    edge, sigma, epsilon, cutoff = 27.27 * (num_atoms / NUM_ATOMS) ** (1 / 3), 3.4, 0.238 * KJ_PER_KCAL, 10.2
    edge, sigma, cutoff = edge / ANGSTROM_PER_NM, sigma / ANGSTROM_PER_NM, cutoff / ANGSTROM_PER_NM

    system = openmm.System()
    system.setDefaultPeriodicBoxVectors((edge, 0, 0), (0, edge, 0), (0, 0, edge))
    force = openmm.CustomNonbondedForce("4*epsilon*(u^2 - u) - shift; u = (sigma/r)^6")
    force.setName("LennardJonesShifted")
    for name, value in (("epsilon", epsilon), ("sigma", sigma)):
        force.addGlobalParameter(name, value)
    force.addGlobalParameter("shift", 4 * epsilon * ((sigma / cutoff) ** 12 - (sigma / cutoff) ** 6))
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(cutoff)
    topology = app.Topology()
    topology.setPeriodicBoxVectors(np.diag([edge] * 3) * unit.nanometer)
    chain = topology.addChain()
    for _ in range(num_atoms):
        system.addParticle(39.9 * unit.dalton)
        force.addParticle([])
        topology.addAtom("Ar", app.Element.getBySymbol("Ar"), topology.addResidue("AR", chain))
    system.addForce(force)
    system.addForce(openmm.CMMotionRemover(1))

    return SimulationSystem(
        name="argon",
        system=system,
        topology=topology,
        positions=lattice_sites(num_atoms, edge),  # 3.9 angstrom apart: no overlaps to minimise away
        temperature=100.0,
        time_step_ps=0.002,
        thermostat=Thermostat.NOSE_HOOVER,
        friction_per_ps=25.0,
        equilibration_ps=50.0,
    )
