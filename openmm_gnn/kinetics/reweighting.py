"""Weights that take the bias out of a biased run, and free energies with them.

Sources: the offset c(t): Tiwary and Parrinello, J. Phys. Chem. B 119, 736 (2015), doi 10.1021/jp504920s, eq. 12; the
final bias: Branduardi, Bussi, Parrinello, J. Chem. Theory Comput. 8, 2247 (2012), doi 10.1021/ct3002464; OPES:
Invernizzi and Parrinello, J. Phys. Chem. Lett. 11, 2731 (2020), arXiv 1909.07250, eq. 2.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.kinetics.free_energy import FreeEnergyLine, free_energy_line
from openmm_gnn.runs.bias.records import read_bias_meta, read_bias_records
from openmm_gnn.runs.bias.walls import BiasWalls
from openmm_gnn.runs.directory import RunDirectory
from openmm_gnn.runs.settings import BiasMethod, BiasSettings


class Reweighting(str, Enum):
    """The bias that gives a frame its weight."""

    MOMENT = "moment"
    """The bias at the time of the frame; in metadynamics less the offset c(t). OPES has no other."""
    FINAL = "final"
    """The final bias, for metadynamics: the best estimate, although the first frames were made under another."""


def frame_log_weights(
    run: Path | str,
    steps: np.ndarray | None = None,
    reweighting: Reweighting | str = Reweighting.MOMENT,
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
    wanted = _trajectory_steps(run) if steps is None else np.asarray(steps)
    rows = np.searchsorted(records["step"], wanted)
    found = rows < len(records)
    found[found] = records["step"][rows[found]] == wanted[found]
    if not found.all():
        raise DataError(
            f"{run} has no record of the bias at step {int(wanted[~found][0])}, nor at {int((~found).sum()) - 1} other "
            "frames: give frames that the run itself wrote, by --stride or --features"
        )
    kt = BOLTZMANN_KJ_MOL_K * float(meta["temperature"])
    chosen = records[rows]
    energies = chosen["bias"]
    if BiasMethod(meta["settings"]["method"]) is BiasMethod.METAD:
        if Reweighting(reweighting) is Reweighting.FINAL:
            energies = final_bias(meta, records).energies(chosen["values"])
        else:
            energies = energies - chosen["offset"]
    return np.asarray((energies + chosen["wall"]) / kt)


def final_bias(meta: dict[str, Any], records: np.ndarray) -> Any:
    """The bias that a run's records build: a MetadynamicsBias or an OpesBias, without walls."""
    settings = BiasSettings.from_record(meta["settings"])
    walls = BiasWalls(**{name: np.array(ends) for name, ends in meta["walls"].items()})
    bias = settings.potential(walls, np.array(meta["widths"]), float(meta["temperature"]))
    for record in records[np.isfinite(records["height"])]:
        bias.repeat(record["values"], float(record["height"]))
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
    """The unbiased free energy along any observable of a biased run's frames, with errors from blocks.

    Args:
        observable: (frames,) one number per frame, in the order of the trajectory or of `steps`.
        skip: share of the run to leave out at its beginning, where the bias still changes fast.
    Raises:
        DataError: as for `frame_log_weights`, or if the observable has another number of frames.
    """
    log_weights = frame_log_weights(run, steps, reweighting)
    if len(observable) != len(log_weights):
        raise DataError(f"{len(observable)} values came for the {len(log_weights)} frames of {run}: give one for each")
    first = int(skip * len(log_weights))
    temperature = float(read_bias_meta(run)["temperature"])
    return free_energy_line([np.asarray(observable)[first:]], temperature, [log_weights[first:]], bins)


def _trajectory_steps(run: Path | str) -> np.ndarray:
    directory = RunDirectory(run)
    count = len(directory.read_positions()[0]) if directory.trajectory.exists() else 0
    return directory.settings().report_interval * np.arange(1, count + 1)
