"""Systems of many kinds through `accelerate`: energies and forces stay the original's, steps conserve what they must.

Each is a small box of water with one part that others may not have. What cannot work is refused in words, see
test_multiple_time_step_refusals.py.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openmm
import pytest
from accelerated_water import CUTOFF, EDGE, MOLECULES, TOPOLOGY, make_context, network, values, water
from openmm import app

from openmm_gnn import accelerate, gamd_force

ATOMS = range(3 * MOLECULES)
PERIODIC = openmm.CustomNonbondedForce.CutoffPeriodic


def plus(*forces: openmm.Force, rigid: bool = False) -> openmm.System:
    system = water(rigid)
    for force in forces:
        system.addForce(force)
    return system


def with_method(method: object, *forces: openmm.Force) -> openmm.System:
    system = water(method=method)
    for force in forces:
        system.addForce(force)
    return system


def pairs(force: openmm.Force, *parameters: float) -> openmm.Force:
    """The same parameters for every atom, and a periodic cutoff."""
    for _ in ATOMS:
        force.addParticle(*parameters)
    force.setNonbondedMethod(PERIODIC)
    force.setCutoffDistance(CUTOFF)
    return force


def pair_forces() -> list[openmm.Force]:
    """Of two, of all around an atom, of hydrogen bonds, and of three atoms; all vanish at their cutoff."""
    plain = pairs(openmm.CustomNonbondedForce("0.3*exp(-4*r)*(1-r/0.45)^2"), [])
    born = openmm.CustomGBForce()
    born.addComputedValue("crowding", "exp(-3*r)*(1-r/0.45)^2", openmm.CustomGBForce.ParticlePairNoExclusions)
    born.addEnergyTerm("0.2*crowding^2", openmm.CustomGBForce.SingleParticle)
    hydrogen_bonds = openmm.CustomHbondForce("-5*exp(-20*(distance(a1,d1)-0.2)^2)*(1-distance(a1,d1)/0.45)^2")
    for atom in ATOMS[::3]:
        hydrogen_bonds.addAcceptor(atom, -1, -1, [])
        hydrogen_bonds.addDonor(atom + 1, atom, -1, [])
        hydrogen_bonds.addExclusion(atom // 3, atom // 3)
    hydrogen_bonds.setNonbondedMethod(openmm.CustomHbondForce.CutoffPeriodic)
    hydrogen_bonds.setCutoffDistance(CUTOFF)
    ends = "*".join(f"(1-distance({pair})/0.3)^2" for pair in ("p1,p2", "p2,p3", "p1,p3"))
    three = openmm.CustomManyParticleForce(3, f"40*{ends}")
    for _ in ATOMS:
        three.addParticle([], 0)
    three.setNonbondedMethod(openmm.CustomManyParticleForce.CutoffPeriodic)
    three.setCutoffDistance(0.3)
    return [plain, pairs(born, []), hydrogen_bonds, three]


def bonded_forces() -> list[openmm.Force]:
    """Torsions of three kinds, a map of torsions, and bonds of several atoms or centroids."""
    periodic, ryckaert = openmm.PeriodicTorsionForce(), openmm.RBTorsionForce()
    custom = openmm.CustomTorsionForce("theta^2")
    periodic.addTorsion(0, 1, 3, 4, 2, 0.3, 5.0)
    ryckaert.addTorsion(6, 7, 9, 10, 1.0, 2.0, 3.0, 0.0, 0.0, 0.0)
    custom.addTorsion(12, 13, 15, 16, [])
    torsion_map = openmm.CMAPTorsionForce()
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    torsion_map.addMap(12, (3 * np.sin(angles)[:, None] * np.cos(angles)).ravel().tolist())
    torsion_map.addTorsion(0, 0, 1, 3, 4, 1, 3, 4, 6)
    compound = openmm.CustomCompoundBondForce(3, "8*(distance(p1,p2)-0.3)^2*angle(p1,p2,p3)")
    compound.addBond([0, 3, 6], [])
    centroid = openmm.CustomCentroidBondForce(2, "20*distance(g1,g2)^2")
    centroid.addBond([centroid.addGroup([0, 1, 2]), centroid.addGroup([9, 10, 11])], [])
    forces = [periodic, ryckaert, custom, torsion_map, compound, centroid]
    for force in forces:
        force.setUsesPeriodicBoundaryConditions(True)
    return forces


def restraints() -> list[openmm.Force]:
    """Of a position, of a shape, and of a variable."""
    positions = openmm.CustomExternalForce("50*periodicdistance(x,y,z,0.1,0.2,0.3)^2")
    positions.addParticle(0, [])
    shape = openmm.RMSDForce(np.random.default_rng(0).uniform(0, EDGE, (3 * MOLECULES, 3)), list(range(0, 30, 3)))
    distance = openmm.CustomBondForce("r")
    distance.addBond(0, 3)
    distance.setUsesPeriodicBoundaryConditions(True)
    umbrella = openmm.CustomCVForce("200*(d-0.3)^2")
    umbrella.addCollectiveVariable("d", distance)
    return [positions, shape, umbrella]


def generalised_born() -> openmm.System:
    """Without a box: GBSA-OBC beside the vacuum's forces, an alchemical scale of charges, and frozen atoms."""
    system = water(method=app.NoCutoff)
    solvent = openmm.GBSAOBCForce()
    for atom in ATOMS:
        solvent.addParticle(-0.8 if atom % 3 == 0 else 0.4, 0.15, 0.8)
    (force,) = (force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    force.addGlobalParameter("coupling", 0.5)
    for atom in range(3):
        charge, sigma, epsilon = force.getParticleParameters(atom)
        force.setParticleParameters(atom, 0.0, sigma, epsilon)
        force.addParticleParameterOffset("coupling", atom, charge, 0.0, 0.0)
        system.setParticleMass(atom + 3, 0.0)
    system.addForce(solvent)
    return system


def with_another_network() -> openmm.System:
    """One that predicts forces directly, and so has no energy that were conserved."""
    return plus(gamd_force(network(200.0), TOPOLOGY, periodic=True), rigid=True)


SYSTEMS: dict[str, Callable[[], openmm.System]] = {
    "reaction field, custom pair forces": lambda: with_method(app.CutoffPeriodic, *pair_forces()),
    "Ewald sum, bonded forces of all kinds": lambda: with_method(app.Ewald, *bonded_forces()),
    "Lennard-Jones PME, restraints": lambda: with_method(app.LJPME, *restraints()),
    "generalised Born, offsets, frozen atoms": generalised_born,
    "rigid, barostat": lambda: plus(openmm.MonteCarloBarostat(1.0, 300.0, 5), rigid=True),
    "rigid, anisotropic barostat": lambda: plus(
        openmm.MonteCarloAnisotropicBarostat((1.0, 1.0, 1.0), 300.0), openmm.CMMotionRemover(10), rigid=True
    ),
    "rigid, another network": with_another_network,
}


@pytest.mark.filterwarnings("ignore:the network stands for NonbondedForce and GAMDForceWithoutEnergy together")
@pytest.mark.parametrize("kind", SYSTEMS)
def test_a_system_stays_what_it_is(kind: str, start: tuple[np.ndarray, np.ndarray]) -> None:
    """Energy and forces to 1e-9 of the largest; then 25 steps at constant energy, to a hundredth of the kinetic energy.

    Constraints hold, frozen atoms stay, and a barostat may change the box.
    """
    original = SYSTEMS[kind]()
    system, integrator = accelerated = accelerate(original, TOPOLOGY, network(200.0), 2, 0.0005, 2, None, None)
    integrator.setConstraintTolerance(1e-10)
    ours, theirs = make_context(system, integrator), make_context(original, openmm.VerletIntegrator(0.001))
    for context in (ours, theirs):
        context.setPositions(start[0])
        context.applyConstraints(1e-10)
    ours.setVelocities(start[1])
    ours.applyVelocityConstraints(1e-10)
    before, expected = (context.getState(energy=True, forces=True) for context in (ours, theirs))
    forces = values(expected.getForces(asNumpy=True))
    # A TorchForce sees its neighbour list anew: float64 all the same.
    np.testing.assert_allclose(values(before.getForces(asNumpy=True)), forces, atol=1e-9 * np.abs(forces).max())
    assert before.getPotentialEnergy()._value == pytest.approx(expected.getPotentialEnergy()._value, rel=1e-9)
    first = before.getPotentialEnergy()._value + before.getKineticEnergy()._value
    integrator.step(25)
    groups = set(accelerated.own_groups)
    after = ours.getState(positions=True, velocities=True, energy=True, groups=groups)
    x = values(after.getPositions(asNumpy=True))
    assert np.isfinite(x).all() and np.abs(x - start[0]).max() > 1e-3
    if "barostat" not in kind and "network" not in kind:
        energy = after.getPotentialEnergy()._value + after.getKineticEnergy()._value
        assert energy == pytest.approx(first, abs=0.01 * before.getKineticEnergy()._value)
    for index in range(original.getNumConstraints()):
        one, other, length = original.getConstraintParameters(index)
        assert np.linalg.norm(x[one] - x[other]) == pytest.approx(length._value, abs=1e-8)
    for atom in ATOMS:
        if original.getParticleMass(atom)._value == 0:
            np.testing.assert_array_equal(x[atom], start[0][atom])


def test_a_metadynamics_made_afterwards_biases_the_accelerated_system(start: tuple[np.ndarray, np.ndarray]) -> None:
    distance = openmm.CustomBondForce("r")
    distance.addBond(0, 3)
    system, integrator = accelerate(water(), TOPOLOGY, network(200.0), 2, 0.0005, 2)
    variable = app.BiasVariable(distance, 0.1, 1.5, 0.1)
    metadynamics = app.Metadynamics(system, [variable], 300.0, 10.0, 5.0, 5)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(TOPOLOGY, system, integrator, platform)
    simulation.context.setPositions(start[0])
    metadynamics.step(simulation, 20)
    at = metadynamics.getCollectiveVariables(simulation)[0]
    bias = simulation.context.getState(energy=True, groups={metadynamics._force.getForceGroup()})
    assert bias.getPotentialEnergy()._value > 10.0 and 0.1 < at < 1.5
