"""Boxes of argon and water as in the GAMD paper, and of polarisable AMOEBA water.

Every box has the paper's density, whatever the number of molecules.
Source: Li et al., J. Chem. Phys. 156, 144103 (2022): 258 TIP3P or 251 TIP4P-Ew molecules in a cube of 20 angstrom.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.units import ANGSTROM_PER_NM, KJ_PER_KCAL
from openmm_gnn.md.simulation_system import SimulationSystem, Thermostat

if TYPE_CHECKING:
    from openmm import app


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
        thermostat=Thermostat.NOSE_HOOVER,
        friction_per_ps=25.0,
        equilibration_ps=50.0,
    )


EDGE_NM = 2.0
"""Edge of the paper's boxes."""
TIP3P_MOLECULES, TIP4PEW_MOLECULES = 258, 251
TEMPERATURE = 300.0
BOND_LENGTH_NM, ANGLE_DEGREES = 0.09572, 104.52
PREPARATION_PS = 10.0
"""Length of the run of TIP3P from which AMOEBA water starts."""


def tip3p(num_molecules: int = TIP3P_MOLECULES) -> SimulationSystem:
    """Rigid TIP3P water at 300 K.

    Particle mesh Ewald with error tolerance 1e-5, cutoff 10 angstrom, Lennard-Jones switched from 8.5 angstrom on.

    Source: Jorgensen et al., J. Chem. Phys. 79, 926 (1983), 10.1063/1.445869; box and settings of the GAMD paper.
    """
    return _rigid_water("tip3p", "tip3p.xml", num_molecules, TIP3P_MOLECULES)


def tip4pew(num_molecules: int = TIP4PEW_MOLECULES) -> SimulationSystem:
    """Rigid TIP4P-Ew water at 300 K, the settings as for `tip3p`; a network sees its atoms, not the charge site.

    Source: Horn et al., J. Chem. Phys. 120, 9665 (2004), 10.1063/1.1683075; box and settings of the GAMD paper.
    """
    return _rigid_water("tip4pew", "tip4pew.xml", num_molecules, TIP4PEW_MOLECULES)


def amoeba_water(num_molecules: int = TIP3P_MOLECULES) -> SimulationSystem:
    """Flexible, polarisable AMOEBA 2018 water at 300 K and TIP3P's density.

    Particle mesh Ewald with a real-space cutoff of 7 angstrom, van der Waals cutoff 9 angstrom, induced dipoles
    converged to 1e-5 debye. The non-bonded forces cost some 200 ms for 258 molecules on a CPU, so they are computed
    once in 2 fs and the bonded ones every 0.5 fs; runs start from TIP3P water that was equilibrated with their seed.

    Source: Ren and Ponder, J. Phys. Chem. B 107, 5933 (2003), 10.1021/jp027815+; force field amoeba2018.xml of OpenMM.
    """
    import openmm
    from openmm import app, unit

    edge = _edge(num_molecules, TIP3P_MOLECULES, least_nm=1.8)
    topology = water_topology(num_molecules, edge)
    system = app.ForceField("amoeba2018.xml").createSystem(
        topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=0.7 * unit.nanometer,
        vdwCutoff=0.9 * unit.nanometer,
        polarization="mutual",
        mutualInducedTargetEpsilon=1e-5,
        rigidWater=False,
    )
    # Terms of planar groups, which water has not: OpenMM would differentiate their expressions, ten seconds each, in
    # every new Context.
    for index in reversed(range(system.getNumForces())):
        force = system.getForce(index)
        if isinstance(force, openmm.CustomCompoundBondForce) and force.getNumBonds() == 0:
            system.removeForce(index)
    crowded = _molecules_on_a_lattice(num_molecules, edge)

    def equilibrated(seed: int) -> np.ndarray:
        return _run_tip3p(topology, crowded, PREPARATION_PS, seed)

    return SimulationSystem(
        name="amoeba-water",
        system=system,
        topology=topology,
        positions=_run_tip3p(topology, crowded, 0.0, 1),
        temperature=TEMPERATURE,
        equilibration_ps=1.0,
        bonded_substeps=4,
        prepare=equilibrated,
    )


def water_topology(num_molecules: int, edge: float) -> app.Topology:
    """Molecules O, H1, H2 with their bonds, in a cube of this edge in nm."""
    from openmm import app, unit

    topology = app.Topology()
    topology.setPeriodicBoxVectors(np.eye(3) * edge * unit.nanometer)
    chain = topology.addChain()
    oxygen, hydrogen = app.Element.getBySymbol("O"), app.Element.getBySymbol("H")
    for _ in range(num_molecules):
        residue = topology.addResidue("HOH", chain)
        center = topology.addAtom("O", oxygen, residue)
        for name in ("H1", "H2"):
            topology.addBond(center, topology.addAtom(name, hydrogen, residue))
    return topology


def _rigid_water(name: str, force_field_file: str, num_molecules: int, reference_molecules: int) -> SimulationSystem:
    from openmm import app, unit

    edge = _edge(num_molecules, reference_molecules, least_nm=2.0)
    topology = water_topology(num_molecules, edge)
    positions = _run_tip3p(topology, _molecules_on_a_lattice(num_molecules, edge), 0.0, 1)
    force_field = app.ForceField(force_field_file)
    modeller = app.Modeller(topology, positions * unit.nanometer)
    modeller.addExtraParticles(force_field)
    system = force_field.createSystem(
        modeller.topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=1.0 * unit.nanometer,
        switchDistance=0.85 * unit.nanometer,
        ewaldErrorTolerance=1e-5,
        rigidWater=True,
    )
    return SimulationSystem(
        name=name,
        system=system,
        topology=modeller.topology,
        positions=np.array(modeller.positions.value_in_unit(unit.nanometer)),
        temperature=TEMPERATURE,
        thermostat=Thermostat.NOSE_HOOVER,
    )


def _edge(num_molecules: int, reference_molecules: int, least_nm: float) -> float:
    """The edge in nm of a cube with the density of the paper's.

    Raises:
        SpecError: if the cube is narrower than twice the force field's cutoff.
    """
    edge = EDGE_NM * (num_molecules / reference_molecules) ** (1 / 3)
    if edge < least_nm:
        least = int(np.ceil(reference_molecules * (least_nm / EDGE_NM) ** 3))
        raise SpecError(
            f"{num_molecules} molecules fill a box of {edge:.3f} nm, less than twice the force field's cutoff: give "
            f"at least {least}"
        )
    return edge


def _molecules_on_a_lattice(num_molecules: int, edge: float) -> np.ndarray:
    """(3 * num_molecules, 3) positions in nm: oxygens on a lattice, turned at random but always the same way."""
    directions = np.linalg.qr(np.random.default_rng(0).normal(size=(num_molecules, 3, 3)))[0]
    angle = np.deg2rad(ANGLE_DEGREES)
    first = directions[:, 0]
    second = np.cos(angle) * first + np.sin(angle) * directions[:, 1]
    offsets = np.stack([np.zeros_like(first), first, second], axis=1) * BOND_LENGTH_NM
    return (lattice_sites(num_molecules, edge)[:, None] + offsets).reshape(-1, 3)


def _run_tip3p(topology: app.Topology, positions: np.ndarray, time_ps: float, seed: int) -> np.ndarray:
    """(num_atoms, 3) positions in nm after minimisation and this much TIP3P dynamics at 300 K."""
    import openmm
    from openmm import app, unit

    system = app.ForceField("tip3p.xml").createSystem(
        topology, nonbondedMethod=app.PME, nonbondedCutoff=0.9 * unit.nanometer
    )
    integrator: Any = openmm.LangevinMiddleIntegrator(TEMPERATURE, 5.0, 0.002)
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, 1000.0, 200)
    if time_ps > 0:
        context.setVelocitiesToTemperature(TEMPERATURE, seed)
        integrator.step(round(time_ps / 0.002))
    return np.array(context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer))
