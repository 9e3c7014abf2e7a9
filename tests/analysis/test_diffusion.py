"""MSD against brute force, D against Brownian particles of known D."""

from __future__ import annotations

import numpy as np
import pytest

from openmm_gnn.analysis.diffusion import mean_squared_displacement, remove_center_of_mass, self_diffusion
from openmm_gnn.base.errors import DataError


def brute_force_msd(positions: np.ndarray) -> np.ndarray:
    frames = len(positions)
    return np.array([((positions[lag:] - positions[: frames - lag]) ** 2).sum(axis=-1).mean() for lag in range(frames)])


@pytest.mark.parametrize("frames", [1, 2, 7, 64])
def test_msd_equals_brute_force(frames: int) -> None:
    rng = np.random.default_rng(frames)
    positions = np.cumsum(rng.normal(size=(frames, 5, 3)), axis=0) + 1000.0  # far away: no digits may be lost
    assert mean_squared_displacement(positions) == pytest.approx(brute_force_msd(positions), rel=1e-10, abs=1e-9)


def test_diffusion_of_brownian_particles_is_the_known_one() -> None:
    rng = np.random.default_rng(2)
    known, interval, atoms = 2.4e-3, 0.1, 400
    steps = rng.normal(scale=np.sqrt(2 * known * interval), size=(2000, atoms, 3))
    result = self_diffusion([np.cumsum(steps, axis=0)], interval)
    expected = known * (1 - 1 / atoms)  # the centre of mass of the particles themselves is taken out
    assert abs(result.coefficient.value - expected) < 3.5 * result.coefficient.error
    assert result.coefficient.value == pytest.approx(expected, rel=0.05)
    assert 0.002 < result.coefficient.error / known < 0.06
    assert result.intercept_nm2 == pytest.approx(0, abs=0.1 * result.msd_nm2[-1])


def test_line_leaves_out_the_first_lags() -> None:
    """Particles that jump within 0.5 ps and diffuse after: the slope must be that of the diffusion."""
    rng = np.random.default_rng(4)
    known, interval = 1e-3, 0.1
    walk = np.cumsum(rng.normal(scale=np.sqrt(2 * known * interval), size=(2000, 400, 3)), axis=0)
    rattling = walk + rng.normal(scale=0.2, size=walk.shape)
    result = self_diffusion([rattling], interval)
    assert result.coefficient.value == pytest.approx(known, rel=0.1)
    assert result.intercept_nm2 == pytest.approx(6 * 0.2**2, rel=0.05)


def test_drift_of_the_centre_of_mass_changes_nothing() -> None:
    rng = np.random.default_rng(6)
    walk = np.cumsum(rng.normal(size=(300, 20, 3)), axis=0)
    masses = rng.uniform(1, 40, 20)
    drift = np.linspace(0, 500, 300)[:, None, None] * np.array([1.0, -2.0, 0.5])
    still, moving = self_diffusion([walk], 0.1, masses), self_diffusion([walk + drift], 0.1, masses)
    assert moving.coefficient.value == pytest.approx(still.coefficient.value, rel=1e-9)
    center = np.einsum("i,tik->tk", masses, remove_center_of_mass(walk + drift, masses))
    assert np.abs(center).max() < 1e-9


def test_several_trajectories_are_pooled_and_only_the_chosen_atoms_count() -> None:
    """Atoms 0-199 diffuse four times as fast as the others."""
    rng = np.random.default_rng(8)
    fast, slow, interval = 4e-3, 1e-3, 0.1
    scale = np.sqrt(2 * np.repeat([fast, slow], 200) * interval)[:, None]
    walks = [np.cumsum(rng.normal(size=(frames, 400, 3)) * scale, axis=0) for frames in (1000, 1200)]
    pooled = self_diffusion(walks, interval, atoms=np.arange(200))
    single = self_diffusion(walks[:1], interval, atoms=np.arange(200))
    assert pooled.coefficient.value == pytest.approx(fast, rel=0.05)
    assert self_diffusion(walks, interval, atoms=np.arange(200, 400)).coefficient.value == pytest.approx(slow, rel=0.06)
    assert len(pooled.lags_ps) == len(single.lags_ps) == 100
    assert pooled.coefficient.value != single.coefficient.value


def test_runs_of_different_length_are_measured_alike_with_the_same_segments() -> None:
    rng = np.random.default_rng(9)
    walk = np.cumsum(rng.normal(size=(1000, 50, 3)), axis=0)
    short, long = (self_diffusion([walk[:frames]], 0.1, segment_ps=10.0) for frames in (200, 1000))
    assert short.fit_window_ps == long.fit_window_ps == pytest.approx((1.5, 4.9))
    assert long.coefficient.error < short.coefficient.error * 1.5
    with pytest.raises(DataError, match="less than two segments"):
        self_diffusion([walk[:150]], 0.1, segment_ps=10.0)


def test_short_trajectories_are_refused_with_the_remedy() -> None:
    with pytest.raises(DataError, match="run longer"):
        self_diffusion([np.zeros((12, 3, 3))], 0.1)
