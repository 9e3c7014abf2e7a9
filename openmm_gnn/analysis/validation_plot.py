"""A validation as a figure and as a table: energy, temperatures, neighbourhoods and box sizes on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.analysis.verdicts import FINE, FLAT, LOOK
from openmm_gnn.base.figures import COLORS, QUIET_COLOR, REFERENCE_COLOR, RUN_COLOR, figure_file
from openmm_gnn.base.units import kinetic_temperature

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

    from openmm_gnn.analysis.validation import Validation


def save_validation(validation: Validation, path: Path | str) -> Path:
    """Draw the report into a PNG (or whatever the path's ending says)."""
    title = f"{validation.model}: {validation.system}, {validation.num_atoms} particles, {validation.temperature:g} K"
    with figure_file(path, 11.5, 7.4, title) as figure:
        (energy, temperature), (neighborhood, size) = figure.subplots(2, 2)
        _draw_energy(energy, validation)
        _draw_temperatures(temperature, validation)
        _draw_neighborhoods(neighborhood, validation)
        _draw_sizes(size, validation)
    return Path(path)


def validation_table(validation: Validation) -> Table:
    """The report as a table for the terminal: each figure with its verdict in words."""
    from rich.table import Table

    colors = {FINE: "green", LOOK: "yellow"}
    title = f"{validation.model} on {validation.system}, {validation.num_atoms} particles, {validation.temperature:g} K"
    table = Table("quantity", title=title, title_justify="left")
    table.add_column("figure", justify="right")
    table.add_column("verdict")
    table.add_column("what it says", overflow="fold")
    for check in validation.checks:
        color = colors.get(check.verdict, "dim")
        table.add_row(check.name, check.text, f"[{color}]{check.verdict}[/]", check.words)
    return table


def _draw_energy(axes: Axes, validation: Validation) -> None:
    trace = validation.energy
    axes.set(title="Constant energy", xlabel="time (ps)", ylabel="change of energy (K per degree of freedom)")
    if trace is None:
        return _say(axes, "blew up, or was not measured")
    to_kelvin = kinetic_temperature(1.0, trace.freedom)
    series = [("kinetic - work: the integrator", trace.kinetic - trace.work, QUIET_COLOR)]
    if trace.potential is not None:
        series.append(("kinetic + potential", trace.kinetic + trace.potential, RUN_COLOR))
    for label, values, color in series:
        axes.plot(trace.times_ps, (values - values[0]) * to_kelvin, color=color, label=label)
    axes.axhline(0, color=QUIET_COLOR, linewidth=0.6)
    axes.legend(fontsize=9)


def _draw_temperatures(axes: Axes, validation: Validation) -> None:
    run = validation.stability
    axes.set(title="Temperature of each element", xlabel="time (ps)", ylabel="temperature (K)")
    if run is None or not len(run.times_ps):
        return _say(axes, "the run ended at once")
    window = max(1, len(run.times_ps) // 50)
    for index, (element, color) in enumerate(zip(run.elements, COLORS * len(run.elements), strict=False)):
        values = run.element_temperatures[:, index]
        kernel = np.ones(window)
        smooth = np.convolve(values, kernel, "same") / np.convolve(np.ones(len(values)), kernel, "same")
        axes.plot(run.times_ps, values, color=color, linewidth=0.4, alpha=0.25)
        axes.plot(run.times_ps, smooth, color=color, label=element)
    axes.axhline(validation.temperature, color=QUIET_COLOR, linewidth=0.8)
    if run.failure:
        axes.axvline(run.times_ps[-1], color=RUN_COLOR, linestyle=":", label="blew up")
    axes.legend(fontsize=9, loc="lower right")


def _draw_neighborhoods(axes: Axes, validation: Validation) -> None:
    axes.set(title="Neighbourhoods", xlabel="distance from the training data (1: its border)", ylabel="atoms (%)")
    if not validation.scores:
        return _say(axes, "the bundle holds no training distribution")
    last = max(1.5, *(float(np.quantile(scores, 0.9999)) for scores in validation.scores.values()))
    bins = np.linspace(0, last, 60)
    for (where, scores), color in zip(validation.scores.items(), COLORS, strict=False):
        counts, _ = np.histogram(scores, bins)
        axes.stairs(100 * counts / len(scores), bins, color=color, label=where, linewidth=1.4)
    axes.axvline(1, color=QUIET_COLOR, linewidth=0.8)
    axes.set_yscale("log")
    axes.legend(fontsize=9)


def _draw_sizes(axes: Axes, validation: Validation) -> None:
    axes.set(title="Boxes of other sizes", xlabel="molecules", ylabel="relative force error (%)")
    measured = [(r.num_molecules, 100 * r.errors.relative_error) for r in validation.sizes if r.errors is not None]
    if not measured:
        return _say(axes, "blew up, or was not measured")
    counts, errors = zip(*measured, strict=True)
    axes.axhspan(
        (1 - FLAT) * errors[0], (1 + FLAT) * errors[0], color=QUIET_COLOR, alpha=0.15, linewidth=0, label="within 10 %"
    )
    axes.plot(counts, errors, "o-", color=REFERENCE_COLOR)
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_ylim(0, 1.3 * max(errors))
    axes.legend(fontsize=9)


def _say(axes: Axes, words: str) -> None:
    axes.text(0.5, 0.5, words, transform=axes.transAxes, ha="center", va="center", color=QUIET_COLOR)
