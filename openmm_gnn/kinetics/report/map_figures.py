"""Figures in the slow variables: free energies, the time series of each run, and the states."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.figures import COLORS, REFERENCE_COLOR, figure_file
from openmm_gnn.kinetics.free_energy import FreeEnergyLine, FreeEnergyMap
from openmm_gnn.kinetics.markov import MarkovModel
from openmm_gnn.kinetics.report.results import variable_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HIGHEST_KJ_MOL = 30.0
"""Free energy above which all is drawn in the last colour: a handful of frames make such values."""
MOST_RUNS, MOST_VARIABLES = 8, 3
POINTS_PER_RUN = 4000
PALE_COLOR = "#c9c9c9"
"""Colour of frames in no state."""


def state_color(state: int) -> str:
    """The colour of a state in every figure; -1 is no state."""
    return PALE_COLOR if state < 0 else COLORS[state % len(COLORS)]


def save_free_energy(
    lines: Sequence[FreeEnergyLine],
    surface: FreeEnergyMap | None,
    temperature: float,
    path: Path,
    centers: np.ndarray | None = None,
) -> Path:
    """Draw the free energy along each slow variable, and over the first two.

    Args:
        centers: (states, 2) positions of the states, marked on the map.
    """
    lines = lines[:MOST_VARIABLES]
    columns = len(lines) + (surface is not None)
    with figure_file(path, 3.7 * columns, 3.8, f"Free energy in the slow variables, {temperature:g} K") as figure:
        panels: Any = figure.subplots(1, columns, squeeze=False)[0]
        for index, (axes, line) in enumerate(zip(panels, lines, strict=False)):
            draw_line(axes, line, index)
        if surface is not None:
            draw_map(figure, panels[-1], surface, centers)
    return path


def draw_line(axes: Axes, line: FreeEnergyLine, index: int) -> None:
    """Draw one free energy with its one-sigma band."""
    low, high = line.values - line.errors, line.values + line.errors
    axes.fill_between(line.centers, low, high, color=REFERENCE_COLOR, alpha=0.22, linewidth=0, label="one sigma")
    axes.plot(line.centers, line.values, color=REFERENCE_COLOR, linewidth=1.8)
    axes.set(xlabel=f"{variable_name(index)} (sd)", ylabel="free energy (kJ/mol)")
    axes.set_ylim(0, min(HIGHEST_KJ_MOL, 1.08 * float(np.nanmax(line.values))))
    axes.legend(loc="upper center")


def draw_map(figure: Figure | Any, axes: Axes, surface: FreeEnergyMap, centers: np.ndarray | None = None) -> None:
    """Draw a free energy over two variables in colour; bins without frames stay white."""
    highest = min(HIGHEST_KJ_MOL, float(np.nanmax(surface.values)))
    x, y = surface.edges
    values = np.minimum(surface.values, highest).T
    image = axes.pcolormesh(x, y, values, cmap="YlGnBu_r", vmin=0, vmax=highest, rasterized=True)
    for number, center in enumerate(np.empty((0, 2)) if centers is None else centers):
        mark_state(axes, number, center)
    margins = [0.06 * (edges[-1] - edges[0]) for edges in (x, y)]  # or a disc at the edge would be cut
    axes.set_xlim(x[0] - margins[0], x[-1] + margins[0])
    axes.set_ylim(y[0] - margins[1], y[-1] + margins[1])
    axes.set(xlabel=f"{variable_name(0)} (sd)", ylabel=f"{variable_name(1)} (sd)")
    figure.colorbar(image, ax=axes, label="free energy (kJ/mol)", pad=0.02)


def mark_state(axes: Axes, number: int, center: np.ndarray) -> None:
    """Draw the number of a state in a disc of its colour."""
    box = {"boxstyle": "circle,pad=0.25", "facecolor": state_color(number), "edgecolor": "white", "linewidth": 1.2}
    axes.text(
        center[0], center[1], str(number + 1), color="white", fontweight="bold", fontsize=10, ha="center", va="center",
        bbox=box, clip_on=True,
    )  # fmt: skip


def save_time_series(
    names: Sequence[str],
    times_ps: Sequence[np.ndarray],
    variables: Sequence[np.ndarray],
    states: Sequence[np.ndarray],
    path: Path,
) -> Path:
    """Draw each slow variable along each run, frames in the colour of their state.

    Args:
        times_ps: (frames,) for each run.
        variables: (frames, K) for each run.
        states: (frames,) integers for each run, -1 for none.
    """
    shown, columns = min(MOST_RUNS, len(names)), min(MOST_VARIABLES, variables[0].shape[1])
    title = "Slow variables along the runs"
    title += f": the first {shown} of {len(names)}" if shown < len(names) else ""
    with figure_file(path, 4.6 * columns + 1.0, 1.25 * shown + 1.2, title) as figure:
        panels: Any = figure.subplots(shown, columns, sharey="col", sharex=True, squeeze=False)
        for row in range(shown):
            for column in range(columns):
                axes = panels[row, column]
                rows = slice(None, None, max(1, -(-len(times_ps[row]) // POINTS_PER_RUN)))
                colors = [state_color(int(state)) for state in states[row][rows]]
                times, values = times_ps[row][rows] / 1000, variables[row][rows, column]
                axes.scatter(times, values, c=colors, s=2.5, linewidths=0, rasterized=True)
                axes.margins(x=0.01)
                if row == 0:
                    axes.set_title(variable_name(column) + " (sd)")
            panels[row, 0].set_ylabel(names[row])
        for axes in panels[-1]:
            axes.set_xlabel("time (ns)")
        _state_legend(figure, states)
    return path


def save_states(model: MarkovModel, variables: Sequence[np.ndarray], states: Sequence[np.ndarray], path: Path) -> Path:
    """Draw where the states are, and their populations."""
    with figure_file(path, 9.2, 4.1, "States") as figure:
        positions, bars = figure.subplots(1, 2, width_ratios=(1.2, 1))
        _draw_positions(positions, variables, states)
        _draw_populations(bars, model)
    return path


def _draw_positions(axes: Axes, variables: Sequence[np.ndarray], states: Sequence[np.ndarray]) -> None:
    """Frames over the first two slow variables in the colour of their state; for one variable, its distribution."""
    together, labels = np.concatenate(variables), np.concatenate(states)
    present = np.unique(labels)
    if together.shape[1] == 1:
        edges = np.linspace(together.min(), together.max() + 1e-9, 80)
        for state in present:
            values = together[labels == state, 0]
            counts, _ = np.histogram(values, edges)
            axes.stairs(counts, edges, color=state_color(int(state)), fill=True, alpha=0.75)
        axes.set(xlabel=f"{variable_name(0)} (sd)", ylabel="frames", yscale="log", title="Where they are")
        return
    chosen = np.random.default_rng(0).permutation(len(together))[: 2 * POINTS_PER_RUN]
    colors = [state_color(int(state)) for state in labels[chosen]]
    axes.scatter(together[chosen, 0], together[chosen, 1], c=colors, s=3, alpha=0.6, linewidths=0, rasterized=True)
    for state in present[present >= 0]:
        mark_state(axes, int(state), np.median(together[labels == state, :2], axis=0))
    axes.set(xlabel=f"{variable_name(0)} (sd)", ylabel=f"{variable_name(1)} (sd)", title="Where they are")


def _draw_populations(axes: Axes, model: MarkovModel) -> None:
    populations, numbers = 100 * model.populations.value, np.arange(model.num_states)
    bars = 100 * np.stack([model.populations.low, model.populations.high])
    errors = np.clip(np.abs(bars - populations), 0, None)
    axes.bar(numbers, populations, color=[state_color(int(state)) for state in numbers], width=0.62)
    axes.errorbar(numbers, populations, yerr=errors, fmt="none", color="#333333", capsize=3, linewidth=1)
    for state, population, high in zip(numbers, populations, bars[1], strict=True):
        axes.annotate(
            f"{population:.3g} %", (state, max(population, high)), xytext=(0, 3), textcoords="offset points",
            ha="center", fontsize=9, color="#333333",
        )  # fmt: skip
    axes.set_xticks(numbers, [str(state + 1) for state in numbers])
    title = f"Populations ({100 * model.confidence:.0f} % interval)"
    highest = float(np.nanmax([populations, bars[1]]))  # few samples have no interval
    axes.set(xlabel="state", ylabel="population (%)", title=title, ylim=(0, 1.12 * highest))


def _state_legend(figure: Figure, states: Sequence[np.ndarray]) -> None:
    from matplotlib.lines import Line2D

    present = sorted({int(state) for own in states for state in np.unique(own)}, key=lambda state: (state < 0, state))
    if len(present) < 2:
        return
    handles = [
        Line2D(
            *([], []), marker="o", linestyle="none", color=state_color(state),
            label="not connected" if state < 0 else f"state {state + 1}",
        )
        for state in present
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper right", ncols=min(6, len(handles)), fontsize=9)
