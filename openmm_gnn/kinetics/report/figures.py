"""All figures of an analysis: the summary, scores and timescales, saliency and attention of residues, and the maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.figures import COLORS, QUIET_COLOR, figure_file
from openmm_gnn.kinetics.data import AnalysisData
from openmm_gnn.kinetics.markov import MarkovModel
from openmm_gnn.kinetics.methods.interface import TrainingCurve
from openmm_gnn.kinetics.report import map_figures
from openmm_gnn.kinetics.report.map_figures import state_color
from openmm_gnn.kinetics.report.results import Analysis, variable_name
from openmm_gnn.kinetics.report.saliency import Saliency
from openmm_gnn.kinetics.vamp import LagScores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PROCESSES = 5
"""Timescales that are drawn; the table has all."""
MOST_SQUARE = 4
"""Number of states up to which every pair has a panel; with more, only the diagonal is drawn."""
MOST_LABELS, MOST_OF_SUMMARY = 40, 20
"""Tokens whose names are written at an axis, and at the narrow one of the summary."""
MOST_BARS = 12
"""Number of tokens up to which they are drawn as bars; more become a heat map."""


def draw_all(analysis: Analysis, data: AnalysisData, folder: Path) -> dict[str, Path]:
    """Draw all figures into PNG files; the files by what they show, as `write_report` takes them."""
    names, times = [run.name for run in data.runs], [run.times_ps for run in data.runs]
    variables, states, markov = analysis.variables, analysis.states, analysis.markov
    centers = state_centers(variables, states, markov.num_states) if analysis.surface is not None else None
    lines, surface, kelvin = analysis.lines, analysis.surface, analysis.temperature
    figures = {
        "scores": save_scores(analysis, folder / "scores.png"),
        "timescales": save_timescales(markov, folder / "timescales.png"),
        "free_energy": map_figures.save_free_energy(lines, surface, kelvin, folder / "free_energy.png", centers),
        "time_series": map_figures.save_time_series(names, times, variables, states, folder / "time_series.png"),
        "states": map_figures.save_states(markov, variables, states, folder / "states.png"),
        "summary": save_summary(analysis, folder / "summary.png", centers),
        "saliency": save_saliency(analysis.saliency, folder / "saliency.png"),
    }
    if markov.num_states > 1:  # one state stays where it is
        figures["prediction"] = save_chapman_kolmogorov(markov, folder / "chapman_kolmogorov.png")
    if analysis.attention is not None:
        file = folder / "attention.png"
        figures["attention"] = save_attention(analysis.attention, analysis.saliency.labels, file)
    return figures


def save_summary(analysis: Analysis, path: Path, centers: np.ndarray | None) -> Path:
    """Draw free energy, timescales and saliency side by side."""
    title = f"Slow variables of {analysis.system}: {analysis.total_ns:.4g} ns, {analysis.temperature:g} K"
    with figure_file(path, 11.2, 3.9, title) as figure:
        panels: Any = figure.subplots(1, 3, width_ratios=(1.15, 1, 1))
        layout: Any = figure.get_layout_engine()
        layout.set(w_pad=0.1)
        landscape, timescales, residues = panels
        if analysis.surface is not None:
            map_figures.draw_map(figure, landscape, analysis.surface, centers)
        else:
            map_figures.draw_line(landscape, analysis.lines[0], 0)
        landscape.set_title("Free energy and states")
        _draw_timescales(timescales, analysis.markov, "Implied timescales")
        if len(analysis.saliency.labels) <= MOST_BARS:
            _draw_bars(residues, analysis.saliency, "Saliency of the residues")
        else:
            names = [variable_name(k) for k in range(len(analysis.saliency.overall))]
            overall, labels = analysis.saliency.overall, analysis.saliency.labels
            _draw_heat(figure, residues, overall, names, labels, "Saliency of the residues", MOST_OF_SUMMARY)
    return path


def state_centers(variables: Sequence[np.ndarray], states: Sequence[np.ndarray], count: int) -> np.ndarray:
    """(states, K) medians of the frames of each state; NaN for a state without frames."""
    together, labels = np.concatenate(variables), np.concatenate(states)
    centers = np.full((count, together.shape[1]), np.nan)
    for state in range(count):
        if (labels == state).any():
            centers[state] = np.median(together[labels == state], axis=0)
    return centers


def save_scores(analysis: Analysis, path: Path) -> Path:
    """Draw the score against epoch, where there are training curves, and against lag."""
    curves = analysis.learned.curves
    with figure_file(path, 11.0 if curves else 5.8, 4.0, "How much slow motion the variables hold") as figure:
        panels: Any = figure.subplots(1, 2 if curves else 1, squeeze=False)[0]
        if curves:
            _draw_training(panels[0], curves)
        _draw_lag_scores(panels[-1], analysis.lag_scores, analysis.settings.lag, analysis.score_name)
    return path


def _draw_training(axes: Axes, curves: Sequence[TrainingCurve]) -> None:
    """Draw the validation VAMP-2 against epoch, with a ring at the weights that were kept."""
    from matplotlib.ticker import MaxNLocator

    for number, curve in enumerate(curves):
        color = COLORS[number % len(COLORS)]
        axes.plot(curve.epochs, curve.scores, color=color, linewidth=1.6, label=curve.name)
        best = int(np.abs(curve.epochs - curve.best_epoch).argmin())
        axes.plot(curve.epochs[best], curve.scores[best], "o", color=color, markerfacecolor="white", markersize=7)
    axes.set(title="Against epoch (ring: weights kept)", xlabel="epoch", ylabel="validation VAMP-2")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="best")


def _draw_lag_scores(axes: Axes, lags: Sequence[LagScores], lag_ps: float, score_name: str) -> None:
    """Draw the VAMP-2 of the scored frames against lag, with the spread over their blocks."""
    for number, row in enumerate(lags):
        color = COLORS[number % len(COLORS)]
        if number == 0:  # the held-out frames are the same for all: one band is enough
            low, high = row.scores - row.spread, row.scores + row.spread
            axes.fill_between(row.lags_ps, low, high, color=color, alpha=0.18, linewidth=0, label="spread")
        style = "o-" if number == 0 else "s--"
        axes.plot(row.lags_ps, row.scores, style, color=color, markersize=4, label=row.name)
    axes.axhline(1, color=QUIET_COLOR, linewidth=0.6)
    _mark_lag(axes, lag_ps)
    axes.set(title="Against lag (1: nothing slow)", xlabel="lag (ps)", ylabel=f"VAMP-2, {score_name.partition(',')[0]}")
    axes.set_xscale("log")
    _plain_ticks(axes, np.concatenate([row.lags_ps for row in lags]))
    axes.legend(loc="best")


def save_timescales(model: MarkovModel, path: Path) -> Path:
    """Draw the implied timescales with their intervals."""
    with figure_file(path, 6.4, 4.4, "Implied timescales") as figure:
        _draw_timescales(figure.subplots(), model)
    return path


def _draw_timescales(axes: Axes, model: MarkovModel, title: str = "") -> None:
    """Draw timescales against lag, their intervals, and the grey region where a timescale is shorter than the lag."""
    lags, times = model.implied_lags_ps, model.implied_timescales_ps
    shown = [k for k in range(times.value.shape[1]) if np.isfinite(times.value[:, k]).any()]
    for k in shown[:MOST_PROCESSES]:
        color = COLORS[k % len(COLORS)]
        axes.fill_between(lags, times.low[:, k], times.high[:, k], color=color, alpha=0.2, linewidth=0)
        axes.plot(lags, times.value[:, k], "o-", color=color, markersize=4, label=f"process {k + 1}")
    if not shown:
        axes.text(0.5, 0.5, "one state: no timescale", ha="center", transform=axes.transAxes, color=QUIET_COLOR)
    axes.set(xlabel="lag (ps)", ylabel="timescale (ps)", title=title, xscale="log", yscale="log")
    low, high = axes.get_ylim()
    low = min(low, 0.7 * float(lags.min()))
    ends = np.array([0.8 * lags.min(), 1.25 * lags.max()])
    axes.fill_between(ends, low, ends, color=QUIET_COLOR, alpha=0.13, linewidth=0, label="below the lag")
    _mark_lag(axes, model.lag_ps)
    axes.set(xlim=ends, ylim=(low, high))
    _plain_ticks(axes, lags)
    axes.yaxis.set_major_formatter(_plain_number)
    interval = f"{100 * model.confidence:.0f} % interval"
    axes.fill_between([], [], [], color=COLORS[0], alpha=0.2, linewidth=0, label=interval)
    axes.legend(loc="upper right", ncols=2)


def save_chapman_kolmogorov(model: MarkovModel, path: Path) -> Path:
    """Draw, for each pair of states, the model's prediction and the estimate at the longer lag."""
    count, times = model.num_states, model.chapman_kolmogorov_lags_ps
    predicted, estimated = model.predicted, model.estimated
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
            low, high = predicted.low[:, i, j], predicted.high[:, i, j]
            axes.fill_between(times, low, high, color=color, alpha=0.2, linewidth=0)
            axes.plot(times, predicted.value[:, i, j], color=color, label="predicted")
            found = estimated.value[:, i, j]
            bars = np.stack([found - estimated.low[:, i, j], estimated.high[:, i, j] - found])
            errors = None if np.isnan(bars).all() else np.clip(np.nan_to_num(bars), 0, None)
            style: Any = {"fmt": "o", "color": COLORS[1], "markersize": 4, "linewidth": 1, "label": "estimated"}
            axes.errorbar(times, found, yerr=errors, **style)
            axes.set_title(f"{i + 1} → {j + 1}")
            axes.set(ylim=(-0.05, 1.05), yticks=(0, 0.5, 1))
        panels[0, -1].legend(loc="upper right")
        figure.supxlabel("time (ps)", fontsize=10.5, color="#333333")
        figure.supylabel("probability", fontsize=10.5, color="#333333")
    return path


def _mark_lag(axes: Axes, lag_ps: float) -> None:
    axes.axvline(lag_ps, color=QUIET_COLOR, linewidth=0.9, linestyle=":", zorder=0)


def _plain_ticks(axes: Axes, lags: np.ndarray) -> None:
    """Label a logarithmic axis with the lags themselves, without those that would overlap."""
    wanted: list[float] = []
    for lag in np.unique(lags):
        if not wanted or lag > 1.45 * wanted[-1]:
            wanted.append(float(lag))
    axes.set_xticks(wanted, [f"{lag:g}" for lag in wanted])
    axes.minorticks_off()


def _plain_number(value: float, _: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def save_saliency(saliency: Saliency, path: Path) -> Path:
    """Draw the saliency over all frames, and over the frames of each state where there are states."""
    by_state = bool(np.isfinite(saliency.by_state).any())
    count, tokens = saliency.overall.shape
    if tokens <= MOST_BARS:
        with figure_file(path, 10.6 if by_state else 5.6, 4.0, "Saliency of the residues") as figure:
            panels: Any = figure.subplots(1, 2 if by_state else 1, squeeze=False)[0]
            _draw_bars(panels[0], saliency)
            if by_state:
                _draw_state_bars(panels[1], saliency)
        return path
    rows = 1 + (count if by_state else 0)
    state_height = 0.8 + 0.3 * len(saliency.by_state)
    heights = [1.6 + 0.45 * count] + [state_height] * (rows - 1)
    with figure_file(path, 11.0, sum(heights) + 0.4, "Saliency of the residues") as figure:
        panels = figure.subplots(rows, 1, squeeze=False, height_ratios=heights)[:, 0]
        names = [variable_name(k) for k in range(count)]
        _draw_heat(figure, panels[0], saliency.overall, names, saliency.labels, "All frames")
        for k, axes in enumerate(panels[1:]):
            states = [f"state {state + 1}" for state in range(len(saliency.by_state))]
            title = f"{variable_name(k).capitalize()}, by state"
            _draw_heat(figure, axes, saliency.by_state[:, k], states, saliency.labels, title)
    return path


def _draw_bars(axes: Axes, saliency: Saliency, title: str = "All frames") -> None:
    """A group of bars per residue, one per slow variable. They are shares, because a variable that is flat within its
    basins has small gradients everywhere."""
    names = [variable_name(k) for k in range(len(saliency.overall))]
    colors = [COLORS[k % len(COLORS)] for k in range(len(names))]
    shares = 100 * saliency.overall / saliency.overall.sum(axis=1, keepdims=True)
    _grouped(axes, shares, names, colors, saliency.labels, title, "share of the saliency (%)")


def save_attention(weights: np.ndarray, labels: Sequence[str], path: Path) -> Path:
    """Draw the attention from token (row) to token (column), a panel per layer.

    Args:
        weights: (layers, tokens, tokens); the sum of each row is 1.
    """
    layers = len(weights)
    side = min(3.4 if len(labels) <= MOST_LABELS else 4.4, 10.0 / layers)
    with figure_file(path, side * layers + 1.2, side + 0.9, "Attention, mean over frames and heads") as figure:
        panels: Any = figure.subplots(1, layers, squeeze=False, sharey=True)[0]
        highest = float(weights.max())
        for layer, axes in enumerate(panels):
            image = axes.imshow(weights[layer], cmap="cividis", vmin=0, vmax=highest)
            ticks, names = _ticks(labels)
            axes.set_xticks(ticks, names, rotation=90)
            axes.set(title=f"layer {layer + 1}", xlabel="to")
            axes.spines[:].set_visible(False)
        panels[0].set_yticks(ticks, names)
        panels[0].set_ylabel("from")
        figure.colorbar(image, ax=list(panels), label="weight", shrink=0.8)
    return path


def _draw_state_bars(axes: Axes, saliency: Saliency) -> None:
    """The saliency for the slowest variable, a bar per state."""
    states = [state for state in range(len(saliency.by_state)) if np.isfinite(saliency.by_state[state]).all()]
    names, colors = [f"state {state + 1}" for state in states], [state_color(state) for state in states]
    title = f"By state, {variable_name(0)}"
    _grouped(axes, saliency.by_state[states, 0], names, colors, saliency.labels, title, "saliency (sd per sd)")


def _grouped(
    axes: Axes,
    values: np.ndarray,
    names: Sequence[str],
    colors: Sequence[str],
    labels: Sequence[str],
    title: str,
    unit: str,
) -> None:
    centers, width = np.arange(len(labels)), 0.76 / len(values)
    for k, (row, name, color) in enumerate(zip(values, names, colors, strict=True)):
        axes.bar(centers + (k - (len(values) - 1) / 2) * width, row, 0.92 * width, color=color, label=name)
    axes.set_xticks(centers, labels, rotation=0 if len("".join(labels)) < 28 else 60)
    axes.tick_params(axis="x", length=0)
    axes.set(title=title, ylabel=unit, ylim=(0, 1.3 * float(np.nanmax(values))))
    axes.legend(loc="upper right", ncols=2 if len(names) > 3 else 1)


def _draw_heat(
    figure: Any,
    axes: Axes,
    values: np.ndarray,
    rows: Sequence[str],
    labels: Sequence[str],
    title: str,
    most_labels: int = MOST_LABELS,
) -> None:
    image = axes.pcolormesh(
        np.arange(len(labels) + 1), np.arange(len(rows) + 1), np.ma.masked_invalid(values), cmap="cividis", vmin=0
    )
    axes.set_facecolor("#eeeeee")
    ticks, names = _ticks(labels, most_labels)
    axes.set_xticks(np.array(ticks) + 0.5, names, rotation=90, fontsize=8.5)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label="sd per sd", pad=0.01)


def _ticks(labels: Sequence[str], most: int = MOST_LABELS) -> tuple[list[int], list[str]]:
    every = -(-len(labels) // most)
    return list(range(0, len(labels), every)), list(labels[::every])
