"""Figures per residue: to which the slow variables listen, and which attend to which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.figures import COLORS, figure_file
from openmm_gnn.kinetics.report.map_figures import state_color, variable_name
from openmm_gnn.kinetics.saliency import Saliency

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LABELS = 40
MOST_BARS = 12
"""Tokens that are drawn as bars; more become a heat map."""


def save_saliency(saliency: Saliency, path: Path) -> Path:
    """Of all frames, and of the frames of each state where there are states."""
    by_state = bool(np.isfinite(saliency.by_state).any())
    count, tokens = saliency.overall.shape
    if tokens <= MOST_BARS:
        with figure_file(path, 10.6 if by_state else 5.6, 4.0, "Saliency of the residues") as figure:
            panels: Any = figure.subplots(1, 2 if by_state else 1, squeeze=False)[0]
            draw_bars(panels[0], saliency)
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


def draw_bars(axes: Axes, saliency: Saliency, title: str = "All frames") -> None:
    """A group of bars per residue, one per slow variable: shares, because a variable that is flat within its basins has
    small gradients everywhere."""
    names = [variable_name(k) for k in range(len(saliency.overall))]
    colors = [COLORS[k % len(COLORS)] for k in range(len(names))]
    shares = 100 * saliency.overall / saliency.overall.sum(axis=1, keepdims=True)
    _grouped(axes, shares, names, colors, saliency.labels, title, "share of the saliency (%)")


def draw_heat(figure: Any, axes: Axes, saliency: Saliency, title: str = "") -> None:
    """Slow variables by residues, in colour."""
    names = [variable_name(k) for k in range(len(saliency.overall))]
    _draw_heat(figure, axes, saliency.overall, names, saliency.labels, title)


def save_attention(weights: np.ndarray, labels: Sequence[str], path: Path) -> Path:
    """Attention from token (row) to token (column), a panel per layer.

    Args:
        weights: (layers, tokens, tokens), rows with sum 1.
    """
    layers = len(weights)
    side = 3.4 if len(labels) <= MOST_LABELS else 4.4
    with figure_file(path, side * layers + 1.2, side + 0.9, "Attention, mean over frames and heads") as figure:
        panels: Any = figure.subplots(1, layers, squeeze=False, sharey=True)[0]
        highest = float(weights.max())
        for layer, axes in enumerate(panels):
            image = axes.imshow(weights[layer], cmap="cividis", vmin=0, vmax=highest)
            places, names = _some(labels)
            axes.set_xticks(places, names, rotation=90)
            axes.set(title=f"layer {layer + 1}", xlabel="to")
            axes.spines[:].set_visible(False)
        panels[0].set_yticks(places, names)
        panels[0].set_ylabel("from")
        figure.colorbar(image, ax=list(panels), label="weight", shrink=0.8)
    return path


def _draw_state_bars(axes: Axes, saliency: Saliency) -> None:
    """Of the slowest variable, a bar per state."""
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
    places, width = np.arange(len(labels)), 0.76 / len(values)
    for k, (row, name, color) in enumerate(zip(values, names, colors, strict=True)):
        axes.bar(places + (k - (len(values) - 1) / 2) * width, row, 0.92 * width, color=color, label=name)
    axes.set_xticks(places, labels, rotation=0 if len(labels) < 7 else 60)
    axes.tick_params(axis="x", length=0)
    axes.set(title=title, ylabel=unit, ylim=(0, 1.3 * float(np.nanmax(values))))
    axes.legend(fontsize=9, loc="upper right", ncols=2 if len(names) > 3 else 1)


def _draw_heat(
    figure: Any, axes: Axes, values: np.ndarray, rows: Sequence[str], labels: Sequence[str], title: str
) -> None:
    image = axes.pcolormesh(
        np.arange(len(labels) + 1), np.arange(len(rows) + 1), np.ma.masked_invalid(values), cmap="cividis", vmin=0
    )
    axes.set_facecolor("#eeeeee")
    places, names = _some(labels)
    axes.set_xticks(np.array(places) + 0.5, names, rotation=90, fontsize=8.5)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.set_title(title)
    figure.colorbar(image, ax=axes, label="saliency (sd per sd)", pad=0.01)


def _some(labels: Sequence[str]) -> tuple[list[int], list[str]]:
    every = -(-len(labels) // MOST_LABELS)
    return list(range(0, len(labels), every)), list(labels[::every])
