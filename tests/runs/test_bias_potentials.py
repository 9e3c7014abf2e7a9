"""Metadynamics and OPES against direct sums, differences, and a particle in a double well that is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.runs.bias.least_widths import START_FACTOR, LeastWidths
from openmm_gnn.runs.bias.metadynamics import MetadynamicsBias
from openmm_gnn.runs.bias.opes import OpesBias
from openmm_gnn.runs.settings import WALL_KJ_MOL, BiasMethod, BiasSettings, BiasWalls

TEMPERATURE = 300.0
KT = BOLTZMANN_KJ_MOL_K * TEMPERATURE
WIDTHS = np.array([0.1, 0.3, 0.2])


def metadynamics(num_cvs: int) -> MetadynamicsBias:
    return MetadynamicsBias(-np.ones(num_cvs), np.ones(num_cvs), WIDTHS[:num_cvs], 1.5, 6.0, TEMPERATURE)


def made_biases(num_cvs: int) -> list[Any]:
    generator = np.random.default_rng(1)
    biases: list[Any] = [metadynamics(num_cvs), OpesBias(WIDTHS[:num_cvs], 30.0, TEMPERATURE)]
    for bias in biases:
        for center in generator.uniform(-0.8, 0.8, size=(60, num_cvs)):
            bias.deposit(center)
    return biases


@pytest.mark.parametrize("num_cvs", [1, 2, 3])
def test_the_grid_is_the_sum_of_well_tempered_hills(num_cvs: int) -> None:
    generator = np.random.default_rng(0)
    bias, centers, heights = metadynamics(num_cvs), [], []

    def summed(place: np.ndarray) -> float:
        away = (place - np.array(centers).reshape(-1, num_cvs)) / WIDTHS[:num_cvs]
        return float((np.array(heights) * np.exp(-0.5 * np.square(away).sum(1))).sum())

    for center in generator.uniform(-0.7, 0.7, size=(50, num_cvs)):
        expected = 1.5 * np.exp(-summed(center) / (KT * 5.0))
        assert bias.deposit(center)[0] == pytest.approx(expected, rel=0.01)
        centers.append(center)
        heights.append(expected)
    places = generator.uniform(-0.9, 0.9, size=(200, num_cvs))
    np.testing.assert_allclose(bias.energies(places), [summed(place) for place in places], atol=0.02)


@pytest.mark.parametrize("num_cvs", [1, 2, 3])
@pytest.mark.parametrize("kind", [0, 1], ids=["metad", "opes"])
def test_gradients_are_differences_of_values(num_cvs: int, kind: int) -> None:
    bias = made_biases(num_cvs)[kind]
    for place in np.random.default_rng(2).uniform(-1.3, 1.3, size=(40, num_cvs)):
        gradient = bias.value_and_gradient(place)[1]
        for axis in range(num_cvs):
            step = 1e-6 * np.eye(num_cvs)[axis]
            sides = [bias.value_and_gradient(place + sign * step)[0] for sign in (1, -1)]
            assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(gradient[axis], abs=2e-4)


def test_beyond_the_grid_the_bias_goes_on_and_does_not_drop_to_zero() -> None:
    bias = metadynamics(1)
    for _ in range(20):
        bias.deposit(np.array([1.0]))
    at_edge = bias.value_and_gradient(np.array([bias.axes[0][-2]]))[0]
    assert at_edge > 3.0
    for place in (1.0, 1.2, 7.0):
        assert bias.value_and_gradient(np.array([place]))[0] == pytest.approx(at_edge, abs=1e-9)
        assert bias.value_and_gradient(np.array([place]))[1] == 0.0


def test_the_offset_is_the_quotient_of_integrals_of_the_source() -> None:
    bias = made_biases(1)[0]
    places = np.linspace(bias.axes[0][0], bias.axes[0][-1], 4001)
    energies, gamma = bias.energies(places[:, None]), 6.0
    upper = np.trapezoid(np.exp(gamma * energies / KT / (gamma - 1)), places)
    lower = np.trapezoid(np.exp(energies / KT / (gamma - 1)), places)
    assert bias.offset() == pytest.approx(KT * np.log(upper / lower), abs=0.02)


def test_repeated_deposits_give_the_same_bias_to_the_last_bit() -> None:
    generator = np.random.default_rng(7)
    for make in (lambda: metadynamics(2), lambda: OpesBias(WIDTHS[:2], 25.0, TEMPERATURE)):
        first, second = make(), make()
        for center in generator.normal(0, 0.4, size=(80, 2)):
            second.repeat(center, first.deposit(center)[0])
        place = np.array([0.21, -0.13])
        assert first.value_and_gradient(place)[0] == second.value_and_gradient(place)[0]
        assert first.offset() == second.offset()


def test_merged_kernels_keep_mass_mean_and_variance() -> None:
    opes = OpesBias(np.array([0.5]), 30.0, TEMPERATURE)
    centers = np.random.default_rng(3).normal(0.0, 0.05, size=(30, 1))
    for center in centers:
        opes.repeat(center, 0.0)
    assert len(opes.masses) == 1
    assert opes.masses[0] == pytest.approx(30.0)
    assert opes.centers[0, 0] == pytest.approx(centers.mean())
    assert opes.widths[0, 0] ** 2 == pytest.approx(centers.var() + 0.25, rel=1e-6)


def test_the_normalisation_is_the_mean_density_at_the_kernels() -> None:
    opes = made_biases(2)[1]
    assert 5 < len(opes.masses) < 60
    away = (opes.centers[:, None] - opes.centers[None]) / opes.widths[None]
    densities = opes.masses * np.exp(-0.5 * np.square(away).sum(-1)) / opes.widths.prod(-1)
    direct = densities.sum() / opes._sum_of_weights / len(opes.masses)
    assert opes.log_z == pytest.approx(np.log(direct), abs=1e-9)


@pytest.mark.parametrize("shrink", [False, True], ids=["fixed", "shrinking"])
@pytest.mark.parametrize("explore", [False, True], ids=["opes", "explore"])
@pytest.mark.parametrize("num_cvs", [1, 2])
def test_opes_is_that_of_another_package_fed_the_same_series(num_cvs: int, explore: bool, shrink: bool) -> None:
    """openmm-opes merges by mass too; its widths always shrink, which its kernels of given variance undo."""
    peer_module = pytest.importorskip("openmm_opes")
    widths, barrier = WIDTHS[:num_cvs], 30.0
    system = openmm.System()
    system.addParticle(1.0)
    variables = [
        app.BiasVariable(openmm.CustomExternalForce(axis), -2, 2, width, False, 81)
        for axis, width in zip("xyz", widths, strict=False)
    ]
    peer = peer_module.OPES(system, variables, TEMPERATURE, barrier, 1, None, exploreMode=explore)
    ours = OpesBias(widths, barrier, TEMPERATURE, explore=explore, shrink=shrink)
    axes = [np.linspace(-2, 2, 81)] * num_cvs
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, num_cvs)
    generator, place = np.random.default_rng(4), np.zeros(num_cvs)
    for _ in range(400):
        place = np.clip(0.97 * place + 0.2 * generator.normal(size=num_cvs), -1.5, 1.5)
        energy = ours.value_and_gradient(place)[0]
        scale = 1.0 if shrink else peer._kde[peer._biasKey].bandwidthFactor(0.0 if explore else energy / ours.kt)
        peer.addKernel(place, energy, ours.bias_factor * (widths / scale) ** 2)
        ours.deposit(place)
    assert len(ours.masses) == peer.getNumKernels()
    expected = np.transpose(peer.getBias().value_in_unit(unit.kilojoules_per_mole)).reshape(-1)
    np.testing.assert_allclose(ours.energies(points), expected, atol=1e-6)


def test_opes_is_never_deeper_than_its_barrier() -> None:
    opes = made_biases(1)[1]
    assert opes.value_and_gradient(np.array([40.0]))[0] == pytest.approx(-30.0, abs=1e-9)
    assert OpesBias(np.array([0.1]), 20.0, TEMPERATURE).value_and_gradient(np.zeros(1))[0] == -20.0


def well(place: float) -> float:
    """Two wells at -1 and 1, the right one 3 kJ/mol higher, 22 kJ/mol between them."""
    return 22.0 * (place**2 - 1.0) ** 2 + 1.5 * place


def sampled(bias: Any, walls: BiasWalls, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Brownian dynamics with a growing bias; places and log weights, as a run records them."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=steps) * np.sqrt(2 * KT * 1e-3)
    place, places, log_weights = -1.0, np.empty(steps), np.empty(steps)
    offset = 0.0
    for step in range(steps):
        energy, slope = bias.value_and_gradient(np.array([place]))
        wall, push = walls.value_and_gradient(np.array([place]))
        places[step], log_weights[step] = place, (energy + wall - offset) / KT
        if step % 100 == 0:
            bias.deposit(np.array([place]))
            offset = bias.offset() if isinstance(bias, MetadynamicsBias) else 0.0
        force = -(88.0 * place * (place**2 - 1.0) + 1.5) - float(slope[0] + push[0])
        place += 1e-3 * force + noise[step]
    return places, log_weights


@pytest.mark.parametrize("method", list(BiasMethod))
def test_a_double_well_is_crossed_and_its_free_energy_found(method: BiasMethod) -> None:
    settings = BiasSettings(method, height=1.5, barrier=25.0, width=(0.12,), factor=8.0)
    walls = BiasWalls.around(np.array([-1.4]), np.array([1.4]), 0.1)
    bias = settings.potential(walls, np.array([0.12]), TEMPERATURE)
    places, log_weights = sampled(bias, walls, 60_000, seed=2)
    sides = np.sign(places[np.abs(places) > 0.8])
    assert (np.diff(sides) != 0).sum() > 20  # exp(-22 / kT) lets an unbiased one cross less than once
    edges = np.linspace(-1.3, 1.3, 27)
    middles = (edges[1:] + edges[:-1]) / 2
    counts = np.histogram(places[6000:], edges, weights=np.exp(log_weights[6000:] - log_weights.max()))[0]
    found, truth = -KT * np.log(counts), np.array([well(place) for place in middles])
    populated = truth < truth.min() + 12.0
    difference = (found - truth)[populated]
    assert np.abs(difference - difference.mean()).max() < 2.0


def test_walls_begin_a_margin_beyond_the_range() -> None:
    walls = BiasWalls.around(np.array([0.0, -1.0]), np.array([1.0, 1.0]), 0.1)
    assert walls.value_and_gradient(np.array([1.1, -1.2]))[0] == 0.0
    energy, gradient = walls.value_and_gradient(np.array([1.2, -1.4]))
    assert energy == pytest.approx(2 * WALL_KJ_MOL)
    np.testing.assert_allclose(gradient, [2 * WALL_KJ_MOL / 0.1, -2 * WALL_KJ_MOL / 0.2])
    assert walls.value_and_gradient(np.array([1.15, 0.0]))[0] == pytest.approx(WALL_KJ_MOL / 4)
    far, pull = walls.value_and_gradient(np.array([9.1, 0.0]))  # straight from there on: the pull stays bounded
    assert far == pytest.approx(WALL_KJ_MOL * (2 * 80.0 - 1))
    np.testing.assert_allclose(pull, [2 * WALL_KJ_MOL / 0.1, 0.0])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"stride": 0}, "stride is 0"),
        ({"interval": 9}, "resonate"),
        ({"factor": 1.0}, "above 1"),
        ({"method": "metad", "shrink": True}, "keep their width"),
        ({"barrier": -3.0}, "barrier is -3"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        BiasSettings(**wrong)


def test_a_grid_that_is_too_large_is_refused_with_a_remedy() -> None:
    with pytest.raises(SpecError, match="--bias-width"):
        MetadynamicsBias(-np.ones(3), np.ones(3), np.full(3, 0.005), 1.0, 10.0, TEMPERATURE)
    with pytest.raises(SpecError, match="1 to 3"):
        MetadynamicsBias(-np.ones(4), np.ones(4), np.full(4, 0.5), 1.0, 10.0, TEMPERATURE)


def second_derivatives(potential: Any, places: np.ndarray) -> np.ndarray:
    """V'' along one variable, from differences of the gradient."""
    step = 1e-4
    ends = [[potential.value_and_gradient(np.array([x + move]))[1][0] for x in places] for move in (-step, step)]
    return (np.array(ends[1]) - np.array(ends[0])) / (2 * step)


@pytest.mark.parametrize("barrier", [5.0, 40.0, 200.0])
def test_the_stiffest_bias_of_least_width_has_the_frequency_that_is_allowed(barrier: float) -> None:
    """One kernel, hills stacked as high as the barrier, and walls; steepness and time step are those of a bad CV."""
    steepness, time_step, allowed = np.array([80.0]), 0.004, 0.8
    least = LeastWidths(barrier, time_step, allowed, steepness / START_FACTOR)
    opes = OpesBias(np.array([1e-3]), barrier, TEMPERATURE)
    opes.widen(least.widths)
    assert opes.deposit(np.zeros(1))[1] == least.widths
    ends = 20 * least.widths
    hills = MetadynamicsBias(-ends, ends, least.widths / 5, barrier, 1e9, TEMPERATURE)
    hills.widen(least.widths)
    hills.deposit(np.zeros(1))
    walls = BiasWalls(-np.ones(1), np.ones(1), np.full(1, 1e-3)).reaching(least.reach)
    for potential, share in ((opes, 0.9), (hills, 0.9), (walls, 1.0)):
        places = np.linspace(-16 * least.widths[0], 16 * least.widths[0], 8001)
        frequency = np.sqrt(second_derivatives(potential, places).max()) * steepness[0]
        # OPES has sqrt(1 - c / B) of the bound, and c is kT at most; hills have sqrt(4 exp(-3/2)) = 0.945 of it.
        low = np.sqrt(max(0.0, 1 - KT / barrier)) if potential is opes else share
        assert 0.97 * low * allowed < frequency * time_step < 1.01 * allowed


def test_an_exploring_kernel_is_bent_no_more_at_its_centre_than_is_allowed() -> None:
    opes = OpesBias(np.array([1e-3]), 40.0, TEMPERATURE, explore=True)
    steepness, time_step, allowed = np.array([80.0]), 0.004, 0.8
    least = LeastWidths(opes.depth, time_step, allowed, steepness / START_FACTOR)
    opes.widen(least.widths)
    opes.deposit(np.zeros(1))
    bend = second_derivatives(opes, np.linspace(-8, 8, 801) * least.widths[0])
    share = np.sqrt(1 / (1 + np.exp(-opes.barrier / (40.0 - KT))))  # the centre's own weight beside epsilon
    assert np.sqrt(-bend.min()) * steepness[0] * time_step == pytest.approx(share * allowed, rel=0.01)
    assert np.sqrt(bend.max()) * steepness[0] * time_step < allowed


def test_least_widths_and_walls_follow_the_steepest_sample() -> None:
    least = LeastWidths(32.0, 0.002, 0.5, np.array([1.0, 2.0]))
    per_steepness, per_reach = 0.002 * 4 / 0.5, 0.002 * np.sqrt(2 * WALL_KJ_MOL) / 0.5
    for sample, steeper, expected in (
        ([1.9, 4.0], False, [2.0, 4.0]),  # twice the first frame's is prepared for
        ([5.0, 3.0], True, [5.5, 4.0]),
        ([5.4, 3.9], False, [5.5, 4.0]),
        ([0.5, 4.1], True, [5.5, 4.51]),
    ):
        assert least.observe(np.array(sample)) is steeper
        np.testing.assert_allclose(least.widths, per_steepness * np.array(expected))
        np.testing.assert_allclose(least.reach, per_reach * np.array(expected))


@pytest.mark.parametrize("explore", [False, True])
def test_widened_kernels_are_those_of_a_bias_that_was_as_wide_from_the_first(explore: bool) -> None:
    """Without merges, whose order the widths decide: far places, and the same log weights."""
    places = np.array([[-6.0], [-2.0], [2.0], [6.0]])
    late, early = (OpesBias(np.array([0.3]), 20.0, TEMPERATURE, explore=explore) for _ in range(2))
    least = np.array([1.1 * late.deposit(places[0])[1][0]])
    for place in places[1:]:
        late.repeat(place, 0.3)
    late.widen(least)
    early.widen(least)
    early.repeat(places[0], 0.0 if explore else -20.0 / late.kt)
    for place in places[1:]:
        early.repeat(place, 0.3)
    for value in np.linspace(-8, 8, 33):
        found, expected = (bias.value_and_gradient(np.array([value])) for bias in (late, early))
        np.testing.assert_allclose(np.append(*found[::-1]), np.append(*expected[::-1]), rtol=1e-10, atol=1e-10)
    assert late.offset() == pytest.approx(early.offset(), rel=1e-12)
    assert late.deposit(np.array([20.0]))[1] == least


def test_widened_hills_are_those_of_a_bias_that_was_as_wide_from_the_first() -> None:
    late, early = (MetadynamicsBias(-np.ones(2), np.ones(2), np.full(2, 0.1), 1.0, 8.0, TEMPERATURE) for _ in range(2))
    least = np.array([0.25, 0.05])
    early.widen(least)
    for place in np.random.default_rng(0).uniform(-0.8, 0.8, (20, 2)):
        late.repeat(place, 0.7)
        early.repeat(place, 0.7)
    late.widen(least)
    np.testing.assert_allclose(late.grid, early.grid, rtol=1e-13)
    assert late.deposit(np.zeros(2))[1].tolist() == [0.25, 0.1]


def test_a_bias_is_bounded_where_a_variable_is_steep_at_the_edge_of_what_was_explored() -> None:
    """Kernels of a flat basin act on the steep slope beside it: one sample there, and they bear the time step again."""
    time_step, flat, steep = 0.004, 8.0, 26.0
    opes = OpesBias(np.array([0.12]), 40.0, TEMPERATURE)
    least = LeastWidths(opes.depth, time_step, 1.0, np.array([flat / START_FACTOR]))
    opes.widen(least.widths)
    rng = np.random.default_rng(1)
    for _ in range(40):
        opes.deposit(rng.normal(-1.0, 0.1, 1))
    places = np.linspace(-1.0, 1.5, 2001)
    frequency = steep * time_step * np.sqrt(np.abs(second_derivatives(opes, places)).max())
    assert frequency > 2, "leapfrog would bear it"
    assert least.observe(np.array([steep]))
    opes.widen(least.widths)
    frequency = steep * time_step * np.sqrt(np.abs(second_derivatives(opes, places)).max())
    assert frequency < 1
