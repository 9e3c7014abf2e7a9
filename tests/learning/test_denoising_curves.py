"""What TensorBoard shows of a pretraining: each step once, however often the run was killed."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec
from openmm_gnn.data.conformers.conformers import make_conformations
from openmm_gnn.data.conformers.settings import PeptideSettings
from openmm_gnn.learning.pretraining.denoising import pretrain_on_molecules
from openmm_gnn.learning.pretraining.noisy_frames import MoleculeFrames
from openmm_gnn.learning.settings import DenoisingSettings
from openmm_gnn.learning.step_order import StepOrder

SPEC = EncoderSpec(
    Architecture.TORCHMD_ET,
    num_layers=1,
    cutoff=4.0,
    width=8,
    num_radial=8,
    num_heads=2,
    max_atomic_number=16,
    noise_scale=0.2,
)


def points_of(directory: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(directory / "tensorboard"))
    events.Reload()
    return {name: [(point.step, point.value) for point in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_a_resumed_run_shows_every_step_once(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    made = PeptideSettings(longest=3, temperatures=(300.0,), frames=4, interval_ps=0.1)
    split = make_conformations(tmp_path / "data", 4, made, processes=1, progress=False).split(4)
    settings = DenoisingSettings(num_steps=20, batch_size=3, validate_every=20, warmup_steps=1, seed=3)
    pretrain_on_molecules(SPEC, *split, settings, tmp_path, progress=False)
    kept = tmp_path / "kept.ckpt"
    shutil.copy(tmp_path / "last.ckpt", kept)
    for _ in range(2):  # the first of them killed, as it were, before it could write its checkpoint
        shutil.copy(kept, tmp_path / "last.ckpt")
        pretrain_on_molecules(SPEC, *split, dataclasses.replace(settings, num_steps=40), tmp_path, progress=False)
    points = points_of(tmp_path)
    assert len(list((tmp_path / "tensorboard").glob("events*"))) == 3
    for name in ("error/train", "learning_rate", "throughput/atoms_per_s", "throughput/molecules_per_s"):
        assert [step for step, _ in points[name]] == [10, 20, 30, 40], name
    assert [step for step, _ in points["error/validation"]] == [20, 40]
    with open(tmp_path / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["validation_error"]) for row in rows] == pytest.approx(
        [value for _, value in points["error/validation"]], rel=1e-5
    )
    assert float(rows[-1]["train_error"]) == pytest.approx(points["error/train"][-1][1], rel=1e-5)
    frames = MoleculeFrames(split.training, False, "angstrom")
    order = StepOrder(len(frames), 3, 20, seed=3)
    atoms = np.mean([frames.sizes[order.frames_of(step)] for step in range(30, 40)])
    last = {name: values[-1][1] for name, values in points.items()}
    assert last["throughput/atoms_per_s"] / last["throughput/molecules_per_s"] == pytest.approx(atoms, rel=1e-5)
