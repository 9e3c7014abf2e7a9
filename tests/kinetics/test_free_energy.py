"""Free energies of samples whose density is known, with and without a bias."""

from __future__ import annotations

import numpy as np
import pytest

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.kinetics.free_energy import frame_weights, free_energy_line, free_energy_map

TEMPERATURE = 300.0
KT = BOLTZMANN_KJ_MOL_K * TEMPERATURE


def normal_runs(mean: float = 0.0, count: int = 20_000) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.normal(mean, 1.0, count) for _ in range(4)]


def test_a_normal_distribution_has_a_parabola() -> None:
    line = free_energy_line(normal_runs(), TEMPERATURE, bins=40)
    inner = np.abs(line.centers) < 2
    truth = KT * line.centers[inner] ** 2 / 2
    found = line.values[inner] - line.values[inner].min()
    np.testing.assert_allclose(found - found.mean(), truth - truth.mean(), atol=0.15)
    assert np.nanmin(line.values) == 0


def test_the_error_is_that_of_counting_where_frames_are_independent() -> None:
    runs = normal_runs()
    line = free_energy_line(runs, TEMPERATURE, bins=40, draws=400)
    edges = np.append(line.centers - np.diff(line.centers)[0] / 2, np.inf)
    counts = np.histogram(np.concatenate(runs), edges)[0]
    inner = counts > 500
    counted = KT / np.sqrt(counts[inner])
    ratio = line.errors[inner] / counted
    assert 0.7 < np.median(ratio) < 1.2  # 20 blocks know their own spread to about 15 %


def test_the_error_of_few_blocks_has_the_size_of_the_scatter_between_data_sets() -> None:
    """Five blocks of one run: without the factor sqrt(5 / 4) the errors would be 11 % too small.

    A variance from five blocks scatters by sqrt(2 / 4), and the root mean square over 300 sets by 0.71 / sqrt(300) / 2,
    2 %; four times that is the tolerance.
    """
    generator, found, count = np.random.default_rng(1), [], 500
    for _ in range(300):
        run = (generator.random(count) < 0.5).astype(float)
        found.append(free_energy_line([run], TEMPERATURE, bins=2).errors[0])
    truth = KT * np.sqrt(0.5 / (0.5 * count))  # of -kT ln of a share of one half
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(truth, rel=0.08)
    assert np.isnan(free_energy_line([np.zeros(1)], TEMPERATURE, bins=2).errors).all()


def test_weights_undo_a_bias() -> None:
    """Samples of exp(-(s - 0.5)^2 / 2) become those of exp(-s^2 / 2) with the weight exp(V), V = s / 2 in kT."""
    runs = normal_runs(mean=0.5)
    weights = [1000 - run / 2 for run in runs]
    line = free_energy_line(runs, TEMPERATURE, weights, bins=40)
    inner = np.abs(line.centers) < 1.5
    truth = KT * line.centers[inner] ** 2 / 2
    found = line.values[inner]
    np.testing.assert_allclose(found - found.mean(), truth - truth.mean(), atol=0.2)


def test_a_map_of_independent_variables_is_the_sum_of_two_lines() -> None:
    x, y = normal_runs(), [run[::-1] * 2 for run in normal_runs()]
    surface = free_energy_map(x, y, TEMPERATURE, bins=30)
    centers = [(edges[1:] + edges[:-1]) / 2 for edges in surface.edges]
    truth = KT * (centers[0][:, None] ** 2 / 2 + centers[1][None, :] ** 2 / 8)
    near = truth < 1.5 * KT
    difference = (surface.values - truth)[near]
    assert np.abs(difference - difference.mean()).max() < 0.6


def test_bins_without_frames_have_no_free_energy() -> None:
    line = free_energy_line([np.array([0.0, 0.0, 0.0, 1.0])], TEMPERATURE, bins=10)
    assert np.isnan(line.values[1:-1]).all() and np.isfinite(line.values[[0, -1]]).all()
    assert line.values[-1] == pytest.approx(KT * np.log(3))


def test_what_cannot_be_weighed_is_refused() -> None:
    with pytest.raises(DataError, match="no frames are left"):
        frame_weights([np.empty(0)], None)
    with pytest.raises(DataError, match="run 1 is NaN"):
        frame_weights([np.zeros(3), np.array([0.0, np.nan])], None)
    with pytest.raises(DataError, match="run 0 has 3 frames and 2 finite weights"):
        frame_weights([np.zeros(3)], [np.zeros(2)])
