"""Frames and batches: pairs as ASE finds them, batches that keep frames apart, rotations that keep physics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from argon_frames import EDGE, NUM_ATOMS, MemoryTrajectory, lennard_jones_trajectory
from ase.neighborlist import primitive_neighbor_list

from openmm_gnn.base.specs.force import GAMDSpec, NeighborSpec
from openmm_gnn.learning.training.frames import FrameDataset, collate, random_rotation
from openmm_gnn.networks.force_model import PairList
from openmm_gnn.networks.gamd import GAMD

CUTOFF = 0.7


@pytest.fixture(scope="module")
def trajectory() -> MemoryTrajectory:
    return lennard_jones_trajectory(seed=1, num_frames=4)


def dataset(*trajectories: MemoryTrajectory, rotate: bool = False) -> FrameDataset:
    species = torch.zeros(NUM_ATOMS, dtype=torch.int64)
    return FrameDataset(trajectories, range(NUM_ATOMS), species, None, CUTOFF, rotate=rotate)


def test_pairs_of_a_frame_are_those_of_ase(trajectory: MemoryTrajectory) -> None:
    frame = dataset(trajectory)[2]
    i, j, d = primitive_neighbor_list(
        "ijd", (True, True, True), np.eye(3) * EDGE, trajectory.positions[2], CUTOFF, self_interaction=False
    )
    ours = sorted(
        (*sorted(pair), round(float(d), 4)) for pair, d in zip(frame.pairs.T.tolist(), frame.distances, strict=True)
    )
    theirs = sorted((a, b, round(float(r), 4)) for a, b, r in zip(i.tolist(), j.tolist(), d, strict=True) if a < b)
    assert ours == theirs


def test_frames_come_in_the_order_of_trajectories_and_none_is_lost(trajectory: MemoryTrajectory) -> None:
    other = MemoryTrajectory(trajectory.positions[:2], trajectory.forces[:2] + 1.0, trajectory.box_vectors[:2])
    frames = dataset(trajectory, other)
    assert len(frames) == 6
    expected = [*trajectory.forces, *other.forces]
    for index in range(6):
        np.testing.assert_allclose(frames[index].forces.numpy(), expected[index], rtol=1e-6, atol=1e-4)


def test_a_batch_gives_each_frame_the_forces_it_has_alone(trajectory: MemoryTrajectory) -> None:
    torch.manual_seed(0)
    model = GAMD(GAMDSpec(NeighborSpec(CUTOFF), (18,), width=8, num_layers=2, num_radial=8))
    frames = dataset(trajectory)
    batch = collate([frames[0], frames[3]])
    together = model(batch.species, PairList(batch.pairs, batch.vectors, batch.distances), batch.batch)
    for which, index in enumerate((0, 3)):
        frame = frames[index]
        alone = model(frame.species, PairList(frame.pairs, frame.vectors, frame.distances))
        torch.testing.assert_close(together[batch.batch == which], alone, rtol=1e-4, atol=1e-5)


def test_a_rotated_frame_is_the_same_physics(trajectory: MemoryTrajectory) -> None:
    plain, turned = dataset(trajectory)[1], dataset(trajectory, rotate=True)[1]
    torch.testing.assert_close(turned.distances, plain.distances)
    torch.testing.assert_close(turned.vectors.norm(dim=1), plain.distances, rtol=1e-5, atol=1e-6)
    assert (turned.vectors - plain.vectors).abs().max() > 0.05
    i = plain.pairs[0]
    before = (plain.forces[i] * plain.vectors).sum(dim=1)
    torch.testing.assert_close((turned.forces[i] * turned.vectors).sum(dim=1), before, rtol=1e-4, atol=1e-2)


def test_random_rotations_are_proper_and_have_no_favourite_direction() -> None:
    generator = np.random.default_rng(0)
    rotations = np.array([random_rotation(generator) for _ in range(4000)])
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1), np.broadcast_to(np.eye(3), rotations.shape), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1.0)
    assert np.abs(rotations.mean(axis=0)).max() < 0.05  # the mean over the group is zero
    assert np.abs((rotations**2).mean(axis=0) - 1 / 3).max() < 0.03
