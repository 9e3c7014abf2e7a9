"""Warnings about the results of an analysis, in words, and the limits beyond which they are given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from openmm_gnn.kinetics.markov import MarkovModel
from openmm_gnn.kinetics.methods.interface import SeedScore
from openmm_gnn.kinetics.report.results import Analysis, duration
from openmm_gnn.kinetics.reweighting import effective_frames

FEW_VISITS = 10
"""Entries into a state below which its rates are known to no better than a third."""
TIMESCALES_OF_DATA = 20.0
"""Length of all runs together, in slowest timescales, below which that timescale is uncertain."""
GROWTH = 1.25
"""Growth of a timescale, from the lag used to a longer one, above which the lag is too short."""
SEED_SPREAD = 0.02
"""Spread of the seeds' scores above 1, relative to the best, above which the seeds disagree."""
OVERFIT = 0.1
"""Excess of the training score over the validated one, relative to what exceeds 1, above which a network overfits."""
EFFECTIVE = 0.05
"""Share of effective frames below which a few frames have all the weight."""


def all_warnings(analysis: Analysis, log_weights: Sequence[np.ndarray] | None) -> list[str]:
    """The warnings of an analysis, the most serious first.

    Args:
        log_weights: (frames,) for each run, of biased runs.
    """
    markov = analysis.markov
    words = state_warnings(markov.visits, analysis.state_frames)
    processes = min(analysis.settings.outputs, markov.num_states - 1)
    words += timescale_warnings(markov, 1000 * analysis.total_ns, processes)
    if analysis.learned.curves:  # the training maximised the score
        words += seed_warnings(analysis.learned.seeds)
    if log_weights is not None:
        words += weight_warnings(log_weights)
        words.append(
            "Runs were biased: populations and free energies are reweighted, timescales and passage times are those of "
            "the biased dynamics."
        )
    return words


def state_warnings(visits: Sequence[int], frames: Sequence[int]) -> list[str]:
    """Names states that were entered seldom."""
    words = []
    for state, (entered, inside) in enumerate(zip(visits, frames, strict=True), start=1):
        if entered < FEW_VISITS:
            words.append(
                f"State {state} was entered {entered} times in all runs ({inside} frames): its population and "
                f"passage times are rough. Run longer, or bias along cv.safetensors, until it is entered {FEW_VISITS} "
                "times or more."
            )
    return words


def timescale_warnings(model: MarkovModel, total_ps: float, processes: int) -> list[str]:
    """Names timescales that still grow with the lag, are shorter than it, or are long compared with the data.

    Args:
        total_ps: simulated time of all runs.
        processes: number of slowest processes to check.
    """
    words = []
    lags, values = model.implied_lags_ps, model.implied_timescales_ps.value
    here = int(np.abs(lags - model.lag_ps).argmin())
    for process in range(min(processes, values.shape[1])):
        now = values[here, process]
        if not np.isfinite(now):
            words.append(f"Timescale {process + 1} could not be estimated at the lag of {lags[here]:g} ps.")
            continue
        if now < lags[here]:
            words.append(
                f"Timescale {process + 1} ({duration(now)}) is shorter than the lag of {lags[here]:g} ps: the process "
                "decays within one lag. Choose a shorter lag, or fewer outputs."
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


def seed_warnings(seeds: Sequence[SeedScore]) -> list[str]:
    """Warns of trainings that disagree or overfit. Scores are VAMP-2, of which 1 is nothing slow."""
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
            "overfits, or the held-out runs were in other states. Give more data, or fewer outputs."
        )
    return words


def weight_warnings(log_weights: Sequence[np.ndarray]) -> list[str]:
    """Warns of biased runs of which few frames carry all the weight."""
    together = np.concatenate(log_weights)
    effective = effective_frames(together)
    if effective < EFFECTIVE * len(together):
        return [
            f"The weights of the biased runs leave {effective:.0f} effective frames of {len(together)}: free energies "
            "are noisy. Run longer with the bias as it is now."
        ]
    return []
