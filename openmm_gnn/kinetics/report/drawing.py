"""Every figure of an analysis of slow variables, and the one that sums it up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.base.figures import figure_file
from openmm_gnn.kinetics.report.data import SlowData
from openmm_gnn.kinetics.report.map_figures import (
    draw_line,
    draw_map,
    save_free_energy,
    save_states,
    save_time_series,
)
from openmm_gnn.kinetics.report.results import SlowAnalysis
from openmm_gnn.kinetics.report.saliency_figure import MOST_BARS, draw_bars, draw_heat, save_attention, save_saliency
from openmm_gnn.kinetics.report.score_figures import (
    draw_timescales,
    save_chapman_kolmogorov,
    save_scores,
    save_timescales,
)


def draw_all(
    analysis: SlowAnalysis,
    data: SlowData,
    variables: Sequence[np.ndarray],
    states: Sequence[np.ndarray],
    folder: Path,
) -> dict[str, Path]:
    """Draw into PNG files.

    Args:
        variables: of each run (frames, K).
        states: of each run (frames,).
    Returns:
        The files by what they show, as `write_report` takes them.
    """
    names, times = [run.name for run in data.runs], [run.times_ps for run in data.runs]
    centers = state_centers(variables, states, len(analysis.states.populations))
    two = centers if analysis.surface is not None else None
    lines, surface, kelvin = analysis.lines, analysis.surface, analysis.temperature
    figures = {
        "scores": save_scores(analysis.curves, analysis.lag_scores, analysis.lag_ps, folder / "scores.png"),
        "timescales": save_timescales(analysis.timescales, folder / "timescales.png"),
        "free_energy": save_free_energy(lines, surface, kelvin, folder / "free_energy.png", two),
        "time_series": save_time_series(names, times, variables, states, folder / "time_series.png"),
        "states": save_states(analysis.states, variables, states, folder / "states.png"),
        "summary": save_summary(analysis, folder / "summary.png", two),
    }
    if analysis.prediction is not None:
        figures["prediction"] = save_chapman_kolmogorov(analysis.prediction, folder / "chapman_kolmogorov.png")
    if analysis.saliency is not None:
        figures["saliency"] = save_saliency(analysis.saliency, folder / "saliency.png")
        if analysis.attention is not None:
            file = folder / "attention.png"
            figures["attention"] = save_attention(analysis.attention, analysis.saliency.labels, file)
    return figures


def save_summary(analysis: SlowAnalysis, path: Path, centers: np.ndarray | None) -> Path:
    """Free energy, timescales and saliency side by side."""
    title = f"Slow variables of {analysis.system}: {analysis.total_ns:.4g} ns, {analysis.temperature:g} K"
    with figure_file(path, 14.0, 4.2, title) as figure:
        panels: Any = figure.subplots(1, 3, width_ratios=(1.15, 1, 1))
        layout: Any = figure.get_layout_engine()
        layout.set(w_pad=0.14)
        landscape, timescales, residues = panels
        if analysis.surface is not None:
            draw_map(figure, landscape, analysis.surface, centers)
        else:
            draw_line(landscape, analysis.lines[0], 0)
        landscape.set_title("Free energy and states")
        draw_timescales(timescales, analysis.timescales, "Implied timescales")
        if analysis.saliency is None:
            residues.set_axis_off()
        elif len(analysis.saliency.labels) <= MOST_BARS:
            draw_bars(residues, analysis.saliency, "Saliency of the residues")
        else:
            draw_heat(figure, residues, analysis.saliency, "Saliency of the residues")
    return path


def state_centers(variables: Sequence[np.ndarray], states: Sequence[np.ndarray], count: int) -> np.ndarray:
    """(states, K) median of the frames of each state; NaN for one without frames."""
    together, labels = np.concatenate(variables), np.concatenate(states)
    centers = np.full((count, together.shape[1]), np.nan)
    for state in range(count):
        if (labels == state).any():
            centers[state] = np.median(together[labels == state], axis=0)
    return centers
