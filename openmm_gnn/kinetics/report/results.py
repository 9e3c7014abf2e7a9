"""The results of an analysis of slow variables, as one object and as JSON, and the warnings about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.base.files import plain, write_json
from openmm_gnn.kinetics.free_energy import FreeEnergyLine, FreeEnergyMap, effective_frames
from openmm_gnn.kinetics.markov import Interval, MarkovModel
from openmm_gnn.kinetics.methods.interface import Learned, SeedScore
from openmm_gnn.kinetics.report.representative_frames import RepresentativeFrame
from openmm_gnn.kinetics.report.saliency import Saliency
from openmm_gnn.kinetics.settings import AnalysisSettings
from openmm_gnn.kinetics.vamp import LagScores

RESULT_VERSION = 1
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
CROSS_VALIDATED = "cross-validated"
SMALL_PART = 0.01
"""Share of the frames below which parts that are not connected are counted together."""
UNSETTLED_KJ_MOL = 1.0
"""Change of a bias in the second half of a run, rms over its frames, of which the report warns."""
EFFECTIVE = 0.05
"""Share of effective frames below which a few frames have all the weight."""


@dataclass(frozen=True)
class UnconnectedPart:
    """Frames between which and the states of the Markov model no run goes in both directions."""

    name: str
    frames: int
    share: float
    """Share of all frames."""
    runs: list[str]
    """The runs that were there."""


@dataclass(frozen=True)
class Analysis:
    """Everything that is drawn and reported."""

    system: str
    settings: AnalysisSettings
    inputs: list[dict[str, Any]]
    """Fingerprints of the runs, and their role: training or validation."""
    temperature: float
    """K."""
    weighted: bool
    """Whether runs were biased, so that frames have weights."""
    learned: Learned
    lag_scores: list[LagScores]
    """Scores of the method, then those of TICA for comparison."""
    markov: MarkovModel
    variables: list[np.ndarray]
    """(frames, K) slow variables of each run."""
    states: list[np.ndarray]
    """(frames,) integers for each run, -1 for no state."""
    unconnected: list[UnconnectedPart]
    representatives: list[list[RepresentativeFrame]]
    lines: list[FreeEnergyLine]
    surface: FreeEnergyMap | None
    saliency: Saliency
    attention: np.ndarray | None
    """(layers, tokens, tokens)"""
    warnings: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """Files that were written, by what they are; paths relative to the directory of the analysis."""

    @property
    def total_ns(self) -> float:
        """Simulated time of all runs."""
        return sum(run["frames"] * run["interval_ps"] for run in self.inputs) / 1000

    @property
    def score(self) -> tuple[float, float]:
        """VAMP-2 of the scored frames at the lag of the training, and its spread; see `score_name`."""
        row = self.lag_scores[0]
        here = int(np.abs(row.lags_ps - self.settings.lag).argmin())
        return float(row.scores[here]), float(row.spread[here])

    @property
    def score_name(self) -> str:
        """What the score is: cross-validated only where its frames chose nothing, neither the epoch nor the seed."""
        outer = not self.learned.seeds or any("test" in run["role"] for run in self.inputs)
        return CROSS_VALIDATED if outer else "of the validation frames, which chose epoch and seed"

    @property
    def slowest_ps(self) -> tuple[float, float, float]:
        """The slowest timescale at the lag of the model, and the ends of its interval; NaN where there is none."""
        times = self.markov.timescales_ps
        return float(times.value[0]), float(times.low[0]), float(times.high[0])

    @property
    def state_frames(self) -> list[int]:
        """Frames in each state."""
        return [sum(int((own == state).sum()) for own in self.states) for state in range(self.markov.num_states)]

    @property
    def summary(self) -> str:
        """The main numbers in one line."""
        score, spread = self.score
        value, low, high = self.slowest_ps
        slowest = f"slowest timescale {duration(value)}" if np.isfinite(value) else "no timescale"
        slowest += f" ({duration(low)} to {duration(high)})" if np.isfinite(low + high) else ""
        count = self.markov.num_states
        return (
            f"VAMP-2 {score:.3f} ± {spread:.3f} at {self.settings.lag:g} ps, {self.score_name}; {slowest}; "
            f"{count} state{'s' if count > 1 else ''}, connected in {100 * self.markov.connected_share:.3g} % of the "
            f"frames; {len(self.warnings)} warnings"
        )

    def to_json(self) -> dict[str, Any]:
        """The contents of analysis.json; NaN becomes null, and arrays of frames are left to the files beside it."""
        return {
            "version": RESULT_VERSION,
            "system": self.system,
            "settings": self.settings.to_json(),
            "inputs": self.inputs,
            "temperature": self.temperature,
            "weighted": self.weighted,
            "seeds": plain(self.learned.seeds),
            "chosen_seed": self.learned.chosen_seed,
            "curves": plain(self.learned.curves),
            "lag_scores": plain(self.lag_scores),
            "score_name": self.score_name,
            **markov_json(self.markov),
            "unconnected": plain(self.unconnected),
            "state_frames": self.state_frames,
            "state_visits": self.markov.visits,
            "representatives": plain(self.representatives),
            "lines": plain(self.lines),
            "surface": plain(self.surface),
            "saliency": plain(self.saliency),
            "attention": plain(self.attention),
            "warnings": self.warnings,
            "files": self.files,
        }

    def save(self, path: Path) -> Path:
        """Write the JSON form."""
        write_json(path, self.to_json(), indent=1, allow_nan=False)
        return path


def markov_json(model: MarkovModel) -> dict[str, Any]:
    """Timescales, Chapman-Kolmogorov test and states of a Markov model, by their names in analysis.json."""

    def ends(interval: Interval, value: str, low: str, high: str) -> dict[str, np.ndarray]:
        return {value: interval.value, low: interval.low, high: interval.high}

    confidence = {"confidence": model.confidence}
    passages = ends(model.passage_times_ps, "passage_ps", "passage_low_ps", "passage_high_ps")
    timescales = ends(model.implied_timescales_ps, "values_ps", "low_ps", "high_ps")
    return plain(
        {
            "timescales": {
                "lags_ps": model.implied_lags_ps, **timescales, "lag_ps": model.lag_ps, **confidence,
            },
            "prediction": {
                "times_ps": model.chapman_kolmogorov_lags_ps,
                **ends(model.predicted, "predicted", "predicted_low", "predicted_high"),
                **ends(model.estimated, "estimated", "estimated_low", "estimated_high"),
            },
            "states": {
                **ends(model.populations, "populations", "population_low", "population_high"), **passages, **confidence,
                "connected_share": model.connected_share, "lost_samples": model.lost_samples,
            },
        }
    )  # fmt: skip


def duration(time_ps: float) -> str:
    """A time with the unit that suits it, ps to s."""
    if not np.isfinite(time_ps):
        return "-"
    for unit, length in (("s", 1e12), ("ms", 1e9), ("µs", 1e6), ("ns", 1e3)):
        if time_ps >= length:
            return f"{time_ps / length:.3g} {unit}"
    return f"{time_ps:.3g} ps"


def variable_name(index: int) -> str:
    return f"slow variable {index + 1}"


def all_warnings(analysis: Analysis, log_weights: Sequence[np.ndarray] | None) -> list[str]:
    """The warnings of an analysis, the most serious first.

    Args:
        log_weights: (frames,) for each run, of biased runs.
    """
    markov = analysis.markov
    words = connection_warnings(markov, analysis.unconnected)
    words += state_warnings(markov.visits, analysis.state_frames) if markov.num_states > 1 else []
    processes = min(analysis.settings.outputs, markov.num_states - 1)
    words += timescale_warnings(markov, 1000 * analysis.total_ns, processes)
    if analysis.learned.curves:  # the training maximised the score
        words += seed_warnings(analysis.learned.seeds)
    words += analysis.learned.warnings
    if log_weights is not None:
        words += weight_warnings(log_weights)
        words.append(
            "Runs were biased: populations and free energies are reweighted, timescales and passage times are those of "
            "the biased dynamics."
        )
    return words


def unconnected_parts(parts: Sequence[np.ndarray], names: Sequence[str]) -> list[UnconnectedPart]:
    """The parts that are not connected with part 0, the largest first.

    Args:
        parts: (frames,) number of the part for each run, -1 for frames in none.
        names: of the runs.
    """
    together = np.concatenate(parts)
    frames = np.bincount(together[together >= 0])
    large = [part for part in range(1, len(frames)) if frames[part] >= SMALL_PART * len(together)]
    groups = [(f"U{number}", [part]) for number, part in enumerate(large, start=1)]
    groups.append(("U, small parts", [part for part in range(1, len(frames)) if part not in large]))
    found = []
    for name, members in groups:
        if members:
            count = int(frames[members].sum())
            runs = [run for run, own in zip(names, parts, strict=True) if np.isin(own, members).any()]
            found.append(UnconnectedPart(name, count, count / len(together), runs))
    return found


def connection_warnings(model: MarkovModel, unconnected: Sequence[UnconnectedPart]) -> list[str]:
    """Names the parts that are not connected with the states, and says where connections are hardly known."""
    words = []
    if unconnected:
        listed = "; ".join(
            f"{part.name}: {part.frames} frames, {100 * part.share:.3g} %, in {', '.join(part.runs[:5])}"
            + (f" and {len(part.runs) - 5} more" if len(part.runs) > 5 else "")
            for part in unconnected
        )
        share = 100 * sum(part.share for part in unconnected)
        words.append(
            f"{share:.3g} % of the frames are not connected with the states: no run goes there and back ({listed}). "
            "Populations, timescales and passage times are those of the other frames, and free energies only count how "
            "long the runs were where. Run longer, start runs in between, or bias along cv.safetensors."
        )
    if model.num_states == 1:
        words.append(
            "There is one state, so no timescales and no passage times: no two clusters of frames were seen to go over "
            "into each other in both directions. Run longer, or choose a shorter lag."
        )
    elif model.lost_samples:
        words.append(
            f"{model.lost_samples} samples of the posterior are not connected: a transition between states rests on "
            "less than one independent count. They are left out, so intervals reach too low, and there are none where "
            "too few are left. Run longer, or choose a shorter lag."
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


def drift_warnings(drifts: Mapping[str, np.ndarray]) -> list[str]:
    """Names the runs of metadynamics whose bias has not settled, which errors from blocks do not show.

    Args:
        drifts: by the run's name, (frames,) kJ/mol of `bias_drift`.
    """
    sizes = {name: float(drift.std()) for name, drift in drifts.items()}
    return [
        f"The bias of {name} still changed by {size:.1f} kJ/mol (rms over its frames) in the second half of the run: "
        "free energies and populations are unknown by about as much. Run longer."
        for name, size in sizes.items()
        if size > UNSETTLED_KJ_MOL
    ]
