"""Forces of several outputs of a CV share one evaluation: numbers as in float64, and never those of other positions."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from learned_cvs import chain, rounding_of_values, untrained_cv

from openmm_gnn.forces.backends import available_backends
from openmm_gnn.forces.cv_force import cv_force
from openmm_gnn.forces.modules.cv_module import CVModule
from openmm_gnn.forces.shared_cv import SharedCV, shared_cv
from openmm_gnn.kernels.shared_calls import SHARED

BACKENDS = available_backends()
START = chain()
CV = untrained_cv(START, 3)
ROUNDING = rounding_of_values(CV)
FORCE_ROUNDING = 2e-4
"""Of the largest: float32 sums of some hundred terms, which OpenMM adds up in float32 on some platforms."""
BOX = np.diag([1.9, 2.0, 2.1])
GROUP = 9


def moved(seed: int) -> np.ndarray:
    return START.positions + 0.02 * np.random.default_rng(seed).normal(size=START.positions.shape)


@cache
def exact_module() -> CVModule:
    return CVModule(CV, START.topology, torch.float64).eval()


def exact(positions: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (3,) and gradients (3, N, 3) by nm, in float64 and by autograd."""
    module = exact_module()
    centred, scaled = module.prepared(torch.from_numpy(positions), torch.from_numpy(box))
    outputs = module.values(centred.requires_grad_(), scaled)
    gradients = [torch.autograd.grad(one, centred, retain_graph=True)[0] * module.per_nm for one in outputs]
    return outputs.detach().numpy(), torch.stack(gradients).numpy()


def evaluation() -> SharedCV:
    """The one that all forces of CV share; tests look at how far its counters move."""
    return shared_cv(CVModule(CV, START.topology))


def alone() -> SharedCV:
    return SharedCV(CVModule(CV, START.topology), "of a test")


class Biased:
    """A Context with 2 s0 - 3 s1 + s2^2."""

    def __init__(self, backend: Any, platform_name: str) -> None:
        self.custom = openmm.CustomCVForce("2*s0 - 3*s1 + s2^2")
        for output in range(3):
            force = cv_force(CV, START.topology, output, backend, periodic=True)
            self.custom.addCollectiveVariable(f"s{output}", force)
        self.custom.setForceGroup(GROUP)
        system = copy.deepcopy(START.system)
        system.setDefaultPeriodicBoxVectors(*[openmm.Vec3(*row) for row in BOX])
        system.addForce(self.custom)
        platform = openmm.Platform.getPlatformByName(platform_name)
        self.context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)

    def forces_at(self, positions: np.ndarray) -> np.ndarray:
        self.context.setPositions(positions)
        return np.array(self.context.getState(forces=True, groups={GROUP}).getForces(asNumpy=True)._value)

    def check(self, positions: np.ndarray, box: np.ndarray = BOX) -> None:
        """Values and forces against float64."""
        forces = self.forces_at(positions)
        values, gradients = exact(positions, box)
        np.testing.assert_allclose(self.custom.getCollectiveVariableValues(self.context), values, atol=ROUNDING)
        energy = self.context.getState(energy=True, groups={GROUP}).getPotentialEnergy()._value
        assert energy == pytest.approx(2 * values[0] - 3 * values[1] + values[2] ** 2, abs=10 * ROUNDING)
        wanted = -(2 * gradients[0] - 3 * gradients[1] + 2 * values[2] * gradients[2])
        np.testing.assert_allclose(forces, wanted, atol=10 * FORCE_ROUNDING * np.abs(gradients).max())


FIRST_SEEDS = {"Reference": 100, "CPU": 200}
"""Of positions that no other platform has had, whose numbers would be remembered."""


@cache
def biased(backend: Any, platform_name: str) -> Biased:
    """A Context takes seconds, so tests share them."""
    return Biased(backend, platform_name)


@pytest.fixture(autouse=True, scope="module")
def _let_go() -> Iterator[None]:
    yield
    biased.cache_clear()


@pytest.mark.parametrize("backend", BACKENDS)
def test_three_variables_are_those_of_the_positions_in_one_evaluation(backend: Any, platform_name: str) -> None:
    run = biased(backend, platform_name)
    first = FIRST_SEEDS.get(platform_name, 300)
    run.check(moved(first))  # the first time shows which outputs are in use
    for seed in (first + 1, first + 2):
        before = evaluation().evaluations, evaluation().gradients
        run.check(moved(seed))
        assert (evaluation().evaluations, evaluation().gradients) == (before[0] + 1, before[1] + 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_contexts_in_turn_and_another_box_never_get_values_of_before(backend: Any) -> None:
    first, second = biased(backend, "Reference"), biased(backend, "CPU")
    for seed in (3, 4):
        first.check(moved(seed))
        second.check(moved(seed) + 0.01 * np.sin(np.arange(18)).reshape(6, 3))
    narrow = np.diag([1.6, 0.7, 0.75])  # where an atom sees images of others
    assert np.abs(exact(moved(4), narrow)[0] - exact(moved(4), BOX)[0]).max() > 10 * ROUNDING
    first.context.setPeriodicBoxVectors(*narrow)
    first.check(moved(4), narrow)
    first.context.setPeriodicBoxVectors(*BOX)
    first.check(moved(4))


@pytest.mark.parametrize("backend", BACKENDS)
def test_after_positions_that_are_not_finite_come_those_of_the_next_ones(backend: Any) -> None:
    run = biased(backend, "Reference")
    before, broken = run.forces_at(moved(0)), moved(0)
    broken[3, 1] = np.nan
    for _ in range(2):
        with pytest.raises(openmm.OpenMMException, match="finite|NaN"):
            run.forces_at(broken)
    np.testing.assert_array_equal(run.forces_at(moved(0)), before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_process_without_the_evaluation_computes_by_itself(backend: Any) -> None:
    """As one that has read the System from XML: the networks are in it."""
    run, name = biased(backend, "Reference"), evaluation().name
    found, before = SHARED.pop(name), evaluation().evaluations
    try:
        run.check(moved(5))
    finally:
        SHARED[name] = found
    assert evaluation().evaluations == before


def test_numbers_do_not_depend_on_what_is_computed_with_them() -> None:
    """To the last bit: in another order, of other outputs, and after other positions."""
    places = [torch.from_numpy(moved(seed)) for seed in range(3)]
    apart = {(seed, k): alone_at(places[seed], k) for seed in range(2) for k in range(3)}
    shared = alone()
    for seed, output in ((0, 2), (1, 0), (0, 1), (1, 2), (2, 1), (0, 0), (1, 1)):
        energy, forces = shared.energy_and_forces(places[seed], None, output)
        if seed < 2:
            assert energy == apart[seed, output][0] and torch.equal(forces, apart[seed, output][1])
    assert not torch.equal(apart[0, 0][1], apart[0, 1][1])


_ALONE: list[SharedCV] = []


def alone_at(read: torch.Tensor, output: int) -> tuple[float, torch.Tensor]:
    """By an evaluation that has forgotten everything else."""
    if not _ALONE:
        _ALONE.append(alone())
    _ALONE[0].forget()
    return _ALONE[0].energy_and_forces(read, None, output)


def test_threads_have_the_numbers_of_their_own_positions() -> None:
    """More threads than positions are remembered, each with two outputs in its own order."""
    shared = alone()
    wanted = [[alone_at(torch.from_numpy(moved(n)), k) for k in range(3)] for n in range(10)]
    wrong: list[int] = []

    def again(number: int) -> None:
        read = torch.from_numpy(moved(number))
        for turn in range(20):
            for output in ((number + turn) % 3, turn % 3):
                energy, forces = shared.energy_and_forces(read, None, output)
                if energy != wanted[number][output][0] or not torch.equal(forces, wanted[number][output][1]):
                    wrong.append(number)

    threads = [threading.Thread(target=again, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_output_that_nobody_asks_for_any_more_is_no_longer_computed() -> None:
    shared = alone()
    for output in range(3):
        shared.energy_and_forces(torch.from_numpy(moved(0)), None, output)
    for seed in range(1, 20):
        shared.energy_and_forces(torch.from_numpy(moved(seed)), None, 1)
    before = shared.gradients
    shared.energy_and_forces(torch.from_numpy(moved(20)), None, 1)
    assert shared.gradients == before + 1
