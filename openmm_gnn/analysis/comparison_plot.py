"""The figure of a comparison: g(r) and differences, kinetic energy and mean squared displacement on one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.analysis.compare import Comparison, StructureDifference
from openmm_gnn.analysis.diffusion import NM2_PER_PS_IN_1E_9_M2_PER_S
from openmm_gnn.analysis.observables import Observables
from openmm_gnn.base.figures import QUIET_COLOR, REFERENCE_COLOR, RUN_COLOR, figure_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

MOST_STRUCTURES = 6
"""Pairs of elements on one page; the table has them all."""


def save_comparison(comparison: Comparison, path: Path | str) -> Path:
    """Draw the comparison into a PNG (or whatever the path's ending says)."""
    structures, run = comparison.structures[:MOST_STRUCTURES], comparison.run
    title = f"{run.system}, {run.num_atoms} atoms, {run.target_temperature:g} K: "
    title += f"{run.label} beside {comparison.reference.label}"
    with figure_file(path, 11.5, 6.8 + 3.4 * (len(structures) - 1), title) as figure:
        halves: Any = figure.subfigures(1, 2, width_ratios=(1.15, 1), wspace=0.03)
        left, right = halves
        rows = left.subplots(2 * len(structures), 1, sharex=True, height_ratios=(3, 1) * len(structures))
        kinetic_axes, msd_axes = right.subplots(2, 1)
        for structure, rdf_axes, difference_axes in zip(structures, rows[::2], rows[1::2], strict=True):
            _draw_rdf(rdf_axes, comparison, structure)
            _draw_difference(difference_axes, structure)
        rows[-1].set(xlabel="distance r (nm)")
        _draw_kinetic_energy(kinetic_axes, comparison)
        _draw_msd(msd_axes, comparison)
    return Path(path)


def _draw_rdf(axes: Axes, comparison: Comparison, structure: StructureDifference) -> None:
    highest = 0.0
    for observables, style in _both(comparison):
        rdf = observables.rdfs[structure.pair]
        axes.plot(rdf.distances_nm, rdf.values, label=observables.label, **style)
        highest = max(highest, float(rdf.values.max()))
    axes.axhline(1, color=QUIET_COLOR, linewidth=0.6, zorder=0)
    title = f"Structure, {structure.pair}" if structure.pair else "Structure"
    axes.set(ylabel="g(r)", title=title, ylim=(0, 1.08 * highest))
    axes.legend(loc="lower right" if structure.pair else "upper right")


def _draw_difference(axes: Axes, structure: StructureDifference) -> None:
    distances, errors = structure.run.distances_nm, structure.errors
    axes.fill_between(
        distances, -2 * errors, 2 * errors, color=QUIET_COLOR, alpha=0.25, linewidth=0, label="sampling, two sigma"
    )
    axes.plot(distances, structure.values, color=RUN_COLOR, linewidth=1.2)
    axes.axhline(0, color=QUIET_COLOR, linewidth=0.6)
    reach = 1.15 * max(float(np.abs(structure.values).max()), float(2 * errors.max()), 0.05)
    axes.set(ylabel="Δg(r)", xlim=(0, distances[-1]), ylim=(-reach, reach))
    axes.legend(loc="upper right", fontsize=9)


def _draw_kinetic_energy(axes: Axes, comparison: Comparison) -> None:
    trace = comparison.reference.traces[0]
    kelvin_per_kj_mol = float(trace.temperatures[-1] / trace.kinetic_kj_mol[-1])
    # A window of 1/50 of the longest run shows the drift that the noise of single frames would hide.
    longest = max(len(part.times_ps) for observables, _ in _both(comparison) for part in observables.traces)
    window = max(1, longest // 50)
    for observables, style in _both(comparison):
        for number, part in enumerate(observables.traces):
            label = f"{observables.label}: {observables.temperature.format()} K" if number == 0 else None
            smooth = _running_mean(part.kinetic_kj_mol, window)
            axes.plot(part.times_ps, part.kinetic_kj_mol, color=style["color"], linewidth=0.4, alpha=0.25)
            axes.plot(part.times_ps, smooth, label=label, **style)
    axes.axhline(comparison.run.target_temperature / kelvin_per_kj_mol, color=QUIET_COLOR, linewidth=0.6)
    axes.set(xlabel="time (ps)", ylabel="kinetic energy (kJ/mol)", title="Kinetic energy and temperature")
    axes.margins(x=0)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.3 * (high - low))
    axes.legend(loc="upper left", fontsize=9)
    to_kelvin: Any = lambda energy: energy * kelvin_per_kj_mol  # noqa: E731
    to_energy: Any = lambda kelvin: kelvin / kelvin_per_kj_mol  # noqa: E731
    kelvin_axis = axes.secondary_yaxis("right", functions=(to_kelvin, to_energy))
    kelvin_axis.set_ylabel("temperature (K)")


def _draw_msd(axes: Axes, comparison: Comparison) -> None:
    for observables, style in _both(comparison):
        diffusion = observables.diffusion
        coefficient = diffusion.coefficient.value * NM2_PER_PS_IN_1E_9_M2_PER_S
        error = diffusion.coefficient.error * NM2_PER_PS_IN_1E_9_M2_PER_S
        label = f"{observables.label}: D = ({coefficient:.2f} ± {error:.2f})·10⁻⁹ m²/s"
        low, high = diffusion.msd_nm2 - diffusion.msd_error_nm2, diffusion.msd_nm2 + diffusion.msd_error_nm2
        axes.fill_between(diffusion.lags_ps, low, high, color=style["color"], alpha=0.2, linewidth=0)
        axes.plot(diffusion.lags_ps, diffusion.msd_nm2, label=label, **style)
    window = comparison.run.diffusion.fit_window_ps
    axes.axvspan(*window, color=QUIET_COLOR, alpha=0.08, linewidth=0, label="range of the straight line")
    of = comparison.run.diffusion_of
    title = "Diffusion" if of == "atoms" else f"Diffusion of {of}"
    axes.set(xlabel="lag (ps)", ylabel="mean squared displacement (nm²)", title=title, ylim=(0, None))
    axes.margins(x=0)
    axes.legend(loc="upper left", fontsize=9)


def _both(comparison: Comparison) -> list[tuple[Observables, dict]]:
    """The reference first, as a broad line; the run over it, thin and dashed."""
    return [
        (comparison.reference, {"color": REFERENCE_COLOR, "linewidth": 2.8, "alpha": 0.85}),
        (comparison.run, {"color": RUN_COLOR, "linewidth": 1.5, "dashes": (4, 1.5)}),
    ]


def _running_mean(series: np.ndarray, window: int) -> np.ndarray:
    """Centred means; at the ends over what is there."""
    kernel = np.ones(window)
    return np.convolve(series, kernel, "same") / np.convolve(np.ones(len(series)), kernel, "same")


def comparison_table(comparison: Comparison) -> Table:
    """The comparison for the terminal."""
    from rich.table import Table

    title = f"{comparison.run.system}, {comparison.run.num_atoms} atoms"
    table = Table("quantity", title=title, title_justify="left")
    table.add_column(comparison.run.label, justify="right")
    table.add_column(comparison.reference.label, justify="right")
    table.add_column("difference", justify="right")
    for row in comparison.rows():
        table.add_row(*row)
    table.caption = "± is one standard error, from blocks of each run"
    return table
