"""Isokinetic dynamics beside exact distributions, at outer steps where other integrators resonate."""

from __future__ import annotations

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

from openmm_gnn.base.errors import SpecError
from openmm_gnn.md.leapfrog_steps import IsokineticIntegrator, LeapfrogLangevinIntegrator
from openmm_gnn.md.multiple_time_steps import Bath, MultipleTimeStepIntegrator, TimeLevels


def isokinetic(of: TimeLevels) -> IsokineticIntegrator:
    return IsokineticIntegrator(of, Bath(TEMPERATURE, 10.0))


def langevin(of: TimeLevels) -> MultipleTimeStepIntegrator:
    return MultipleTimeStepIntegrator(of, Bath(TEMPERATURE, 1.0), False, COUNT)


def moments(energy: str, coordinates: np.ndarray) -> np.ndarray:
    """The second and fourth moment of coordinates, over those of exp(-energy/kT) by quadrature."""
    q = np.linspace(-1.0, 1.0, 200_001)
    weights = np.exp(-eval(energy.replace("^", "**"), {"q": q}) / KT)
    exact = [(weights * q**power).sum() / weights.sum() for power in (2, 4)]
    return np.array([(coordinates**power).mean() for power in (2, 4)]) / exact


def test_a_resonance_that_heats_langevin_dynamics_leaves_isokinetic_dynamics_right() -> None:
    """An outer step of half the period of the stiff spring: the worst.

    60 samples of 1500 coordinates, 11 fs apart, are 20 000 independent ones, as they forget each other in 60 fs at
    most: a standard error of 1 % of a square, and three of them are allowed, with 1 % of the step's own fault.
    """
    energy = f"{spring(STIFF)}+{spring(2 * SOFT)}"
    width, found = np.sqrt(KT) / STIFF, {}
    for make in (isokinetic, langevin):
        system = wells((spring(STIFF), BONDED), (spring(2 * SOFT), 0))
        coordinates = sampled(context_of(system, make(levels(0.0055, 10)), width), 30, 60, 2)
        found[make] = moments(energy, coordinates)[0]
    assert found[isokinetic] == pytest.approx(1.0, abs=0.04)
    assert found[langevin] > 2.0


@pytest.mark.parametrize(
    ("stiff", "slow", "outer_ps", "inner", "samples"),
    [
        (spring(STIFF), spring(SOFT), 0.0308, 40, 25),  # nearly three periods of the stiff spring
        (spring(STIFF), "3e6*q^4", 0.0124, 16, 60),
        ("0*q", "3e4*q^4", 0.0124, 4, 40),  # a well whose kurtosis is 2.19
    ],
)
def test_distributions_at_long_outer_steps_are_the_canonical_ones(
    stiff: str, slow: str, outer_ps: float, inner: int, samples: int
) -> None:
    """Tolerances: three times 1 %, as above, and 1 % of the step's fault; twice that for the fourth power."""
    context = context_of(wells((stiff, BONDED), (slow, 0)), isokinetic(levels(outer_ps, inner)), 0.003)
    second, fourth = moments(f"{stiff}+{slow}", sampled(context, 20, samples, 4 if inner == 4 else 1))
    assert second == pytest.approx(1.0, abs=0.04)
    assert fourth == pytest.approx(1.0, abs=0.08)


def test_a_network_in_three_levels_is_corrected() -> None:
    """Springs of bonds, of a network that is 7 % too stiff, and of the expensive forces: the last two by turns."""
    medium = 0.3 * STIFF
    wrong = spring(medium * 1.07**0.5)
    system = wells((spring(STIFF), BONDED), (spring(medium), 0), (wrong, NETWORK), (f"-({wrong})", NEGATED))
    coordinates = sampled(context_of(system, isokinetic(levels(0.0112, 6, 2)), 0.003), 40, 80, 1)
    exact, without = KT / (STIFF**2 + medium**2), KT / (STIFF**2 + 1.07 * medium**2)
    assert (coordinates**2).mean() == pytest.approx(exact, rel=0.04)
    assert without < 0.995 * exact


def test_velocities_are_bounded_and_lie_on_the_constraint() -> None:
    """They follow the arcsine distribution, whose square has half the mean of the thermal one."""
    system = wells((spring(STIFF), BONDED), (spring(SOFT), 0))
    context = context_of(system, isokinetic(levels(0.0112, 10)), 0.003)
    context.getIntegrator().step(20)
    squares = []
    for _ in range(30):
        context.getIntegrator().step(1)
        v = np.ravel(context.getState(velocities=True).getVelocities(asNumpy=True)._value)
        squares.append(v**2 / KT)
    assert np.max(squares) <= 1.0
    assert np.mean(squares) == pytest.approx(0.5, abs=0.015)  # standard error 0.35 / sqrt(1500 * 5), and three of them


@pytest.mark.parametrize("virtual_sites", [False, True])
def test_a_checkpoint_holds_the_variables_of_the_thermostat(virtual_sites: bool) -> None:
    """Also within an outer step, where one is several steps of OpenMM; both walks have the same random numbers."""
    system = wells((spring(STIFF), BONDED), (spring(SOFT), 0))

    def fresh() -> openmm.Context:
        integrator = IsokineticIntegrator(levels(0.0112, 10), Bath(TEMPERATURE, 10.0), virtual_sites)
        return context_of(system, integrator, 0.003)

    first, second = fresh(), fresh()
    first.getIntegrator().step(7)
    kept = first.createCheckpoint()
    ends = []
    for context in (first, second):
        context.loadCheckpoint(kept)
        context.getIntegrator().step(6)
        ends.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    np.testing.assert_array_equal(*ends)


def test_an_outer_step_in_several_steps_of_openmm_is_the_same_map() -> None:
    """With the thermostat as good as stopped, from the same thermostat variables."""
    ends = []
    for virtual_sites in (False, True):
        integrator = IsokineticIntegrator(levels(0.0112, 3, 2), Bath(TEMPERATURE, 0.0), virtual_sites)
        medium = spring(0.3 * STIFF)
        system = wells((spring(STIFF), BONDED), ("1e5*q^4", 0), (medium, NETWORK), (f"-({medium})", NEGATED))
        context = context_of(system, integrator, 0.003)
        values = np.random.default_rng(2).normal(size=(2, COUNT, 3))
        integrator.setGlobalVariableByName("mts_started", 1)
        for name, rows in zip(("mts_y", "mts_xi"), values, strict=True):
            integrator.setPerDofVariableByName(name, [openmm.Vec3(*row) for row in rows])
        integrator.step(4 * integrator.steps_per_outer_step)
        ends.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    assert integrator.steps_per_outer_step == 6
    assert ends[0] == pytest.approx(ends[1], abs=1e-12)


def test_leapfrog_steps_are_those_of_openmm() -> None:
    """One level at constant energy is OpenMM's VerletIntegrator."""
    ends = []
    for integrator in (
        LeapfrogLangevinIntegrator(levels(0.001, 1), Bath(None, None), False, COUNT),
        openmm.VerletIntegrator(0.001),
    ):
        context = context_of_any(wells(("1e5*q^4", BONDED), (spring(SOFT), 0)), integrator)
        integrator.step(50)
        ends.append(context.getState(positions=True).getPositions(asNumpy=True)._value)
    assert ends[0] == pytest.approx(ends[1], abs=1e-12)


def context_of_any(system: openmm.System, integrator: openmm.Integrator) -> openmm.Context:
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(np.random.default_rng(1).normal(size=(COUNT, 3)) * 0.05)
    context.setVelocities(np.random.default_rng(2).normal(size=(COUNT, 3)))
    return context


@pytest.mark.parametrize(
    ("bath", "changes", "message"),
    [
        (Bath(None, None), {}, "needs one above 0"),
        (Bath(0.0, 1.0), {}, "temperature is 0.0"),
        (Bath(300.0, 1.0, {0: 20.0}), {}, "of Langevin dynamics"),
        (Bath(300.0, 1.0), {"time_ps": 0.0}, "time_ps is 0.0"),
    ],
)
def test_settings_that_it_has_no_use_for_are_refused(bath: Bath, changes: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        IsokineticIntegrator(levels(0.01, 2), bath, **changes)


def test_a_force_that_is_not_a_number_is_not_hidden_by_the_bound_of_velocities() -> None:
    system = wells((spring(SOFT), BONDED), ("(q-100)^0.5", 0))
    context = context_of(system, IsokineticIntegrator(levels(0.004, 2, 2), Bath(TEMPERATURE, 10.0)), 0.03)
    context.getIntegrator().step(1)
    assert np.isnan(context.getState(positions=True).getPositions(asNumpy=True)._value).all()
