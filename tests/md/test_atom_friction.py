"""A friction of single atoms: each forgets its velocity at its own rate, and the ensemble stays what it is."""

from __future__ import annotations

import numpy as np
import openmm
import pytest
from independent_wells import BONDED, COUNT, KT, SOFT, STIFF, TEMPERATURE, context_of, levels, sampled, spring, wells

from openmm_gnn.base.errors import SpecError
from openmm_gnn.md.leapfrog_steps import LeapfrogLangevinIntegrator
from openmm_gnn.md.multiple_time_steps import Bath, LangevinLevels, MultipleTimeStepIntegrator

HYDROGENS = COUNT // 2
KINDS = (MultipleTimeStepIntegrator, LeapfrogLangevinIntegrator)


def with_friction(kind: type[LangevinLevels], outer_ps: float, inner: int, hydrogens: float) -> LangevinLevels:
    """1/ps for the second half of the atoms, and another friction for the first."""
    bath = Bath(TEMPERATURE, 1.0, dict.fromkeys(range(HYDROGENS), hydrogens))
    return kind(levels(outer_ps, inner), bath, False, COUNT)


def velocities(context: openmm.Context) -> np.ndarray:
    return np.array(context.getState(velocities=True).getVelocities(asNumpy=True)._value)


@pytest.mark.parametrize("kind", KINDS)
def test_free_atoms_forget_their_velocities_each_at_its_rate(kind: type[LangevinLevels]) -> None:
    """Correlations of exp(-friction t) after 0.02 and 0.2 ps, of 750 coordinates: a standard error of 0.037."""
    integrator = with_friction(kind, 0.004, 2, 20.0)
    context = context_of(wells(("0*q", BONDED)), integrator, 0.1)
    first, found = velocities(context), []
    for picoseconds in (0.02, 0.18):
        integrator.step(round(picoseconds / integrator.getStepSize()._value))
        now = velocities(context)
        found.append([np.mean(now[half] * first[half]) / KT for half in (slice(HYDROGENS), slice(HYDROGENS, None))])
    assert np.ravel(found) == pytest.approx(np.exp([-0.4, -0.02, -4.0, -0.2]), abs=0.13)
    integrator.setFriction(5.0)  # of the others
    first = velocities(context)
    integrator.step(round(0.2 / integrator.getStepSize()._value))
    kept = [
        np.mean(velocities(context)[half] * first[half]) / KT for half in (slice(HYDROGENS), slice(HYDROGENS, None))
    ]
    assert kept == pytest.approx(np.exp([-4.0, -1.0]), abs=0.13)


@pytest.mark.parametrize("kind", KINDS)
def test_the_ensemble_of_springs_is_the_same_for_all_frictions(kind: type[LangevinLevels]) -> None:
    """750 coordinates of each half over 2 ps: 1500 independent samples, as 1/ps forgets within 1 ps."""
    medium = 3 * SOFT
    integrator = with_friction(kind, 0.004, 1, 50.0)
    context = context_of(wells((spring(medium), BONDED), (spring(SOFT), 0)), integrator, np.sqrt(KT) / (3.16 * SOFT))
    stride = round(0.1 / integrator.getStepSize()._value)
    found = sampled(context, stride, 20, stride).reshape(20, COUNT, 3) ** 2 * (medium**2 + SOFT**2) / KT
    halves = found[:, :HYDROGENS].mean(), found[:, HYDROGENS:].mean()
    assert halves == pytest.approx([1.0, 1.0], abs=0.12)  # three standard errors


def test_hydrogens_of_high_friction_bear_a_step_at_which_others_heat() -> None:
    """At a resonance of a spring like a bond of hydrogen: an outer step of half its period."""
    system = wells((spring(STIFF), BONDED), (spring(50.0), 0))
    context = context_of(system, with_friction(MultipleTimeStepIntegrator, 0.0055, 10, 50.0), KT**0.5 / STIFF)
    found = sampled(context, 100, 40, 2).reshape(40, COUNT, 3) ** 2 * (STIFF**2 + 50.0**2) / KT
    assert found[:, :HYDROGENS].mean() == pytest.approx(1.0, abs=0.1)  # 3 % of the step, and three errors of 2 %
    assert found[:, HYDROGENS:].mean() > 1.4


@pytest.mark.parametrize(
    ("frictions", "message"), [({0: -1.0}, "hydrogen_friction is -1.0"), ({0: float("inf")}, "give a finite number")]
)
def test_frictions_out_of_range_are_refused(frictions: dict[int, float], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Bath(300.0, 1.0, frictions)
    with pytest.raises(SpecError, match="without a temperature"):
        Bath(None, None, {0: 1.0})
