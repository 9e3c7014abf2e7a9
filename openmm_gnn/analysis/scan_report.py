"""The rows of a scan of step sizes as a figure and a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openmm_gnn.analysis.step_scan import SMALLEST_DEVIATION, ScanRow, Verdict
from openmm_gnn.base.figures import COLORS, QUIET_COLOR, REFERENCE_COLOR, RUN_COLOR, figure_file, terminal_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

_MARKERS = "osD^v"


def save_scan_plot(rows: Sequence[ScanRow], title: str, path: Path | str) -> Path:
    """Draw the rows into a PNG (or whatever the path's ending says)."""
    with figure_file(path, 10.5, 4.4, title) as figure:
        temperature_axes, speed_axes = figure.subplots(1, 2)
        _draw_temperatures(temperature_axes, rows)
        _draw_speed(speed_axes, rows)
    return Path(path)


def _draw_temperatures(axes: Axes, rows: Sequence[ScanRow]) -> None:
    elements = list(dict.fromkeys(name for row in rows for name in row.temperatures))
    for element, color, marker in zip(elements, COLORS, _MARKERS, strict=False):
        measured = [row for row in rows if element in row.temperatures]
        deviations = [100 * (row.temperatures[element].value / row.target - 1) for row in measured]
        errors = [100 * row.temperatures[element].error / row.target for row in measured]
        steps = [row.time_step_fs for row in measured]
        axes.errorbar(steps, deviations, errors, label=element, color=color, marker=marker, linestyle="none", capsize=3)
    broken = [row.time_step_fs for row in rows if row.verdict is Verdict.BLEW_UP and not row.temperatures]
    if broken:
        axes.plot(broken, [0.0] * len(broken), "x", color=QUIET_COLOR, markersize=9, label="blew up")
    percent = 100 * SMALLEST_DEVIATION
    axes.axhspan(-percent, percent, color=QUIET_COLOR, alpha=0.15, linewidth=0)
    axes.set(xlabel="outer step (fs)", ylabel="off the thermostat (%)", title="Temperature of each element")
    axes.legend()


def _draw_speed(axes: Axes, rows: Sequence[ScanRow]) -> None:
    for row in rows:
        if row.inner_steps == 0:
            axes.axhline(row.ns_per_day, color=REFERENCE_COLOR, linewidth=1.5, label="own forces alone")
    for inner, marker in zip(sorted({row.inner_steps for row in rows} - {0}), _MARKERS, strict=False):
        for stable, fill in ((True, RUN_COLOR), (False, "none")):
            chosen = [r for r in rows if r.inner_steps == inner and (r.verdict is Verdict.STABLE) is stable]
            if chosen:
                steps, speeds = [row.time_step_fs for row in chosen], [row.ns_per_day for row in chosen]
                label = f"{inner} inner steps, {'stable' if stable else 'not stable'}"
                style: Any = {"marker": marker, "color": RUN_COLOR, "markerfacecolor": fill}
                axes.plot(steps, speeds, linestyle="none", label=label, **style)
    axes.set(xlabel="outer step (fs)", ylabel="ns/day", title="Speed", ylim=(0, None))
    axes.legend()


def scan_table(rows: Sequence[ScanRow]) -> Table:
    """The rows for the terminal, 80 columns wide; scan.json has all temperatures and energies.

    The temperature is that of the element that is most standard errors off the thermostat.
    """
    reference = next((row for row in rows if row.inner_steps == 0), None)
    title = f"Thermostat {rows[0].target:g} K"
    if reference is not None and reference.potential is not None:
        title += f", potential of the reference {reference.potential.format(1)} kJ/mol"
    headings = ["outer / inner / bonded (fs)", "farthest T (K)", "above reference (kJ/mol)", "ns/day", "verdict"]
    cells = []
    for row in rows:
        inner = row.time_step_fs / max(1, row.inner_steps)
        steps = [f"{row.time_step_fs:.3g}", f"{inner:.3g}" if row.inner_steps else "-"]
        shift = row.energy_shift(reference) if row is not reference else None
        cells.append(
            [
                " / ".join([*steps, f"{inner / row.bonded_substeps:.3g}"]),
                _farthest(row),
                "reference" if row is reference else "-" if shift is None else shift.format(1),
                "-"
                if not row.ns_per_day
                else f"{row.ns_per_day:.0f}"
                if row.ns_per_day >= 100
                else f"{row.ns_per_day:.3g}",
                row.verdict.value,
            ]
        )
    return terminal_table(title, headings, cells, left=(0, len(headings) - 1))


def _farthest(row: ScanRow) -> str:
    if not row.temperatures:
        return "-"
    errors = {name: abs(one.value - row.target) / max(one.error, 1e-9) for name, one in row.temperatures.items()}
    name = max(errors, key=errors.__getitem__)
    return f"{name} {row.temperatures[name].format(1)}"
