"""A run beside its reference: structure, temperature and diffusion of both, and the figures of their difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from openmm_gnn.analysis.diffusion import NM2_PER_PS_IN_1E_9_M2_PER_S, Diffusion, self_diffusion
from openmm_gnn.analysis.statistics import Estimate, block_means
from openmm_gnn.analysis.structure import RadialDistribution, radial_distribution
from openmm_gnn.errors import DataError
from openmm_gnn.simulation.run_directory import RunDirectory


@dataclass(frozen=True)
class Trace:
    """The kinetic energy of one run in the course of time."""

    times_ps: np.ndarray
    kinetic_kj_mol: np.ndarray
    temperatures: np.ndarray


@dataclass(frozen=True)
class Observables:
    """What one run, or several runs of the same kind, say about a system."""

    label: str
    system: str
    num_atoms: int
    simulated_ps: float
    rdf: RadialDistribution
    temperature: Estimate
    target_temperature: float
    traces: list[Trace]
    diffusion: Diffusion


@dataclass(frozen=True)
class Comparison:
    """A run and its reference."""

    run: Observables
    reference: Observables

    @property
    def rdf_difference(self) -> np.ndarray:
        """(bins,) g of the run minus g of the reference."""
        return self.run.rdf.values - self.reference.rdf.values

    @property
    def rdf_difference_errors(self) -> np.ndarray:
        """(bins,) standard error of the difference: what sampling alone would make of it."""
        return np.hypot(self.run.rdf.errors, self.reference.rdf.errors)

    @property
    def largest_difference(self) -> Estimate:
        """The largest |g - g_ref|, with the sampling error at that distance."""
        return Estimate(
            float(np.abs(self.rdf_difference).max()), float(self.rdf_difference_errors[self._largest_difference_bin])
        )

    @property
    def largest_difference_at_nm(self) -> float:
        return float(self.run.rdf.distances_nm[self._largest_difference_bin])

    @property
    def _largest_difference_bin(self) -> int:
        return int(np.abs(self.rdf_difference).argmax())

    @property
    def peak_position_ratio(self) -> float:
        return self.run.rdf.first_peak()[0] / self.reference.rdf.first_peak()[0]

    @property
    def peak_height_ratio(self) -> float:
        return self.run.rdf.first_peak()[1] / self.reference.rdf.first_peak()[1]

    @property
    def temperature_ratio(self) -> Estimate:
        return self.run.temperature.ratio(self.reference.temperature)

    @property
    def diffusion_ratio(self) -> Estimate:
        return self.run.diffusion.coefficient.ratio(self.reference.diffusion.coefficient)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Quantity, value of the run, value of the reference, agreement; for tables."""
        run, reference = self.run, self.reference
        (peak, height), (reference_peak, reference_height) = run.rdf.first_peak(), reference.rdf.first_peak()
        diffusion, reference_diffusion = _usual(run.diffusion.coefficient), _usual(reference.diffusion.coefficient)
        largest = f"{self.largest_difference.format(3)} at {self.largest_difference_at_nm:.3f} nm"
        temperatures, ratio = self.temperature_ratio, self.diffusion_ratio
        return [
            ("simulated (ps)", f"{run.simulated_ps:.0f}", f"{reference.simulated_ps:.0f}", ""),
            ("largest |Δg(r)|", "", "", largest),
            ("g(r) peak at (nm)", f"{peak:.4f}", f"{reference_peak:.4f}", _percent(self.peak_position_ratio)),
            ("g(r) peak height", f"{height:.3f}", f"{reference_height:.3f}", _percent(self.peak_height_ratio)),
            (
                "temperature (K)",
                run.temperature.format(),
                reference.temperature.format(),
                _percent(temperatures.value, temperatures.error),
            ),
            (
                "diffusion (10⁻⁹ m²/s)",
                diffusion.format(),
                reference_diffusion.format(),
                _percent(ratio.value, ratio.error),
            ),
        ]


def compare(run: Path | str, reference: Path | str, selection: str = "all") -> Comparison:
    """Compare two runs of one system; each may be a run's directory, or a directory of runs, which are pooled.

    Args:
        selection: the atoms of g(r) and diffusion, in mdtraj's language: "element O", "name CA".
    Raises:
        DataError: if the runs are not of the same box and atoms, or too short.
    """
    segment_ps = min(shortest_run_ps(run), shortest_run_ps(reference)) / 5
    first, second = observe(run, selection, segment_ps), observe(reference, selection, segment_ps)
    if first.num_atoms != second.num_atoms:
        raise DataError(f"{run} holds {first.num_atoms} atoms, {reference} {second.num_atoms}: not the same system")
    if not np.allclose(first.rdf.edges_nm[-1], second.rdf.edges_nm[-1], rtol=1e-3):
        raise DataError(
            f"half the box is {first.rdf.edges_nm[-1]:.4f} nm in {run} and {second.rdf.edges_nm[-1]:.4f} nm in "
            f"{reference}: compare runs of one box"
        )
    if first.label == second.label:
        first, second = (
            replace(observables, label=f"{observables.label} {Path(path).name}")
            for observables, path in ((first, run), (second, reference))
        )
    return Comparison(first, second)


def shortest_run_ps(path: Path | str) -> float:
    """The length of a run, or of the shortest in a directory of runs."""
    return min(len(run.read_log()) * run.settings().frame_interval_ps for run in runs_in(Path(path)))


def observe(path: Path | str, selection: str = "all", segment_ps: float | None = None) -> Observables:
    """Structure, temperature and diffusion of a run, or of all runs in a directory.

    Args:
        selection: the atoms of g(r) and diffusion, in mdtraj's language.
        segment_ps: length of the segments that diffusion is measured in, see `self_diffusion`.
    Raises:
        DataError: if there is no run, runs differ in system, forces or frame interval, or one is too short.
    """
    runs = runs_in(Path(path))
    kinds = {_kind(run) for run in runs}
    if len(kinds) > 1:
        raise DataError(f"{path} holds runs of different kinds, which cannot be pooled: {sorted(kinds)}")
    settings = runs[0].settings()
    masses, atoms = _masses_and_atoms(runs[0], selection)
    trajectories, boxes, traces = [], [], []
    for run in runs:
        positions, box_vectors = run.read_positions()
        if box_vectors is None:
            raise DataError(f"{run.path} has no periodic box: g(r) and diffusion are compared in one")
        log = run.read_log()
        trajectories.append(positions)
        boxes.append(box_vectors)
        traces.append(Trace(log["time_ps"], log["kinetic_kj_mol"], log["temperature_K"]))
    return Observables(
        label=_label(runs[0]),
        system=runs[0].identity()["system"]["name"],
        num_atoms=len(masses),
        simulated_ps=sum(map(len, trajectories)) * settings.frame_interval_ps,
        rdf=_pooled_rdf(trajectories, boxes, atoms),
        temperature=_pooled_mean([trace.temperatures for trace in traces]),
        target_temperature=settings.temperature,
        traces=traces,
        diffusion=self_diffusion(trajectories, settings.frame_interval_ps, masses, atoms, segment_ps),
    )


def runs_in(path: Path) -> list[RunDirectory]:
    """The run of this directory, or those of its sub-directories."""
    if RunDirectory(path).exists:
        return [RunDirectory(path)]
    runs = [RunDirectory(child) for child in sorted(path.iterdir())] if path.is_dir() else []
    runs = [run for run in runs if run.exists]
    if not runs:
        raise DataError(f"{path} is no run and holds none: give a directory that `openmm-gnn simulate` wrote")
    return runs


def _kind(run: RunDirectory) -> str:
    identity, settings = run.identity(), run.settings()
    return (
        f"{identity['system']['hash'][:12]} {_label(run)} {settings.frame_interval_ps:g} ps {settings.temperature:g} K"
    )


def _label(run: RunDirectory) -> str:
    forces = run.identity()["forces"]
    return str(forces["name"]) or ("network" if forces["kind"] == "network" else "reference")


def _masses_and_atoms(run: RunDirectory, selection: str) -> tuple[np.ndarray, np.ndarray]:
    import mdtraj

    topology = mdtraj.load_topology(str(run.topology))
    masses = np.array([atom.element.mass for atom in topology.atoms])
    try:
        atoms = topology.select(selection)
    except ValueError as error:
        raise DataError(f"the selection {selection!r} is not mdtraj's language: {error}") from error
    if len(atoms) < 2:
        raise DataError(f"the selection {selection!r} matches {len(atoms)} atoms: g(r) needs at least 2")
    return masses, atoms


def _pooled_rdf(
    trajectories: Sequence[np.ndarray], boxes: Sequence[np.ndarray], atoms: np.ndarray
) -> RadialDistribution:
    parts = [radial_distribution(positions[:, atoms], box) for positions, box in zip(trajectories, boxes, strict=True)]
    values = np.average([part.values for part in parts], axis=0, weights=[len(frames) for frames in trajectories])
    return RadialDistribution(parts[0].edges_nm, values, np.concatenate([part.blocks for part in parts]))


def _pooled_mean(series: Sequence[np.ndarray]) -> Estimate:
    means = np.concatenate([block_means(values) for values in series])
    return Estimate(float(means.mean()), float(means.std(ddof=1) / np.sqrt(len(means))))


def _usual(coefficient: Estimate) -> Estimate:
    """In 1e-9 m^2/s."""
    return Estimate(coefficient.value * NM2_PER_PS_IN_1E_9_M2_PER_S, coefficient.error * NM2_PER_PS_IN_1E_9_M2_PER_S)


def _percent(ratio: float, error: float | None = None) -> str:
    text = f"{100 * (ratio - 1):+.2f}"
    return f"{text} ± {100 * error:.2f} %" if error is not None else f"{text} %"
