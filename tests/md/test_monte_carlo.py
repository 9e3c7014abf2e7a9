"""Hybrid Monte Carlo beside exact distributions and the theory of its acceptance, with students that are off."""

from __future__ import annotations

import math

import numpy as np
import openmm
import pytest
from independent_wells import (
    BONDED,
    COUNT,
    KT,
    NEGATED,
    NETWORK,
    SOFT,
    STIFF,
    TEMPERATURE,
    context_of,
    levels,
    sampled,
    spring,
    wells,
)

from openmm_gnn.md.monte_carlo_steps import HybridMonteCarloIntegrator
from openmm_gnn.md.multiple_time_steps import Bath

BATH = Bath(TEMPERATURE, 50.0)


def mean_energy_change(true: float, learned: float, step: float, steps: int) -> float:
    """Mean of H after less H before a proposal, over kT, for one coordinate with these frequencies.

    In x sqrt(k / kT) and p / sqrt(m kT), H / kT is half the square of the norm, and Verlet a matrix.
    """
    half_kick = np.array([[1.0, 0.0], [-0.5 * step * learned**2 / true, 1.0]])
    drift = np.array([[1.0, step * true], [0.0, 1.0]])
    proposal = np.linalg.matrix_power(half_kick @ drift @ half_kick, steps)
    return 0.5 * ((proposal**2).sum() - 2)


def test_acceptance_is_that_of_theory_and_springs_are_the_teachers() -> None:
    """1500 springs, a student whose are 2.5 % too stiff: with that alone the mean square were 2.5 % too small."""
    true, learned, step, steps = 2 * SOFT, 2 * SOFT * 1.025**0.5, 0.002, 5
    system = wells((spring(true), 0), (spring(learned), NETWORK), (f"-({spring(learned)})", NEGATED))
    integrator = HybridMonteCarloIntegrator(levels(step * steps, steps), BATH, False)
    assert math.isnan(integrator.acceptance)
    context = context_of(system, integrator, KT**0.5 / true)
    coordinates = sampled(context, 100, 100, 8)
    expected = math.erfc(0.5 * math.sqrt(3 * COUNT * mean_energy_change(true, learned, step, steps)))
    assert 0.3 < expected < 0.9
    assert integrator.acceptance == pytest.approx(expected, abs=0.06)  # 900 proposals, neighbours alike: 0.02
    square = (coordinates**2).mean() * true**2 / KT
    assert square == pytest.approx(1.0, abs=0.012)  # 1500 x 25 independent ones: a standard error of 0.7 %


def test_a_well_that_is_no_parabola_is_sampled_exactly_with_bonded_substeps() -> None:
    """The student's fourth power is 20 % too strong; the spring of the bonded forces is its own."""
    teacher, student = "3e4*q^4", "3.6e4*q^4"
    system = wells((spring(SOFT), BONDED), (teacher, 0), (student, NETWORK), (f"-({student})", NEGATED))
    of = levels(0.004, 2, 2)
    context = context_of(system, HybridMonteCarloIntegrator(of, BATH, False), 0.03)
    coordinates = sampled(context, 200, 60, 10)
    q = np.linspace(-0.5, 0.5, 100_001)
    weights = np.exp(-(3e4 * q**4 + 0.5 * SOFT**2 * q**2) / KT)
    for power, tolerance in ((2, 0.02), (4, 0.05)):
        exact = (weights * q**power).sum() / weights.sum()
        assert (coordinates**power).mean() == pytest.approx(exact, rel=tolerance)
    assert 0.05 < context.getIntegrator().acceptance < 0.99


def test_rigid_dimers_in_a_field_turn_as_langevin_computed() -> None:
    """Dipoles of fixed length in a field: their mean cosine is the Langevin function, whatever the student's field."""
    dimers, length, field = 400, 0.1, 30.0
    system, positions = openmm.System(), []
    strengths = ((field, 0), (1.1 * field, NETWORK), (-1.1 * field, NEGATED))
    springs = openmm.CustomExternalForce("500*(x^2+y^2+z^2)")
    springs.setForceGroup(BONDED)
    generator = np.random.default_rng(3)
    forces = [openmm.CustomExternalForce(f"{strength}*z") for strength, _ in strengths]
    for dimer in range(dimers):
        for _ in range(2):
            system.addParticle(2.0)
        system.addConstraint(2 * dimer, 2 * dimer + 1, length)
        springs.addParticle(2 * dimer, [])
        for force in forces:
            force.addParticle(2 * dimer + 1, [])
        direction = generator.normal(size=3)
        place = generator.normal(size=3) * math.sqrt(KT / 1000)
        positions += [place, place + length * direction / np.linalg.norm(direction)]
    for force, (_, group) in zip(forces, strengths, strict=True):
        force.setForceGroup(group)
        system.addForce(force)
    system.addForce(springs)
    integrator = HybridMonteCarloIntegrator(levels(0.010, 5), BATH, True)
    integrator.setRandomNumberSeed(3)
    integrator.setConstraintTolerance(1e-8)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(np.array(positions))
    context.setVelocitiesToTemperature(TEMPERATURE, 1)
    integrator.step(400)  # they begin in all directions alike, and forget it within some 200 steps
    cosines, kinetic = [], []
    for _ in range(80):
        integrator.step(8)
        state = context.getState(positions=True, energy=True)
        ends = np.asarray(state.getPositions(asNumpy=True)._value).reshape(dimers, 2, 3)
        cosines.append((ends[:, 1] - ends[:, 0])[:, 2].mean() / length)
        kinetic.append(state.getKineticEnergy()._value)
    a = field * length / KT
    # Means of 20 samples scatter by 0.012 about the exact value (8 of them, 2 seeds): 0.006 for 80.
    assert np.mean(cosines) == pytest.approx(-(1 / math.tanh(a) - 1 / a), abs=0.025)
    assert np.mean(kinetic) / (0.5 * 5 * dimers * KT) == pytest.approx(1.0, abs=0.03)
    assert 0.3 < integrator.acceptance < 1.0
    assert np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1) == pytest.approx(np.full(dimers, length), abs=1e-7)


def test_stiff_springs_that_the_student_does_not_know_are_refused_steps() -> None:
    """A proposal that gains energy for sure is never taken, and the positions stay."""
    system = wells((spring(STIFF), 0), ("0*q", NETWORK), ("0*q", NEGATED))
    context = context_of(system, HybridMonteCarloIntegrator(levels(0.01, 1), BATH, False), KT**0.5 / STIFF)
    before = np.array(context.getState(positions=True).getPositions(asNumpy=True)._value)
    context.getIntegrator().step(5)
    after = np.array(context.getState(positions=True).getPositions(asNumpy=True)._value)
    np.testing.assert_array_equal(after, before)
    assert context.getIntegrator().acceptance == 0.0
