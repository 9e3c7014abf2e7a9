"""Training: it learns held-out forces, and a run killed at any moment goes on as if nothing had happened."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest
import torch
from argon_frames import NUM_ATOMS, MemoryTrajectory, lennard_jones_trajectory
from killed_processes import KilledCalls

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.specs.force import Decoder, GAMDSpec, NeighborSpec
from openmm_gnn.learning.settings import TrainingSettings
from openmm_gnn.learning.training.force_matching import train_on_frames
from openmm_gnn.learning.training.frames import FrameDataset
from openmm_gnn.networks.force_model import PairList
from openmm_gnn.networks.weights import load_model

CUTOFF = 0.75


def make_spec(decoder: Decoder = Decoder.PAIR, width: int = 16) -> GAMDSpec:
    return GAMDSpec(
        NeighborSpec(CUTOFF),
        (18,),
        decoder=decoder,
        width=width,
        num_layers=1,
        num_radial=24,
        min_distance=0.25,
        envelope_exponent=12,
        force_scale=40.0,
    )


def dataset(*trajectories: MemoryTrajectory, rotate: bool = False) -> FrameDataset:
    species = torch.zeros(NUM_ATOMS, dtype=torch.int64)
    return FrameDataset(trajectories, range(NUM_ATOMS), species, None, CUTOFF, rotate=rotate)


@pytest.fixture(scope="module")
def trajectories() -> list[MemoryTrajectory]:
    return [lennard_jones_trajectory(seed=seed, num_frames=60) for seed in (1, 2)]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def rows_of(directory: Path) -> list[dict[str, str]]:
    with open(directory / "log.csv") as file:
        return list(csv.DictReader(file))


def test_forces_of_another_trajectory_are_learned(trajectories: list[MemoryTrajectory], tmp_path: Path) -> None:
    settings = TrainingSettings(num_steps=240, batch_size=2, learning_rate=5e-3, warmup_steps=20, validate_every=80)
    bundle = train_on_frames(
        make_spec(), dataset(trajectories[0]), dataset(trajectories[1]), settings, tmp_path / "run", progress=False
    )
    errors = [float(row["validation_relative_error"]) for row in rows_of(tmp_path / "run")]
    assert [int(row["step"]) for row in rows_of(tmp_path / "run")] == [80, 160, 240]
    assert errors[-1] < 0.12 < 0.5 * errors[0] + 0.1  # untrained: about 0.5; chance cannot do this
    assert load_model(bundle).spec == make_spec()


def test_the_bundle_is_the_best_and_not_the_last(trajectories: list[MemoryTrajectory], tmp_path: Path) -> None:
    settings = TrainingSettings(num_steps=30, batch_size=1, learning_rate=0.5, warmup_steps=1, validate_every=5)
    bundle = train_on_frames(
        make_spec(), dataset(trajectories[0]), dataset(trajectories[1]), settings, tmp_path / "run", progress=False
    )
    best = min(float(row["validation_mae"]) for row in rows_of(tmp_path / "run"))
    from openmm_gnn.learning.training.frames import ForceErrorMeter

    model, meter, frames = load_model(bundle), ForceErrorMeter(), dataset(trajectories[1])
    with torch.no_grad():
        for index in range(len(frames)):
            frame = frames[index]
            near = PairList(frame.pairs, frame.vectors, frame.distances)
            meter.add(model(frame.species, near), frame.forces)
    assert meter.errors().mae == pytest.approx(best, rel=1e-4)


def test_empty_data_and_another_networks_directory_are_refused(
    trajectories: list[MemoryTrajectory], tmp_path: Path
) -> None:
    settings = TrainingSettings(num_steps=2, batch_size=1, validate_every=1)
    with pytest.raises(DataError, match="validation set has no frames"):
        train_on_frames(make_spec(), dataset(trajectories[0]), dataset(), settings, tmp_path / "empty", progress=False)
    short = MemoryTrajectory(*(array[:2] for array in vars(trajectories[0]).values()))
    train_on_frames(make_spec(), dataset(short), dataset(short), settings, tmp_path / "run", progress=False)
    longer = TrainingSettings(num_steps=4, batch_size=1, validate_every=1)
    with pytest.raises(DataError, match="another network"):
        train_on_frames(make_spec(width=8), dataset(short), dataset(short), longer, tmp_path / "run", progress=False)


def _run(trajectory: MemoryTrajectory, directory: Path, num_steps: int) -> None:
    torch.set_num_threads(1)
    settings = TrainingSettings(num_steps=num_steps, batch_size=1, warmup_steps=5, validate_every=10)
    train_on_frames(make_spec(width=8), dataset(trajectory), dataset(trajectory), settings, directory, progress=False)


@pytest.mark.slow
def test_a_run_killed_at_random_moments_loses_no_row_and_repeats_none(
    trajectories: list[MemoryTrajectory], tmp_path: Path
) -> None:
    short = MemoryTrajectory(*(array[:6] for array in vars(trajectories[0]).values()))
    directory, chance, last_step = tmp_path / "run", random.Random(0), 0
    with KilledCalls(_run, short, directory, 1_000_000) as calls:
        for kill in range(10):  # what goes wrong in one moment of four is missed in 6 % of the runs of this test
            calls.kill_one(chance.uniform(0.0, 0.3), directory / "last.ckpt" if kill % 2 else None)
            if (directory / "last.ckpt").exists():
                step = torch.load(directory / "last.ckpt", weights_only=True)["global_step"]
                assert last_step <= step
                assert step % 10 == 0
                last_step = step
            if (directory / "model.safetensors").exists():
                load_model(directory / "model.safetensors")
    final = last_step + 50
    _run(short, directory, final)
    assert [int(row["step"]) for row in rows_of(directory)] == list(range(10, final + 1, 10))
