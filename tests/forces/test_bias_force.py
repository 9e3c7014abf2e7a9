"""The single-pass bias, on every platform and backend, against OpenMM's CustomCVForce of the same CVs."""

from __future__ import annotations

import copy
import threading
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from learned_cvs import chain, rounding_of_values, untrained_cv, values_of

from openmm_gnn.base.errors import BackendError, NonFiniteError, SpecError
from openmm_gnn.forces.backends import available_backends
from openmm_gnn.forces.cv_force import BiasForce, cv_force

BACKENDS = available_backends()
CV = untrained_cv(chain(), 3)


class Springs:
    """Sum over the CVs of k (s - 1)^2 times a strength."""

    def __init__(self) -> None:
        self.strength = 1.0

    def value_and_gradient(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        factors = self.strength * np.arange(2.0, 2.0 + len(values))
        return float((factors * (values - 1) ** 2).sum()), 2 * factors * (values - 1)


def made_context(force: Any, platform_name: str, periodic: bool, integrator: Any = None) -> openmm.Context:
    start = chain()
    system = copy.deepcopy(start.system)
    if periodic:
        system.setDefaultPeriodicBoxVectors((1.9, 0, 0), (0, 2.0, 0), (0, 0, 2.1))
    if isinstance(force, BiasForce):
        force.add_to(system)
    else:
        system.addForce(force)
    platform = openmm.Platform.getPlatformByName(platform_name)
    context = openmm.Context(system, integrator or openmm.VerletIntegrator(0.001), platform)
    context.setPositions(start.positions)
    return context


def energy_and_forces(context: openmm.Context) -> tuple[float, np.ndarray]:
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value, np.array(state.getForces(asNumpy=True)._value)


@pytest.fixture(scope="module", params=[False, True], ids=["open", "periodic"])
def custom(request: pytest.FixtureRequest) -> tuple[bool, openmm.Context]:
    """OpenMM's own: an energy of single outputs, each with a strength that is a parameter of the Context."""
    force = openmm.CustomCVForce("+".join(f"k{output}*(s{output}-1)^2" for output in range(3)))
    for output in range(3):
        force.addCollectiveVariable(f"s{output}", cv_force(CV, chain().topology, output, BACKENDS[0], request.param))
        force.addGlobalParameter(f"k{output}", 0.0)
    return request.param, made_context(force, "Reference", request.param)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("outputs", [(0,), (2, 0, 1)])
def test_energy_and_forces_are_those_of_a_custom_cv_force(
    custom: tuple[bool, openmm.Context], backend: Any, outputs: tuple[int, ...], platform_name: str
) -> None:
    periodic, theirs = custom
    for output in range(3):
        theirs.setParameter(f"k{output}", 2.0 + outputs.index(output) if output in outputs else 0.0)
    bias = BiasForce(CV, chain().topology, Springs(), outputs, backend, periodic)
    energy, forces = energy_and_forces(made_context(bias, platform_name, periodic))
    wanted_energy, wanted_forces = energy_and_forces(theirs)
    assert energy == pytest.approx(wanted_energy, rel=1e-4)
    np.testing.assert_allclose(forces, wanted_forces, atol=2e-4 * np.abs(wanted_forces).max())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("integrator_class", ["verlet", "langevin", "nose-hoover"])
def test_a_changed_bias_acts_from_the_next_step_on(backend: Any, integrator_class: str) -> None:
    makers = {
        "verlet": lambda: openmm.VerletIntegrator(0.001),
        "langevin": lambda: openmm.LangevinMiddleIntegrator(300, 1, 0.001),
        "nose-hoover": lambda: openmm.NoseHooverIntegrator(300, 1, 0.001),
    }
    ends = []
    for change_between in (False, True):
        potential = Springs()
        bias = BiasForce(CV, chain().topology, potential, None, backend)
        integrator = makers[integrator_class]()
        if integrator_class == "langevin":
            integrator.setRandomNumberSeed(4)
        context = made_context(bias, "Reference", False, integrator)
        integrator.step(3)
        if change_between:  # the forces of these positions are known to OpenMM already
            context.getState(forces=True)
        else:
            context.setPositions(context.getState(positions=True).getPositions())
        potential.strength = 30.0
        bias.changed(context)
        integrator.step(3)
        ends.append(np.array(context.getState(positions=True).getPositions(asNumpy=True)._value))
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_asked_values_are_those_of_the_positions_now(backend: Any, platform_name: str) -> None:
    bias = BiasForce(CV, chain().topology, Springs(), (1, 2), backend)
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.001)
    integrator.setRandomNumberSeed(1)
    context = made_context(bias, platform_name, False, integrator)
    for _ in range(3):
        integrator.step(7)
        positions = np.array(context.getState(positions=True).getPositions(asNumpy=True)._value)
        seen = bias.values(context)
        expected = values_of(CV, chain(), positions, None)[[1, 2]]
        np.testing.assert_allclose(seen.values, expected, atol=rounding_of_values(CV))
        assert seen.energy == pytest.approx(Springs().value_and_gradient(seen.values)[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_error_of_the_bias_keeps_its_type(backend: Any) -> None:
    class Broken(Springs):
        def value_and_gradient(self, values: np.ndarray) -> tuple[float, np.ndarray]:
            return float("nan"), np.full(3, np.nan)

    bias = BiasForce(CV, chain().topology, Broken(), None, backend)
    with pytest.raises(NonFiniteError, match="gradient is not finite"):
        bias.values(made_context(bias, "Reference", False))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(SpecError, match="counted from 0"):
        BiasForce(CV, chain().topology, Springs(), (3,))
    with pytest.raises(SpecError, match="force group is 32"):
        BiasForce(CV, chain().topology, Springs(), group=32)
    bias = BiasForce(CV, chain().topology, Springs())
    without = openmm.Context(copy.deepcopy(chain().system), openmm.VerletIntegrator(0.001))
    without.setPositions(chain().positions)
    with pytest.raises(BackendError, match="add_to"):
        bias.values(without)


@pytest.mark.parametrize("periodic", [False, True])
def test_the_steepness_is_the_mass_weighted_length_of_the_gradient(periodic: bool) -> None:
    """Against the forces that OpenMM gets for one CV as an energy; a massless atom does not count."""
    start = chain()
    box = np.diag([1.9, 2.0, 2.1]) if periodic else None
    bias = BiasForce(CV, start.topology, Springs(), (2, 0), BACKENDS[0], periodic)
    inverse = 1 / np.array([start.system.getParticleMass(atom)._value for atom in range(len(start.positions))])
    inverse[4] = 0.0
    found = bias.steepness(start.positions, box, inverse)
    for output, length in zip((2, 0), found, strict=True):
        force = cv_force(CV, start.topology, output, BACKENDS[0], periodic)
        force.setForceGroup(7)
        state = made_context(force, "Reference", periodic).getState(forces=True, groups={7})
        forces = state.getForces(asNumpy=True)._value
        # float32 sums of some hundred terms in two orders
        assert length == pytest.approx(np.sqrt(np.square(forces).sum(axis=1) @ inverse), rel=1e-4)


def test_contexts_in_two_threads_have_the_forces_of_their_own_positions() -> None:
    """One force, evaluated at two places at once, against the same one after the other."""
    start = chain()
    bias = BiasForce(CV, start.topology, Springs(), backend=BACKENDS[0], periodic=False)
    read = torch.from_numpy(start.positions[bias.read_atoms])
    places = [read, read + 0.02 * torch.sin(torch.arange(read.numel())).reshape(read.shape)]
    alone = [bias.called(place, None) for place in places]
    assert (alone[0][1] - alone[1][1]).abs().max() > 1.0
    wrong: list[int] = []

    def again(number: int) -> None:
        for _ in range(300):
            energy, forces = bias.called(places[number], None)
            if energy != alone[number][0] or not torch.equal(forces, alone[number][1]):
                wrong.append(number)

    threads = [threading.Thread(target=again, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bias.check()
    assert wrong == []
