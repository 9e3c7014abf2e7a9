"""Mean squared displacement and self-diffusion coefficient from unwrapped positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.statistics import Estimate

NM2_PER_PS_IN_1E_9_M2_PER_S = 1000.0
"""1 nm^2/ps = 1e-6 m^2/s = 1000 times the usual 1e-9 m^2/s."""


@dataclass(frozen=True)
class Diffusion:
    """Mean squared displacement of a trajectory and the diffusion coefficient fitted to it."""

    lags_ps: np.ndarray
    """(lags,) from 0 on."""
    msd_nm2: np.ndarray
    """(lags,) averaged over atoms, time origins and segments."""
    msd_error_nm2: np.ndarray
    """(lags,) standard error from the segments."""
    fit_window_ps: tuple[float, float]
    intercept_nm2: float
    coefficient: Estimate
    """nm^2/ps."""


def mean_squared_displacement(positions: np.ndarray) -> np.ndarray:
    """The mean over atoms and all time origins of |x(t + lag) - x(t)|^2, for every lag.

    A sum of squares is split into two running sums and an autocorrelation, and that is done by FFT:
    O(T log T) instead of O(T^2). Positions are taken relative to each atom's mean, which changes nothing but
    keeps the digits that the subtraction of large sums would lose.
    Source: Calandrini et al., Ecole thematique de la Societe Francaise de la Neutronique 12, 201 (2011),
    doi 10.1051/sfn/201112010, section 4.2.

    Args:
        positions: (frames, num_atoms, 3), unwrapped.
    Returns:
        (frames,) float64, the value at lag 0 is 0.
    """
    positions = np.asarray(positions, dtype=np.float64)
    num_frames = len(positions)
    centred = positions - positions.mean(axis=0)
    transform = np.fft.rfft(centred, n=2 * num_frames, axis=0)
    correlation = np.fft.irfft((np.abs(transform) ** 2).sum(axis=2), n=2 * num_frames, axis=0)[:num_frames]
    squares = (centred**2).sum(axis=2)
    from_start = np.cumsum(squares, axis=0)
    total = from_start[-1]
    # Origins 0 .. T-1-lag and end points lag .. T-1: all squares but the last, respectively the first, `lag`.
    first_squares = from_start[::-1]
    last_squares = total - np.concatenate([np.zeros_like(total)[None], from_start[:-1]])
    origins = np.arange(num_frames, 0, -1)[:, None]
    msd = ((first_squares + last_squares - 2 * correlation) / origins).mean(axis=1)
    msd[0] = 0.0
    return msd


def remove_center_of_mass(positions: np.ndarray, masses: np.ndarray | None = None) -> np.ndarray:
    """Positions relative to the centre of mass of each frame (equal masses if none are given)."""
    weights = np.ones(positions.shape[1]) if masses is None else np.asarray(masses, dtype=np.float64)
    center = np.einsum("i,tik->tk", weights / weights.sum(), positions)
    return positions - center[:, None, :]


def self_diffusion(
    trajectories: Sequence[np.ndarray],
    frame_interval_ps: float,
    masses: np.ndarray | None = None,
    atoms: np.ndarray | None = None,
    segment_ps: float | None = None,
) -> Diffusion:
    """The diffusion coefficient D from the Einstein relation, msd = 6 D t + constant.

    The motion of the centre of mass is removed. Each trajectory is cut into segments; each segment gives one MSD (all
    time origins inside it) and one D from a straight line; the result is their mean, its error their scatter. The line
    is fitted between 15 % and 50 % of a segment's length: before, motion is ballistic or confined to a cage; after, too
    few independent origins are left. D is that of this
    box: the correction of Yeh and Hummer (doi 10.1021/jp0477147) for its size is not applied, and cancels when two runs
    of one box are compared.
    Source: Frenkel, Smit, Understanding Molecular Simulation, 2nd ed. (2002), section 4.4.

    Args:
        trajectories: (frames, num_atoms, 3) each, nm, unwrapped.
        masses: (num_atoms,), any unit; equal if not given.
        atoms: indices of the atoms whose displacement counts; all if not given.
        segment_ps: length of the segments; a fifth of the shortest trajectory if not given. Two runs are compared
            with the same length, because the line's slope still depends a little on where it is fitted.
    Raises:
        DataError: if a segment has too few frames for the line.
    """
    shortest = min(len(positions) for positions in trajectories)
    length = shortest // 5 if segment_ps is None else round(segment_ps / frame_interval_ps)
    num_lags = length // 2
    lags = np.arange(num_lags) * frame_interval_ps
    window = (0.3 * num_lags * frame_interval_ps, (num_lags - 1) * frame_interval_ps)
    fitted = (lags >= window[0]) & (lags <= window[1]) & (lags > 0)
    if fitted.sum() < 3:
        raise DataError(
            f"segments of {length} frames leave {int(fitted.sum())} lags between "
            f"{window[0]:g} and {window[1]:g} ps: run longer"
        )
    if sum(len(positions) // length for positions in trajectories) < 2:
        raise DataError(
            f"{shortest * frame_interval_ps:g} ps hold less than two segments of {length * frame_interval_ps:g} ps: "
            "run longer, or choose shorter segments"
        )
    msds = []
    for positions in trajectories:
        relative = remove_center_of_mass(np.asarray(positions, dtype=np.float64), masses)
        relative = relative if atoms is None else relative[:, atoms]
        for start in range(len(relative) % length, len(relative), length):
            msds.append(mean_squared_displacement(relative[start : start + length])[:num_lags])
    of_segments = np.stack(msds)
    slopes = np.polyfit(lags[fitted], of_segments[:, fitted].T, 1)[0] / 6
    msd = of_segments.mean(axis=0)
    slope, intercept = np.polyfit(lags[fitted], msd[fitted], 1)
    scatter = 1 / np.sqrt(len(of_segments))
    return Diffusion(
        lags_ps=lags,
        msd_nm2=msd,
        msd_error_nm2=of_segments.std(axis=0, ddof=1) * scatter,
        fit_window_ps=(float(window[0]), float(window[1])),
        intercept_nm2=float(intercept),
        coefficient=Estimate(float(slope / 6), float(slopes.std(ddof=1) * scatter)),
    )
