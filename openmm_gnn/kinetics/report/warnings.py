"""What a reader of slow variables should be warned of, in words. The borders are written here alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from openmm_gnn.kinetics.report.map_figures import duration
from openmm_gnn.kinetics.report.results import SeedScore, SlowAnalysis
from openmm_gnn.kinetics.report.score_figures import TimescaleCurves

FEW_VISITS = 10
"""Entries into a state below which its rates are known to no better than a third."""
TIMESCALES_OF_DATA = 20.0
"""Slowest timescales that the runs should last, all together."""
GROWTH = 1.25
"""Of a timescale from the lag used to a longer one, above which the lag is too short."""
SEED_SPREAD = 0.02
OVERFIT = 0.1
"""Relative: between seeds, and of training above validation, both of what exceeds 1."""
EFFECTIVE = 0.05
"""Of the frames: below, a few frames have all the weight."""


def all_warnings(analysis: SlowAnalysis, log_weights: Sequence[np.ndarray] | None) -> list[str]:
    """Of an analysis, the gravest first.

    Args:
        log_weights: of biased runs (frames,).
    """
    processes = min(analysis.settings["num_outputs"], len(analysis.states.populations) - 1)
    words = of_states(analysis.state_visits, analysis.state_frames)
    words += of_timescales(analysis.timescales, 1000 * analysis.total_ns, processes)
    if analysis.settings["method"] == "vampnet":
        words += of_seeds(analysis.seeds)
    if log_weights is not None:
        words += of_weights(log_weights)
        words.append(
            "Runs were biased: populations and free energies are reweighted, timescales and passage times are those of "
            "the biased dynamics."
        )
    return words


def of_states(visits: Sequence[int], frames: Sequence[int]) -> list[str]:
    """States that were entered seldom."""
    words = []
    for state, (entered, inside) in enumerate(zip(visits, frames, strict=True), start=1):
        if entered < FEW_VISITS:
            words.append(
                f"State {state} was entered {entered} times in all runs ({inside} frames): its population and "
                f"passage times are rough. Run longer, or bias along cv.safetensors, until it is entered {FEW_VISITS} "
                "times or more."
            )
    return words


def of_timescales(timescales: TimescaleCurves, total_ps: float, processes: int) -> list[str]:
    """Timescales that still grow with the lag, are shorter than it, or are long beside the data.

    Args:
        total_ps: simulated time of all runs.
        processes: slowest ones that are looked at.
    """
    words = []
    lags, values = timescales.lags_ps, timescales.values_ps
    here = int(np.abs(lags - timescales.lag_ps).argmin())
    for process in range(min(processes, values.shape[1])):
        now = values[here, process]
        if not np.isfinite(now):
            words.append(f"Timescale {process + 1} could not be estimated at the lag of {lags[here]:g} ps.")
            continue
        if now < lags[here]:
            words.append(
                f"Timescale {process + 1} ({duration(now)}) is shorter than the lag of {lags[here]:g} ps: what it "
                "describes is over within one lag. Choose a shorter lag, or fewer outputs."
            )
        later = [row for row in range(here + 1, len(lags)) if np.isfinite(values[row, process])]
        # Beyond the timescale itself a longer lag measures noise, and the estimate follows the lag.
        later = [row for row in later if lags[row] < now]
        if later and values[later[-1], process] > GROWTH * now:
            words.append(
                f"Timescale {process + 1} grows from {duration(now)} at a lag of {lags[here]:g} ps to "
                f"{duration(values[later[-1], process])} at {lags[later[-1]]:g} ps: it has not converged. Choose a "
                "longer lag."
            )
    slowest = values[here, 0] if values.shape[1] else np.nan
    if np.isfinite(slowest) and total_ps < TIMESCALES_OF_DATA * slowest:
        words.append(
            f"The runs last {duration(total_ps)} together, {total_ps / slowest:.1f} times the slowest timescale: "
            f"{TIMESCALES_OF_DATA:g} times or more are needed to trust it."
        )
    return words


def of_seeds(seeds: Sequence[SeedScore]) -> list[str]:
    """Trainings that disagree, or that learned the training data by heart. Scores are VAMP-2, of which 1 is nothing."""
    words = []
    validation = np.array([seed.validation for seed in seeds])
    if len(seeds) > 1 and np.ptp(validation) > SEED_SPREAD * max(validation.max() - 1, 1e-9):
        words.append(
            f"The seeds score from {validation.min():.3f} to {validation.max():.3f}: the training depends on its "
            "start. Train longer, or take more seeds."
        )
    best = max(seeds, key=lambda seed: seed.validation, default=None)
    if best is not None and best.training - best.validation > OVERFIT * max(best.training - 1, 1e-9):
        words.append(
            f"The training score {best.training:.3f} is well above the validated {best.validation:.3f}: the network "
            "knows its data by heart, or the held-out runs saw other states. Give more data, or fewer outputs."
        )
    return words


def of_weights(log_weights: Sequence[np.ndarray]) -> list[str]:
    """Biased runs of which few frames carry all the weight; Kish, Survey Sampling, Wiley (1965)."""
    together = np.concatenate(log_weights)
    weights = np.exp(together - together.max())
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    if effective < EFFECTIVE * len(weights):
        return [
            f"The weights of the biased runs leave {effective:.0f} effective frames of {len(weights)}: free energies "
            "are noisy. Run longer with the bias as it is now."
        ]
    return []
