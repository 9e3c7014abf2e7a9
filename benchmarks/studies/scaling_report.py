"""What a scaling study says: fits to its runs, kept as numbers and drawn."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import NullLocator
from scaling_fits import PowerLawFit, fit_frontier, fit_power_law, frontier
from scaling_runs import ScalingRun, runs_as_table, write_table

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.figures import COLORS, QUIET_COLOR, figure_file
from openmm_gnn.base.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXES = {"parameters": "weights", "frames": "frames of the training set", "operations": "operations of the training"}


def fits_of(runs: Sequence[ScalingRun]) -> dict[str, PowerLawFit]:
    """Fits by what grows: parameters and operations of the trainings on all data, frames of the largest network's.

    What has too few points is left out. Seeds are points of their own, and so are radii.
    """
    most = max(run.frames for run in runs)
    largest = max(run.parameters for run in runs)
    all_data = [run for run in runs if run.frames == most]
    by_data = [run for run in runs if run.parameters == largest]
    curves = [_curve(run) for run in all_data]
    makers: dict[str, Callable[[], PowerLawFit]] = {
        "parameters": lambda: fit_power_law([run.parameters for run in all_data], [run.error for run in all_data]),
        "frames": lambda: fit_power_law([run.frames for run in by_data], [run.error for run in by_data]),
        "operations": lambda: fit_frontier([x for x, _ in curves], [y for _, y in curves]),
    }
    found = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except DataError:
            continue
    return found


def write_report(runs: Sequence[ScalingRun], out: Path) -> dict[str, PowerLawFit]:
    """Write scaling.json, scaling.csv and scaling.png, and return the fits."""
    fits = fits_of(runs)
    document = {
        "runs": [
            {**row, "steps": run.steps, "validation_errors": run.validation_errors}
            for row, run in zip(runs_as_table(runs), runs, strict=True)
        ],
        "fits": {name: {**dataclasses.asdict(fit), "verdict": fit.verdict} for name, fit in fits.items()},
    }
    write_atomically(out / "scaling.json", (json.dumps(document, indent=1) + "\n").encode())
    write_table(runs, out / "scaling.csv")
    draw(runs, fits, out / "scaling.png")
    return fits


def draw(runs: Sequence[ScalingRun], fits: dict[str, PowerLawFit], path: Path) -> Path:
    """Error against weights, data and operations, with what was fitted."""
    depths = sorted({run.cell.layers for run in runs})
    with figure_file(path, 13.0, 4.6, "Denoising error on held-out molecules") as figure:
        axes = figure.subplots(1, 3, sharey=True)
        _draw_parameters(axes[0], runs, depths)
        _draw_frames(axes[1], runs, depths)
        _draw_operations(axes[2], runs, depths)
        frames = sorted({run.frames for run in runs})
        for panel, (name, label) in zip(axes, AXES.items(), strict=True):
            panel.set(xscale="log", yscale="log", xlabel=label)
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter("{x:g}")
            if name in fits:
                _draw_fit(panel, fits[name])
        axes[0].set_ylabel("share of the noise that is left")
        axes[1].set_xticks(frames, [str(count) for count in frames])
        axes[1].xaxis.set_minor_locator(NullLocator())
    return path


def _draw_fit(axes: Axes, fit: PowerLawFit) -> None:
    x = np.geomspace(*axes.get_xlim(), 50)
    limits = axes.get_xlim(), axes.get_ylim()
    axes.plot(x, fit(x), "--", color=QUIET_COLOR, zorder=0)
    axes.set(xlim=limits[0], ylim=limits[1])
    axes.set_title(
        f"exponent {fit.exponent:.3f} ({fit.low:.3f} to {fit.high:.3f})\n{fit.verdict}", fontsize=9, fontweight="normal"
    )


def _draw_parameters(axes: Axes, runs: Sequence[ScalingRun], depths: Sequence[int]) -> None:
    most = max(run.frames for run in runs)
    for depth in depths:
        some = sorted((run.parameters, run.error) for run in runs if run.cell.layers == depth and run.frames == most)
        axes.plot(*zip(*some, strict=True), "o-", color=_color(depths, depth), label=_layers(depth))
    axes.legend()


def _draw_frames(axes: Axes, runs: Sequence[ScalingRun], depths: Sequence[int]) -> None:
    networks: dict[tuple[Any, ...], list[tuple[int, float]]] = {}
    for run in runs:
        cell = run.cell
        networks.setdefault((cell.layers, cell.width, cell.cutoff, cell.seed), []).append((run.frames, run.error))
    for (depth, *_), points in networks.items():
        axes.plot(*zip(*sorted(points), strict=True), "o-", color=_color(depths, depth), linewidth=1, markersize=4)


def _draw_operations(axes: Axes, runs: Sequence[ScalingRun], depths: Sequence[int]) -> None:
    most = max(run.frames for run in runs)
    curves = []
    for run in runs:
        if run.frames == most:
            curves.append(_curve(run))
            axes.plot(*curves[-1], color=_color(depths, run.cell.layers), linewidth=0.8)
    points = frontier([x for x, _ in curves], [y for _, y in curves])
    axes.plot(*points.T, "o", color="black", markersize=4, label="best so far")
    axes.legend()


def _curve(run: ScalingRun) -> tuple[np.ndarray, np.ndarray]:
    """Operations and errors of each validation."""
    return run.operations_per_step * np.array(run.steps, float), np.array(run.validation_errors)


def _color(depths: Sequence[int], depth: int) -> str:
    return COLORS[depths.index(depth) % len(COLORS)]


def _layers(depth: int) -> str:
    return f"{depth} layer" + ("s" if depth > 1 else "")
