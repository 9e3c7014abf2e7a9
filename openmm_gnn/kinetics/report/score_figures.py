"""How good slow variables are, in figures: scores against epoch and lag, timescales, the Chapman-Kolmogorov test.

A figure is drawn from plain numbers, so that what trains and what estimates need not know it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.figures import COLORS, QUIET_COLOR, figure_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PROCESSES = 5
"""Timescales on one page; the table has them all."""
MOST_SQUARE = 4
"""States of which every pair has a panel."""


@dataclass(frozen=True)
class TrainingCurve:
    """The validation score of one seed."""

    name: str
    epochs: np.ndarray
    scores: np.ndarray
    best_epoch: float
    """Whose weights were kept."""


@dataclass(frozen=True)
class LagScores:
    """Cross-validated VAMP-2 at several lags."""

    name: str
    lags_ps: np.ndarray
    scores: np.ndarray
    """(lags,) the mean; NaN where there are too few pairs."""
    spread: np.ndarray
    """(lags,) standard deviation over held-out parts."""


@dataclass(frozen=True)
class TimescaleCurves:
    """Implied timescales of a Markov model against its lag."""

    lags_ps: np.ndarray
    values_ps: np.ndarray
    """(lags, processes), slowest first; NaN where there is none."""
    low_ps: np.ndarray
    high_ps: np.ndarray
    """(lags, processes), the interval."""
    lag_ps: float
    """Of the model that is used."""
    confidence: float
    """Of the interval, such as 0.95."""


@dataclass(frozen=True)
class MarkovPrediction:
    """Chapman-Kolmogorov test: probabilities to be in state j at time t after i, predicted and estimated anew."""

    times_ps: np.ndarray
    predicted: np.ndarray
    """(times, states, states)"""
    predicted_low: np.ndarray
    predicted_high: np.ndarray
    estimated: np.ndarray
    estimated_low: np.ndarray
    estimated_high: np.ndarray
    """(times, states, states), the interval of what was estimated; NaN where none is known."""


def save_scores(curves: Sequence[TrainingCurve], lags: Sequence[LagScores], lag_ps: float, path: Path) -> Path:
    """The score against epoch, where something was trained, and against lag."""
    with figure_file(path, 11.0 if curves else 5.8, 4.0, "How much slow motion the variables hold") as figure:
        panels: Any = figure.subplots(1, 2 if curves else 1, squeeze=False)[0]
        if curves:
            draw_training(panels[0], curves)
        draw_lag_scores(panels[-1], lags, lag_ps)
    return path


def draw_training(axes: Axes, curves: Sequence[TrainingCurve]) -> None:
    """Validation VAMP-2 against epoch; a ring where the kept weights were."""
    from matplotlib.ticker import MaxNLocator

    for number, curve in enumerate(curves):
        color = COLORS[number % len(COLORS)]
        axes.plot(curve.epochs, curve.scores, color=color, linewidth=1.6, label=curve.name)
        best = int(np.abs(curve.epochs - curve.best_epoch).argmin())
        axes.plot(curve.epochs[best], curve.scores[best], "o", color=color, markerfacecolor="white", markersize=7)
    axes.set(title="Against epoch (ring: weights kept)", xlabel="epoch", ylabel="validation VAMP-2")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="lower right", fontsize=9)


def draw_lag_scores(axes: Axes, lags: Sequence[LagScores], lag_ps: float) -> None:
    """Cross-validated VAMP-2 against lag, with the spread over the held-out parts."""
    for number, row in enumerate(lags):
        color = COLORS[number % len(COLORS)]
        if number == 0:  # the held-out frames are the same for all: one band says how much they allow
            low, high = row.scores - row.spread, row.scores + row.spread
            axes.fill_between(row.lags_ps, low, high, color=color, alpha=0.18, linewidth=0, label="spread")
        style = "o-" if number == 0 else "s--"
        axes.plot(row.lags_ps, row.scores, style, color=color, markersize=4, label=row.name)
    axes.axhline(1, color=QUIET_COLOR, linewidth=0.6)
    _mark_lag(axes, lag_ps)
    axes.set(title="Against lag (1: nothing slow)", xlabel="lag (ps)", ylabel="cross-validated VAMP-2")
    axes.set_xscale("log")
    _plain_ticks(axes, np.concatenate([row.lags_ps for row in lags]))
    axes.legend(loc="best", fontsize=9)


def save_timescales(timescales: TimescaleCurves, path: Path) -> Path:
    """Implied timescales with intervals."""
    with figure_file(path, 6.4, 4.4, "Implied timescales") as figure:
        draw_timescales(figure.subplots(), timescales)
    return path


def draw_timescales(axes: Axes, timescales: TimescaleCurves, title: str = "") -> None:
    """Timescales against lag, their intervals, and the grey region where a timescale is shorter than the lag."""
    lags = timescales.lags_ps
    shown = [k for k in range(timescales.values_ps.shape[1]) if np.isfinite(timescales.values_ps[:, k]).any()]
    for k in shown[:MOST_PROCESSES]:
        color = COLORS[k % len(COLORS)]
        axes.fill_between(lags, timescales.low_ps[:, k], timescales.high_ps[:, k], color=color, alpha=0.2, linewidth=0)
        axes.plot(lags, timescales.values_ps[:, k], "o-", color=color, markersize=4, label=f"process {k + 1}")
    axes.set(xlabel="lag (ps)", ylabel="timescale (ps)", title=title, xscale="log", yscale="log")
    low, high = axes.get_ylim()
    low = min(low, 0.7 * float(lags.min()))
    ends = np.array([0.8 * lags.min(), 1.25 * lags.max()])
    axes.fill_between(ends, low, ends, color=QUIET_COLOR, alpha=0.13, linewidth=0, label="shorter than the lag")
    _mark_lag(axes, timescales.lag_ps)
    axes.set(xlim=ends, ylim=(low, high * (high / low) ** 0.22))  # room for the legend
    _plain_ticks(axes, lags)
    axes.yaxis.set_major_formatter(_plain_number)
    interval = f"{100 * timescales.confidence:.0f} % interval"
    axes.fill_between([], [], [], color=COLORS[0], alpha=0.2, linewidth=0, label=interval)
    columns = 2 if len(shown) < 3 else 3
    legend = axes.legend(loc="upper left", fontsize=9, ncols=columns, columnspacing=1.2, frameon=True)
    legend.get_frame().set(facecolor="white", edgecolor="none", alpha=1)


def save_chapman_kolmogorov(test: MarkovPrediction, path: Path) -> Path:
    """A panel for each pair of states: the model's prediction and what is estimated at the longer lag.

    Of more than MOST_SQUARE states only the diagonal is drawn.
    """
    count = test.predicted.shape[1]
    square = count <= MOST_SQUARE
    shape = (count, count) if square else (-(-count // MOST_SQUARE), MOST_SQUARE)
    pairs = list(np.ndindex(count, count)) if square else [(state, state) for state in range(count)]
    side = 2.1 if count > 2 else 3.0
    with figure_file(path, side * shape[1] + 1.0, side * shape[0] + 1.0, "Chapman-Kolmogorov test") as figure:
        panels: Any = figure.subplots(*shape, sharex=True, sharey=True, squeeze=False)
        for axes in panels.flat[len(pairs) :]:
            axes.set_axis_off()
        for axes, (i, j) in zip(panels.flat, pairs, strict=False):
            color = COLORS[0]
            low, high = test.predicted_low[:, i, j], test.predicted_high[:, i, j]
            axes.fill_between(test.times_ps, low, high, color=color, alpha=0.2, linewidth=0)
            axes.plot(test.times_ps, test.predicted[:, i, j], color=color, label="predicted")
            found = test.estimated[:, i, j]
            bars = np.stack([found - test.estimated_low[:, i, j], test.estimated_high[:, i, j] - found])
            axes.errorbar(
                test.times_ps,
                found,
                yerr=None if np.isnan(bars).all() else np.clip(np.nan_to_num(bars), 0, None),
                fmt="o",
                color=COLORS[1],
                markersize=4,
                linewidth=1,
                label="estimated",
            )
            axes.set_title(f"{i + 1} → {j + 1}")
            axes.set(ylim=(-0.05, 1.05), yticks=(0, 0.5, 1))
        panels[0, -1].legend(fontsize=9, loc="upper right")
        figure.supxlabel("time (ps)", fontsize=10.5, color="#333333")
        figure.supylabel("probability", fontsize=10.5, color="#333333")
    return path


def _mark_lag(axes: Axes, lag_ps: float) -> None:
    axes.axvline(lag_ps, color=QUIET_COLOR, linewidth=0.9, linestyle=":", zorder=0)


def _plain_ticks(axes: Axes, lags: np.ndarray) -> None:
    """The lags themselves on a logarithmic axis, those left out that would stand on each other."""
    wanted: list[float] = []
    for lag in np.unique(lags):
        if not wanted or lag > 1.45 * wanted[-1]:
            wanted.append(float(lag))
    axes.set_xticks(wanted, [f"{lag:g}" for lag in wanted])
    axes.minorticks_off()


def _plain_number(value: float, _: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
