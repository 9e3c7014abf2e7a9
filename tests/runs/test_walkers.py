"""Walkers that share one bias through a directory: whose hills each has, after kills too, and their free energies."""

from __future__ import annotations

import json
import multiprocessing
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killed_processes import KilledCalls
from learned_cvs import chain, untrained_cv

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.growing_array import GrowingArray, read_growing_array
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.features.learned_cv import save_learned_cv
from openmm_gnn.kinetics.free_energy import final_bias, frame_log_weights, free_energy_line
from openmm_gnn.md.run_settings import ComputeSettings, RunCourse
from openmm_gnn.md.simulation_system import Thermostat
from openmm_gnn.runs.bias.records import (
    FOLDER,
    HILLS,
    META,
    RECORDS,
    VERSION,
    read_bias_meta,
    read_bias_records,
    read_hills,
    record_fields,
)
from openmm_gnn.runs.bias.walkers import Walker, WalkerGroup
from openmm_gnn.runs.directory import RunDirectory
from openmm_gnn.runs.settings import BiasMethod, BiasSettings, BiasWalls
from openmm_gnn.runs.simulate import simulate

COURSE = RunCourse(
    steps=60,
    equilibration_steps=20,
    report_interval=10,
    checkpoint_interval=20,
    time_step_ps=0.001,
    temperature=300.0,
    thermostat=Thermostat.LANGEVIN,
    friction_per_ps=1.0,
    seed=1,
)
OPES = BiasSettings(stride=5, barrier=15.0)


@pytest.fixture(scope="module")
def cv_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_learned_cv(untrained_cv(chain()), tmp_path_factory.mktemp("cv") / "cv.safetensors")


def run(path: Path, cv: Path, course: RunCourse, bias: BiasSettings) -> Path:
    simulate(chain(), path, course, compute=ComputeSettings("Reference"), bias_cv=cv, bias=bias)
    return path


def by_walker(hills: np.ndarray) -> dict[bytes, list[int]]:
    """Steps of the hills of each walker, in order."""
    return {name: hills["step"][hills["walker"] == name].tolist() for name in np.unique(hills["walker"])}


def published(group: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.array(read_growing_array(path, verify=True)) for path in group.glob("*.npy")}


def contents(hills: np.ndarray) -> list[tuple[Any, ...]]:
    """Hills without the step at which they came, in an order of their own."""
    return sorted((hill["walker"], *hill["values"], hill["height"], *hill["widths"]) for hill in hills)


def test_each_walker_adds_the_hills_of_all_and_goes_the_same_way_again(tmp_path: Path, cv_path: Path) -> None:
    """Two turns of each; then the first goes back to a checkpoint, as after a kill, while the second is ahead."""
    bias = replace(OPES, walkers=tmp_path / "shared")
    first = run(tmp_path / "first", cv_path, COURSE, bias)
    second = run(tmp_path / "second", cv_path, replace(COURSE, seed=2), bias)
    checkpoint = RunDirectory(first).checkpoint.read_bytes()
    run(first, cv_path, replace(COURSE, steps=120), bias)
    before, trajectory = read_bias_records(first), RunDirectory(first).trajectory.read_bytes()
    run(second, cv_path, replace(COURSE, seed=2, steps=120), bias)
    # The first one has read what the second had made of its first 60 steps.
    assert sorted(len(steps) for steps in by_walker(read_hills(first)).values()) == [12, 24]
    assert contents(read_hills(second)) == contents(np.concatenate(list(published(tmp_path / "shared").values())))

    RunDirectory(first).checkpoint.write_bytes(checkpoint)
    run(first, cv_path, replace(COURSE, steps=120), bias)
    again = read_bias_records(first)
    for name in again.dtype.names or ():
        np.testing.assert_array_equal(again[name], before[name])  # to the last bit
    assert RunDirectory(first).trajectory.read_bytes() == trajectory
    # At its last step it has read on, and has no hill twice.
    hills = published(tmp_path / "shared")
    assert {tuple(one["step"]) for one in hills.values()} == {tuple(range(5, 121, 5))}
    assert contents(read_hills(first)) == contents(np.concatenate(list(hills.values())))
    earlier = read_hills(first)[read_hills(first)["step"] < 120]
    rebuilt = final_bias(read_bias_meta(first), earlier)
    assert rebuilt.value_and_gradient(again["values"][-1])[0] == again["bias"][-1]
    assert len(frame_log_weights(first)) == 12


def test_a_killed_walker_has_no_hill_twice_and_reads_on(tmp_path: Path, cv_path: Path) -> None:
    bias, killed = replace(OPES, walkers=tmp_path / "shared"), RunDirectory(tmp_path / "killed")
    other = run(tmp_path / "other", cv_path, replace(COURSE, seed=2), bias)
    with KilledCalls(run, killed.path, cv_path, replace(COURSE, steps=100_000_000), bias) as calls:
        # Behind four hills of its own and twelve of the other one, 120 bytes each.
        calls.kill_one(random.Random(3).uniform(0, 0.3), killed.path / FOLDER / HILLS, 640 + 16 * 120)
    run(other, cv_path, replace(COURSE, seed=2, steps=80), bias)
    end = int(read_bias_records(killed.path)["step"][-1]) // 10 * 10 + 60
    run(killed.path, cv_path, replace(COURSE, steps=end), bias)
    hills, of_all = read_hills(killed.path), published(tmp_path / "shared")
    own, theirs = sorted(by_walker(hills))
    assert own.startswith(b"killed") and theirs.startswith(b"other")
    assert by_walker(hills)[own] == list(range(5, end + 1, 5))
    for name in (own, theirs):
        assert contents(hills[hills["walker"] == name]) == contents(of_all[name.decode()])


def test_walkers_with_other_settings_are_refused_and_named(tmp_path: Path, cv_path: Path) -> None:
    bias = replace(OPES, walkers=tmp_path / "shared")
    first = run(tmp_path / "first", cv_path, COURSE, bias)
    words = r"settings.barrier_kj_mol: 15.0 there, 20.0 here; temperature: 300.0 there, 310.0 here.*another directory"
    with pytest.raises(SpecError, match=words):
        run(tmp_path / "second", cv_path, replace(COURSE, temperature=310.0), replace(bias, barrier=20.0))
    other = save_learned_cv(untrained_cv(chain(), 3), tmp_path / "other.safetensors")
    with pytest.raises(SpecError, match="cv: '[0-9a-f]+' there"):
        run(tmp_path / "second", other, COURSE, bias)
    assert not (tmp_path / "second" / "run.json").exists()
    with pytest.raises(SpecError, match=r"bias.walkers: '[0-9a-f]{8}' stored, None given"):
        run(first, cv_path, COURSE, replace(bias, walkers=None))


# ---- a particle in a known double well, in two processes -------------------------------------------------------------

TEMPERATURE, BARRIER, WIDTH, STRIDE, FRAMES, KICK = 300.0, 10.0, 0.15, 20, 5, 0.05
KT = BOLTZMANN_KJ_MOL_K * TEMPERATURE
STEPS = 8000
WELLS = {
    "opes": BiasSettings(stride=STRIDE, barrier=12.0, width=(WIDTH,)),
    "metad": BiasSettings(BiasMethod.METAD, stride=STRIDE, width=(WIDTH,)),
}


def walk(run: Path, shared: Path, method: str, start: float) -> None:
    """A Brownian particle under a bias that another process builds, too, recorded as a run."""
    settings = WELLS[method]
    walls = BiasWalls(np.array([-2.0]), np.array([2.0]), np.array([0.4]))
    bias = settings.potential(walls, np.array([WIDTH]), TEMPERATURE)
    (run / FOLDER).mkdir(parents=True)
    ends = {"lower": [-2.0], "upper": [2.0], "reach": [0.4]}
    meta = {"version": VERSION, "settings": settings.to_record(), "temperature": TEMPERATURE, "walls": ends}
    (run / FOLDER / META).write_text(json.dumps({**meta, "widths": [WIDTH]}))
    writer = GrowingArray.open(run / FOLDER / RECORDS, record_fields(1))
    walker = Walker(WalkerGroup(shared, settings.to_record()), run.name, run / FOLDER, 1)
    x, kicks = np.array([start]), KICK * np.random.default_rng(int(start) + 5).normal(size=STEPS)
    for step in range(1, STEPS + 1):
        slope = 4 * BARRIER * x * (x**2 - 1) + bias.value_and_gradient(x)[1]
        x = x - KICK**2 / (2 * KT) * slope + kicks[step - 1]
        if step % FRAMES == 0:
            record = writer.empty_records(1)
            record["step"], record["values"], record["bias"] = step, x, bias.value_and_gradient(x)[0]
            record["offset"], record["height"] = bias.offset(), np.nan
            if step % STRIDE == 0:
                height, widths = bias.deposit(x)
                record["height"], record["widths"] = height, widths
                walker.publish(step, x, height, widths)
                for hill in walker.others_at(step):
                    bias.repeat(hill["values"], float(hill["height"]), hill["widths"])
            writer.append(record)
    writer.close()
    walker.close()


@pytest.mark.parametrize("method", WELLS)
def test_two_processes_find_the_free_energy_of_a_double_well(tmp_path: Path, method: str) -> None:
    """Each starts in its own well; the frames of both, weighed with the bias that they share."""
    runs = [tmp_path / "left", tmp_path / "right"]
    processes = [
        multiprocessing.get_context("fork").Process(target=walk, args=(path, tmp_path / "shared", method, start))
        for path, start in zip(runs, (-1.0, 1.0), strict=True)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    places, weights = [], []
    for path in runs:
        records, hills = read_bias_records(path), read_hills(path)
        counts = {name: len(steps) for name, steps in by_walker(hills).items()}
        assert counts[path.name.encode()] == STEPS // STRIDE and min(counts.values()) > STEPS // STRIDE // 4
        kept = records["step"] > STEPS // 10
        places.append(records["values"][kept, 0])
        weights.append(frame_log_weights(path, records["step"][kept]))
    line = free_energy_line(places, TEMPERATURE, weights, bins=24)
    truth = BARRIER * (line.centers**2 - 1) ** 2
    seen = np.isfinite(line.values) & (truth < BARRIER + 1)
    away = line.values[seen] - truth[seen]
    away -= np.average(away, weights=np.exp(-truth[seen] / KT))
    assert seen.sum() >= 15
    assert np.sqrt(np.mean(away**2)) < 1.5
