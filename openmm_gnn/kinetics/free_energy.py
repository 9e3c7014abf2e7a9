"""Free energies along slow variables, and the weights that take the bias out of a biased run.

F(s) = -kT ln p(s), with p the weighted density of the frames, and zero at its lowest bin; errors are from blocks of the
runs. Sources of the weights: the offset c(t): Tiwary and Parrinello, J. Phys. Chem. B 119, 736 (2015), doi
10.1021/jp504920s, eq. 12; the final bias: Branduardi, Bussi, Parrinello, J. Chem. Theory Comput. 8, 2247 (2012), doi
10.1021/ct3002464; OPES: Invernizzi and Parrinello, J. Phys. Chem. Lett. 11, 2731 (2020), arXiv 1909.07250, eq. 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.kinetics.token_trajectories import relative_weights
from openmm_gnn.runs.bias.records import read_bias_meta, read_bias_records, read_hills
from openmm_gnn.runs.directory import RunDirectory
from openmm_gnn.runs.settings import BiasMethod, BiasSettings, BiasWalls

BLOCKS_PER_RUN = 5
"""Blocks of each run that are resampled for the error: frames next to each other are not independent."""


@dataclass(frozen=True)
class FreeEnergyLine:
    """A free energy along one variable."""

    centers: np.ndarray
    """(bins,)"""
    values: np.ndarray
    """(bins,) kJ/mol; NaN in bins without frames."""
    errors: np.ndarray
    """(bins,) kJ/mol, one sigma; NaN where too few bootstrap samples had a frame."""


@dataclass(frozen=True)
class FreeEnergyMap:
    """A free energy over two variables."""

    edges: tuple[np.ndarray, np.ndarray]
    """Edges of the bins along each variable."""
    values: np.ndarray
    """(bins of the first, bins of the second) kJ/mol; NaN in bins without frames."""


def free_energy_line(
    variables: Sequence[np.ndarray],
    temperature: float,
    log_weights: Sequence[np.ndarray] | None = None,
    bins: int = 60,
    draws: int = 100,
    seed: int = 0,
) -> FreeEnergyLine:
    """The free energy along one variable.

    Args:
        variables: (frames,) for each run.
        temperature: K.
        log_weights: (frames,) for each run, of biased frames; any constant may be added to all of them.
        draws: bootstrap samples of the blocks; Efron, Ann. Stat. 7, 1 (1979), doi 10.1214/aos/1176344552.
    Raises:
        DataError: if there are no frames, or one is not finite.
    """
    weights = frame_weights(variables, log_weights)
    edges = _edges(np.concatenate(variables), bins)
    blocks = []
    for values, own in zip(variables, weights, strict=True):
        for rows in np.array_split(np.arange(len(values)), min(BLOCKS_PER_RUN, len(values))):
            blocks.append(np.histogram(values[rows], edges, weights=own[rows])[0])
    counts = np.array(blocks)
    generator = np.random.default_rng(seed)
    drawn = counts[generator.integers(len(counts), size=(draws, len(counts)))].sum(axis=1)
    kt = BOLTZMANN_KJ_MOL_K * temperature
    values = _free_energy(counts.sum(axis=0), kt)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Not shifted to the lowest bin of each sample, whose noise would enter every other bin.
        samples = -kt * np.log(drawn / drawn.sum(axis=1, keepdims=True))
    samples[~np.isfinite(samples)] = np.nan
    enough = np.isfinite(samples).sum(axis=0) > draws / 2
    errors = np.full(bins, np.nan)
    if len(counts) > 1:
        # The samples of n blocks vary by (n - 1) / n of the variance; Efron and Tibshirani (1993), eq. 5.12.
        errors[enough] = np.nanstd(samples[:, enough], axis=0, ddof=1) * np.sqrt(len(counts) / (len(counts) - 1))
    return FreeEnergyLine((edges[1:] + edges[:-1]) / 2, values, errors)


def free_energy_map(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    temperature: float,
    log_weights: Sequence[np.ndarray] | None = None,
    bins: int = 60,
) -> FreeEnergyMap:
    """The free energy over two variables; arguments and errors as of `free_energy_line`."""
    weights = frame_weights(first, log_weights)
    x, y = np.concatenate(first), np.concatenate(second)
    edges = (_edges(x, bins), _edges(y, bins))
    counts, _, _ = np.histogram2d(x, y, edges, weights=np.concatenate(weights))
    return FreeEnergyMap(edges, _free_energy(counts, BOLTZMANN_KJ_MOL_K * temperature))


def frame_weights(variables: Sequence[np.ndarray], log_weights: Sequence[np.ndarray] | None) -> list[np.ndarray]:
    """Weights (frames,) of each run, the largest of all 1.

    Raises:
        DataError: if there are no frames, other numbers of weights than frames, or values that are not finite.
    """
    count = sum(map(len, variables))
    if not count:
        raise DataError("no frames are left for a free energy: give longer runs")
    bad = [number for number, values in enumerate(variables) if not np.isfinite(values).all()]
    if bad:
        raise DataError(f"the slow variable of run {bad[0]} is NaN in some frames: look at its features")
    if log_weights is None:
        return [np.ones(len(values)) for values in variables]
    for number, (values, own) in enumerate(zip(variables, log_weights, strict=True)):
        if len(values) != len(own) or not np.isfinite(own).all():
            raise DataError(
                f"run {number} has {len(values)} frames and {int(np.isfinite(own).sum())} finite weights: weights must "
                "be those of the same frames"
            )
    return relative_weights(log_weights)


def _edges(values: np.ndarray, bins: int) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    margin = 1e-6 * max(high - low, 1e-6)
    return np.linspace(low - margin, high + margin, bins + 1)


def _free_energy(counts: np.ndarray, kt: float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        values = -kt * np.log(counts / counts.max())
    return np.where(np.isfinite(values), values, np.nan)


class Reweighting(str, Enum):
    """The bias that gives a frame its weight."""

    MOMENT = "moment"
    """The bias at the time of the frame; in metadynamics less the offset c(t). OPES has no other."""
    FINAL = "final"
    """The final bias, for metadynamics: the best estimate, although the first frames were made under another."""


def frame_log_weights(
    run: Path | str, steps: np.ndarray | None = None, reweighting: Reweighting | str = Reweighting.MOMENT
) -> np.ndarray:
    """Logarithms of the weights of a biased run's frames, up to a constant, (frames,).

    Args:
        run: directory of `simulate --bias`, finished or not.
        steps: steps of the frames, counted from the start of production, as in an embedding store or the log; None:
            those of the trajectory.
    Raises:
        DataError: if the run was not biased, or a frame has no record.
    """
    meta, records = read_bias_meta(run), read_bias_records(run)
    rows = _rows_of(run, records, _trajectory_steps(run) if steps is None else np.asarray(steps))
    kt = BOLTZMANN_KJ_MOL_K * float(meta["temperature"])
    chosen = records[rows]
    energies = chosen["bias"]
    if BiasMethod(meta["settings"]["method"]) is BiasMethod.METAD:
        if Reweighting(reweighting) is Reweighting.FINAL:
            energies = final_bias(meta, read_hills(run)).energies(chosen["values"])
        else:
            energies = energies - chosen["offset"]
    return np.asarray((energies + chosen["wall"]) / kt)


def final_bias(meta: dict[str, Any], hills: np.ndarray) -> Any:
    """The bias of a run's hills or kernels: a MetadynamicsBias or an OpesBias, without walls.

    Args:
        hills: of `read_hills`.
    """
    settings = BiasSettings.from_record(meta["settings"])
    walls = BiasWalls(**{name: np.array(ends) for name, ends in meta["walls"].items()})
    bias = settings.potential(walls, np.array(meta["widths"]), float(meta["temperature"]))
    for hill in hills:
        bias.widen(hill["least"])
        bias.repeat(hill["values"], float(hill["height"]), hill["widths"])
    return bias


def effective_frames(log_weights: np.ndarray) -> float:
    """The equivalent number of frames of equal weight: (sum w)^2 / sum w^2; Kish, Survey Sampling (1965)."""
    weights = np.exp(log_weights - log_weights.max())
    return float(weights.sum() ** 2 / np.square(weights).sum())


def reweighted_free_energy(
    run: Path | str,
    observable: np.ndarray,
    bins: int = 60,
    skip: float = 0.1,
    steps: np.ndarray | None = None,
    reweighting: Reweighting | str = Reweighting.MOMENT,
) -> FreeEnergyLine:
    """The unbiased free energy along any observable of a biased run's frames.

    Errors are from blocks; those of metadynamics hold what the bias still changes by in the second half, too.

    Args:
        observable: (frames,) one number per frame, in the order of the trajectory or of `steps`.
        skip: share of the run to leave out at its beginning, where the bias still changes fast.
    Raises:
        DataError: as for `frame_log_weights`, or if the observable has another number of frames.
    """
    steps = _trajectory_steps(run) if steps is None else steps
    log_weights = frame_log_weights(run, steps, reweighting)
    if len(observable) != len(log_weights):
        raise DataError(f"{len(observable)} values came for the {len(log_weights)} frames of {run}: give one for each")
    first = int(skip * len(log_weights))
    meta = read_bias_meta(run)
    chosen = np.asarray(observable)[first:]
    line = free_energy_line([chosen], float(meta["temperature"]), [log_weights[first:]], bins)
    drift = bias_drift(run, steps)
    if drift is None:
        return line
    drifts = np.abs(drift)[first:]
    edges = _edges(chosen, bins)
    counts, sums = (np.histogram(chosen, edges, weights=own)[0] for own in (np.ones(len(chosen)), drifts))
    of_bins = np.divide(sums, counts, out=np.zeros(bins), where=counts > 0)
    return replace(line, errors=np.hypot(line.errors, of_bins))


def bias_drift(run: Path | str, steps: np.ndarray | None = None) -> np.ndarray | None:
    """Change of metadynamics' bias in the second half of a run, where its frames are, less its mean over them.

    The weights of metadynamics take the bias for converged: where it still grows or sinks, the free energy of a frame
    is unknown by about as much, and blocks of the run cannot show it.

    Args:
        steps: as for `frame_log_weights`.
    Returns:
        (frames,) kJ/mol; None for OPES, whose weights are those of the moment.
    Raises:
        DataError: as for `frame_log_weights`.
    """
    meta, records = read_bias_meta(run), read_bias_records(run)
    if BiasMethod(meta["settings"]["method"]) is not BiasMethod.METAD:
        return None
    rows = _rows_of(run, records, _trajectory_steps(run) if steps is None else np.asarray(steps))
    values = records["values"][rows]
    hills = read_hills(run)
    middle = hills[hills["step"] <= records["step"][-1] / 2]
    change = final_bias(meta, hills).energies(values) - final_bias(meta, middle).energies(values)
    return np.asarray(change - change.mean())


def _rows_of(run: Path | str, records: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """(frames,) the record of each step."""
    rows = np.searchsorted(records["step"], steps)
    found = rows < len(records)
    found[found] = records["step"][rows[found]] == steps[found]
    if not found.all():
        raise DataError(
            f"{run} has no record of the bias at step {int(steps[~found][0])}, nor at {int((~found).sum()) - 1} other "
            "frames: give frames that the run itself wrote, by --stride or --features"
        )
    return rows


def _trajectory_steps(run: Path | str) -> np.ndarray:
    directory = RunDirectory(run)
    count = len(directory.read_positions()[0]) if directory.trajectory.exists() else 0
    return directory.settings().report_interval * np.arange(1, count + 1)
