"""All that an analysis of slow variables found, as one object and as JSON."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.base.files import write_json
from openmm_gnn.kinetics.free_energy import FreeEnergyLine, FreeEnergyMap
from openmm_gnn.kinetics.report.map_figures import StateNumbers, duration
from openmm_gnn.kinetics.report.representative_frames import RepresentativeFrame
from openmm_gnn.kinetics.report.score_figures import LagScores, MarkovPrediction, TimescaleCurves, TrainingCurve
from openmm_gnn.kinetics.saliency import Saliency

RESULT_VERSION = 1


@dataclass(frozen=True)
class SeedScore:
    """What the training from one random seed came to, VAMP-2."""

    seed: int
    training: float
    validation: float
    """By which the best seed is chosen."""
    best_epoch: float
    num_epochs: int


@dataclass(frozen=True)
class SlowAnalysis:
    """What is drawn and reported. Arrays of frames are in files beside it."""

    system: str
    settings: dict[str, Any]
    inputs: list[dict[str, Any]]
    """Fingerprints of the runs, and their role: training or validation."""
    temperature: float
    weighted: bool
    """Whether runs were biased, so that frames have weights."""
    seeds: list[SeedScore]
    chosen_seed: int | None
    curves: list[TrainingCurve]
    lag_scores: list[LagScores]
    timescales: TimescaleCurves
    prediction: MarkovPrediction | None
    states: StateNumbers
    state_frames: list[int]
    """Frames in each state."""
    state_visits: list[int]
    """How often the runs came into each state, from another one."""
    representatives: list[list[RepresentativeFrame]]
    lines: list[FreeEnergyLine]
    surface: FreeEnergyMap | None
    saliency: Saliency | None
    attention: np.ndarray | None
    """(layers, tokens, tokens)"""
    warnings: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """What was written, by its meaning; paths relative to the directory of the analysis."""

    @property
    def total_ns(self) -> float:
        """Simulated time of all runs."""
        return sum(run["frames"] * run["interval_ps"] for run in self.inputs) / 1000

    @property
    def lag_ps(self) -> float:
        return float(self.settings["lag_ps"])

    @property
    def score(self) -> tuple[float, float]:
        """Cross-validated VAMP-2 at the lag of the training, and its spread."""
        row = self.lag_scores[0]
        here = int(np.abs(row.lags_ps - self.lag_ps).argmin())
        return float(row.scores[here]), float(row.spread[here])

    @property
    def slowest_ps(self) -> tuple[float, float, float]:
        """The slowest timescale at the lag of the model, and its interval; NaN where there is none."""
        times = self.timescales
        here = int(np.abs(times.lags_ps - times.lag_ps).argmin())
        if not times.values_ps.shape[1]:
            return np.nan, np.nan, np.nan
        return tuple(float(part[here, 0]) for part in (times.values_ps, times.low_ps, times.high_ps))  # type: ignore

    @property
    def summary(self) -> str:
        """One line."""
        score, spread = self.score
        value, low, high = self.slowest_ps
        return (
            f"VAMP-2 {score:.3f} ± {spread:.3f} at {self.lag_ps:g} ps, cross-validated; slowest timescale "
            f"{duration(value)} ({duration(low)} to {duration(high)}); {len(self.states.populations)} states; "
            f"{len(self.warnings)} warnings"
        )

    def save(self, path: Path) -> Path:
        """Write the JSON form; NaN becomes null."""
        document = {"version": RESULT_VERSION, **plain(self)}
        write_json(path, document, indent=1, allow_nan=False)
        return path


def plain(value: Any) -> Any:
    """Dataclasses, arrays, enums and paths as what JSON has; numbers that are not finite as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: plain(getattr(value, one.name)) for one in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
