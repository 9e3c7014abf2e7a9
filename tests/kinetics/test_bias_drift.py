"""Errors of metadynamics' free energies hold what the bias has not settled: a particle in a known double well."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.growing_array import GrowingArray
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.kinetics.free_energy import bias_drift, frame_log_weights, free_energy_line, reweighted_free_energy
from openmm_gnn.runs.bias.records import FOLDER, META, RECORDS, VERSION, record_fields
from openmm_gnn.runs.settings import BiasMethod, BiasSettings, BiasWalls

TEMPERATURE, BARRIER, WIDTH = 300.0, 12.0, 0.15
KT = BOLTZMANN_KJ_MOL_K * TEMPERATURE
STRIDE, FRAMES, KICK = 20, 5, 0.05
SETTINGS = BiasSettings(BiasMethod.METAD, stride=STRIDE, width=(WIDTH,))


def well(x: np.ndarray) -> np.ndarray:
    return np.asarray(BARRIER * (x**2 - 1) ** 2)


def walk(run: Path, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A Brownian particle under growing hills, recorded as a run; steps and places of its frames."""
    walls = BiasWalls(np.array([-2.0]), np.array([2.0]), np.array([0.4]))
    bias = SETTINGS.potential(walls, np.array([WIDTH]), TEMPERATURE)
    (run / FOLDER).mkdir(parents=True)
    ends = {"lower": [-2.0], "upper": [2.0], "reach": [0.4]}
    meta = {"version": VERSION, "settings": SETTINGS.to_record(), "temperature": TEMPERATURE, "walls": ends}
    (run / FOLDER / META).write_text(json.dumps({**meta, "widths": [WIDTH]}))
    writer = GrowingArray.open(run / FOLDER / RECORDS, record_fields(1), anew=True)
    records = writer.empty_records(steps // FRAMES)
    x, kicks = np.array([-1.0]), KICK * np.random.default_rng(seed).normal(size=steps)
    for step in range(1, steps + 1):
        slope = 4 * BARRIER * x * (x**2 - 1) + bias.value_and_gradient(x)[1]
        x = x - KICK**2 / (2 * KT) * slope + kicks[step - 1]
        if step % FRAMES == 0:
            record = records[step // FRAMES - 1 : step // FRAMES]
            record["step"], record["values"], record["bias"] = step, x, bias.value_and_gradient(x)[0]
            record["offset"], record["height"] = bias.offset(), np.nan
            if step % STRIDE == 0:
                record["height"], record["widths"] = bias.deposit(x)
    writer.append(records)
    writer.close()
    return records["step"].copy(), records["values"][:, 0].copy()


def test_errors_with_the_drift_cover_the_truth_of_short_runs(tmp_path: Path) -> None:
    """Bins below the barrier within two errors, over ten runs in which the particle crosses it once or twice."""
    shares = []
    for seed in range(10):
        run = tmp_path / str(seed)
        steps, places = walk(run, 4000, seed)
        line = reweighted_free_energy(run, places, bins=16, skip=0.1, steps=steps)
        skipped = len(places) // 10
        blocks = free_energy_line([places[skipped:]], TEMPERATURE, [frame_log_weights(run, steps)[skipped:]], 16)
        np.testing.assert_array_equal(line.values, blocks.values)
        truth = well(line.centers)
        seen = np.isfinite(line.values) & np.isfinite(line.errors) & (truth < BARRIER)
        away = line.values[seen] - truth[seen]
        away -= np.average(away, weights=np.exp(-truth[seen] / KT))
        shares.append([np.mean(np.abs(away) < 2 * errors[seen]) for errors in (blocks.errors, line.errors)])
    alone, together = np.mean(shares, axis=0)
    assert together > max(0.8, alone)  # seen: 0.81 and 0.89, with a deviation of 0.06 over the runs


def test_the_drift_sinks_as_the_bias_settles(tmp_path: Path) -> None:
    sizes = []
    for steps in (2000, 16000):
        times, _ = walk(tmp_path / str(steps), steps, 1)
        drift = bias_drift(tmp_path / str(steps), times)
        assert drift is not None and drift.mean() == pytest.approx(0.0, abs=1e-9)
        sizes.append(drift.std())
    assert sizes[1] < 0.8 * sizes[0]  # seen: 4.6 and 2.5 kJ/mol
    with pytest.raises(DataError, match="no record of the bias at step 7"):
        bias_drift(tmp_path / "2000", np.array([7]))
