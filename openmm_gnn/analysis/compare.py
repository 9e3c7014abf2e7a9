"""A run beside its reference: structure, temperatures, energy and diffusion of both, and how they differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.analysis.diffusion import NM2_PER_PS_IN_1E_9_M2_PER_S
from openmm_gnn.analysis.observables import Observables, observe, periodic_frames, runs_in, shortest_run_ps
from openmm_gnn.analysis.structure import RadialDistribution, largest_radius
from openmm_gnn.base.errors import DataError
from openmm_gnn.base.figures import QUIET_COLOR, REFERENCE_COLOR, RUN_COLOR, figure_file, terminal_table
from openmm_gnn.base.files import plain
from openmm_gnn.base.statistics import Estimate, running_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

MOST_STRUCTURES = 6
"""Pairs of elements on one page; the table has them all."""


@dataclass(frozen=True)
class StructureDifference:
    """g(r) of a run less that of its reference, for one pair of elements."""

    pair: str
    run: RadialDistribution
    reference: RadialDistribution

    @property
    def values(self) -> np.ndarray:
        """(bins,) g of the run minus g of the reference."""
        return self.run.values - self.reference.values

    @property
    def errors(self) -> np.ndarray:
        """(bins,) standard error of the difference: what sampling alone would make of it."""
        return np.hypot(self.run.errors, self.reference.errors)

    @property
    def largest(self) -> Estimate:
        """The largest |g - g_ref|, with the sampling error at that distance."""
        return Estimate(float(np.abs(self.values).max()), float(self.errors[self._bin]))

    @property
    def largest_at_nm(self) -> float:
        """The distance at which g(r) differs most."""
        return float(self.run.distances_nm[self._bin])

    @property
    def within_two_sigma(self) -> bool:
        """Whether the largest difference is within twice its statistical error."""
        return self.largest.value <= 2 * self.largest.error

    @property
    def bins_beyond_two_sigma(self) -> float:
        """Fraction of the bins with atoms that differ by more than two sigma; sampling alone gives some 6 %."""
        sampled = self.errors > 0
        return float((np.abs(self.values) > 2 * self.errors)[sampled].mean()) if sampled.any() else 0.0

    @property
    def _bin(self) -> int:
        return int(np.abs(self.values).argmax())


@dataclass(frozen=True)
class Comparison:
    """A run and its reference."""

    run: Observables
    reference: Observables

    @property
    def structures(self) -> list[StructureDifference]:
        """One for each pair of elements."""
        return [StructureDifference(pair, rdf, self.reference.rdfs[pair]) for pair, rdf in self.run.rdfs.items()]

    @property
    def largest_difference(self) -> Estimate:
        """Largest difference of g(r) of the first pair of elements."""
        return self.structures[0].largest

    @property
    def temperature_ratio(self) -> Estimate:
        """Mean temperatures, run over reference."""
        return self.run.temperature.ratio(self.reference.temperature)

    @property
    def diffusion_ratio(self) -> Estimate:
        """Diffusion coefficients, run over reference; NaN where a run is too short for one."""
        ours, theirs = self.run.diffusion, self.reference.diffusion
        if ours is None or theirs is None:
            return Estimate(np.nan, np.nan)
        return ours.coefficient.ratio(theirs.coefficient)

    def to_dict(self) -> dict[str, Any]:
        """Figures for programs; a figure that was not measured is null."""
        shown = ("label", "system", "simulated_ps", "temperature", "element_temperatures", "potential_kj_mol")
        sides = {
            name: {**{one: plain(getattr(side, one)) for one in shown}, "density_g_cm3": plain(side.density_g_cm3)}
            for name, side in (("run", self.run), ("reference", self.reference))
        }
        structures = [
            {"pair": one.pair, "largest_difference": plain(one.largest), "largest_at_nm": one.largest_at_nm,
             "within_two_sigma": bool(one.within_two_sigma)}
            for one in self.structures
        ]  # fmt: skip
        ratios = {"temperature_ratio": plain(self.temperature_ratio), "diffusion_ratio": plain(self.diffusion_ratio)}
        return {**sides, "structures": structures, **ratios}

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Quantity, value of the run, value of the reference, agreement; for tables."""
        run, reference = self.run, self.reference
        rows = [("simulated (ps)", f"{run.simulated_ps:.0f}", f"{reference.simulated_ps:.0f}", "")]
        for structure in self.structures:
            rows += _structure_rows(structure)
        if run.knows_temperature and reference.knows_temperature:
            rows.append(_row("temperature (K)", run.temperature, reference.temperature))
        for element, temperature in run.element_temperatures.items():
            if element in reference.element_temperatures:
                rows.append(_row(f"temperature {element} (K)", temperature, reference.element_temperatures[element]))
        if run.potential_kj_mol is not None and reference.potential_kj_mol is not None:
            ours, theirs = run.potential_kj_mol, reference.potential_kj_mol
            difference = f"{ours.value - theirs.value:+.3f} ± {float(np.hypot(ours.error, theirs.error)):.3f}"
            rows.append(("potential (kJ/mol/molecule)", ours.format(3), theirs.format(3), difference))
        if run.density_g_cm3 is not None and reference.density_g_cm3 is not None:
            rows.append(_row("density (g/cm³)", run.density_g_cm3, reference.density_g_cm3, digits=4))
        if run.diffusion is not None and reference.diffusion is not None:
            of = "" if run.diffusion_of == "atoms" else f" of {run.diffusion_of}"
            diffusion, of_reference = _usual(run.diffusion.coefficient), _usual(reference.diffusion.coefficient)
            rows.append(_row(f"diffusion{of} (10⁻⁹ m²/s)", diffusion, of_reference))
        return rows


def compare(
    run: Path | str, reference: Path | str, selection: str = "all", report: Callable[[str], None] = lambda _: None
) -> Comparison:
    """Compare two runs of one system; each may be a run's directory, or a directory of runs, which are pooled.

    Args:
        selection: atoms of g(r) and diffusion, in mdtraj's language: "element O", "name CA". With "all", diffusion is
            that of the molecules' centres of mass.
        report: called with what is being measured.
    Raises:
        DataError: if the runs are not of the same box and atoms, or one has no frame. Runs that are too short for an
            error or for diffusion go without.
    """
    segment_ps = min(shortest_run_ps(run), shortest_run_ps(reference)) / 5
    radius = _common_radius(Path(run), Path(reference))
    observed = []
    for path in (run, reference):
        report(f"measuring g(r) and diffusion of {path}")
        observed.append(observe(path, selection, segment_ps, radius))
    first, second = observed
    if first.num_atoms != second.num_atoms or list(first.rdfs) != list(second.rdfs):
        raise DataError(
            f"{run} holds {first.num_atoms} atoms and g(r) of {_pairs_of(first)}, {reference} {second.num_atoms} and "
            f"{_pairs_of(second)}: compare runs of one system"
        )
    if first.label == second.label:
        first, second = (
            replace(observables, label=f"{observables.label} {Path(path).name}")
            for observables, path in ((first, run), (second, reference))
        )
    return Comparison(first, second)


def _pairs_of(observables: Observables) -> str:
    return ", ".join(pair or "all atoms" for pair in observables.rdfs)


def _common_radius(run: Path, reference: Path) -> float:
    """Half the smallest box of both; boxes of constant volume must be one and the same.

    Raises:
        DataError: if they are not.
    """
    half, changes = [], False
    for path in (run, reference):
        boxes = [periodic_frames(part)[1] for part in runs_in(path)]
        half.append(min(largest_radius(box) for box in boxes))
        changes |= any(np.ptp(np.linalg.det(box)) > 1e-3 * np.linalg.det(box[0]) for box in boxes)
    if not changes and not np.isclose(half[0], half[1], rtol=1e-3):
        raise DataError(
            f"half the box is {half[0]:.4f} nm in {run} and {half[1]:.4f} nm in {reference}: compare runs of one box"
        )
    return min(half)


def _usual(coefficient: Estimate) -> Estimate:
    """In 1e-9 m^2/s."""
    return Estimate(coefficient.value * NM2_PER_PS_IN_1E_9_M2_PER_S, coefficient.error * NM2_PER_PS_IN_1E_9_M2_PER_S)


def _structure_rows(structure: StructureDifference) -> list[tuple[str, str, str, str]]:
    (peak, height), (reference_peak, reference_height) = structure.run.first_peak(), structure.reference.first_peak()
    largest = f"{structure.largest.format(3)} at {structure.largest_at_nm:.3f} nm"
    positions = (f"{peak:.4f}", f"{reference_peak:.4f}", _percent(peak / reference_peak))
    heights = (f"{height:.3f}", f"{reference_height:.3f}", _percent(height / reference_height))
    beyond: list[tuple[str, str, str, str]] = []
    if structure.pair and np.isfinite(structure.largest.error):
        verdict = "within" if structure.within_two_sigma else "beyond"
        largest = f"{structure.largest.value:.3f} at {structure.largest_at_nm:.3f} nm, {verdict} two sigma "
        largest += f"({2 * structure.largest.error:.3f})"
        share = f"{100 * structure.bins_beyond_two_sigma:.0f} % (chance alone: 6 %)"
        beyond = [(f"{structure.pair} bins beyond two sigma", "", "", share)]
    of = f"{structure.pair} " if structure.pair else ""
    first = (f"{of}largest |Δg(r)|", "", "", largest)
    return [first, *beyond, (f"{of}g(r) peak at (nm)", *positions), (f"{of}g(r) peak height", *heights)]


def _row(name: str, value: Estimate, reference: Estimate, digits: int = 2) -> tuple[str, str, str, str]:
    ratio = value.ratio(reference)
    return name, value.format(digits), reference.format(digits), _percent(ratio.value, ratio.error)


def _percent(ratio: float, error: float | None = None) -> str:
    text = f"{100 * (ratio - 1):+.2f}"
    return f"{text} ± {100 * error:.2f} %" if error is not None and np.isfinite(error) else f"{text} %"


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
    reach = 1.15 * max(float(np.abs(structure.values).max()), float(2 * np.nan_to_num(errors).max()), 0.05)
    axes.set(ylabel="Δg(r)", xlim=(0, distances[-1]), ylim=(-reach, reach))
    axes.legend(loc="upper right")


def _draw_kinetic_energy(axes: Axes, comparison: Comparison) -> None:
    known = [(observables, style) for observables, style in _both(comparison) if observables.knows_temperature]
    axes.set(xlabel="time (ps)", ylabel="kinetic energy (kJ/mol)", title="Kinetic energy and temperature")
    if not known:  # isokinetic dynamics has none
        return
    trace = known[-1][0].traces[0]
    kelvin_per_kj_mol = float(trace.temperatures[-1] / trace.kinetic_kj_mol[-1])
    # A window of 1/50 of the longest run shows the drift that the noise of single frames would hide.
    longest = max(len(part.times_ps) for observables, _ in known for part in observables.traces)
    window = max(1, longest // 50)
    for observables, style in known:
        for number, part in enumerate(observables.traces):
            label = f"{observables.label}: {observables.temperature.format()} K" if number == 0 else None
            smooth = running_mean(part.kinetic_kj_mol, window)
            axes.plot(part.times_ps, part.kinetic_kj_mol, color=style["color"], linewidth=0.4, alpha=0.25)
            axes.plot(part.times_ps, smooth, label=label, **style)
    axes.axhline(comparison.run.target_temperature / kelvin_per_kj_mol, color=QUIET_COLOR, linewidth=0.6)
    axes.margins(x=0)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.3 * (high - low))
    axes.legend(loc="upper left")
    to_kelvin: Any = lambda energy: energy * kelvin_per_kj_mol  # noqa: E731
    to_energy: Any = lambda kelvin: kelvin / kelvin_per_kj_mol  # noqa: E731
    kelvin_axis = axes.secondary_yaxis("right", functions=(to_kelvin, to_energy))
    kelvin_axis.set_ylabel("temperature (K)")


def _draw_msd(axes: Axes, comparison: Comparison) -> None:
    for observables, style in _both(comparison):
        diffusion = observables.diffusion
        if diffusion is None:
            continue
        coefficient = diffusion.coefficient.value * NM2_PER_PS_IN_1E_9_M2_PER_S
        error = diffusion.coefficient.error * NM2_PER_PS_IN_1E_9_M2_PER_S
        label = f"{observables.label}: D = ({coefficient:.2f} ± {error:.2f})·10⁻⁹ m²/s"
        low, high = diffusion.msd_nm2 - diffusion.msd_error_nm2, diffusion.msd_nm2 + diffusion.msd_error_nm2
        axes.fill_between(diffusion.lags_ps, low, high, color=style["color"], alpha=0.2, linewidth=0)
        axes.plot(diffusion.lags_ps, diffusion.msd_nm2, label=label, **style)
    if comparison.run.diffusion is not None:
        window = comparison.run.diffusion.fit_window_ps
        axes.axvspan(*window, color=QUIET_COLOR, alpha=0.08, linewidth=0, label="range of the straight line")
    of = comparison.run.diffusion_of
    title = "Diffusion" if of == "atoms" else f"Diffusion of {of}"
    axes.set(xlabel="lag (ps)", ylabel="mean squared displacement (nm²)", title=title, ylim=(0, None))
    axes.margins(x=0)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left")


def _both(comparison: Comparison) -> list[tuple[Observables, dict]]:
    """The reference first, as a broad line; the run over it, thin and dashed."""
    return [
        (comparison.reference, {"color": REFERENCE_COLOR, "linewidth": 2.8, "alpha": 0.85}),
        (comparison.run, {"color": RUN_COLOR, "linewidth": 1.5, "dashes": (4, 1.5)}),
    ]


def comparison_table(comparison: Comparison) -> Table:
    """The comparison for the terminal."""
    run, reference = comparison.run, comparison.reference
    headings = ("quantity", run.label, reference.label, "difference")
    table = terminal_table(f"{run.system}, {run.num_atoms} atoms", headings, comparison.rows())
    table.caption = "± is one standard error, from blocks of each run"
    return table
