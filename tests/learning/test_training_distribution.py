"""Neighbourhoods: invariant, the same as counted by hand, and unlike those of training where they should be."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from openmm_gnn.base.errors import DataError
from openmm_gnn.learning.training.frames import random_rotation
from openmm_gnn.learning.training.training_distribution import (
    NUM_NEAREST,
    NUM_SHELLS,
    QUANTILE,
    descriptors,
    fit_distribution,
    outside,
    scores,
)

CUTOFF = 0.5
BOX = np.diag([1.5, 1.6, 1.7])


def frame(seed: int, spacing: float = 0.35, noise: float = 0.02) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A jittered lattice of two elements in a box of its own."""
    rng = np.random.default_rng(seed)
    sites = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    numbers = np.where(sites.sum(axis=1) % 2, 8, 1)
    return numbers, spacing * sites + rng.normal(scale=noise, size=(64, 3)), np.eye(3) * 4 * spacing


@pytest.fixture(scope="module")
def distribution() -> dict[str, Any]:
    return fit_distribution([frame(seed) for seed in range(40)], CUTOFF)


def test_descriptors_do_not_change_when_the_frame_is_turned_moved_or_its_atoms_are_exchanged() -> None:
    numbers, positions, box = frame(1)
    expected = descriptors((numbers, positions, box), (1, 8), CUTOFF)
    turn, order = random_rotation(np.random.default_rng(3)), np.random.default_rng(2).permutation(64)
    moved = (positions + np.array([0.3, -5.0, 0.1])) @ turn
    found = descriptors((numbers[order], moved[order], box @ turn), (1, 8), CUTOFF)
    assert found == pytest.approx(expected[order], abs=1e-9)


def test_descriptors_are_those_of_a_loop_over_pairs() -> None:
    rng = np.random.default_rng(0)
    numbers, positions = rng.choice([8, 1, 6], 25), rng.uniform(size=(25, 3)) @ BOX
    elements = (8, 1, 6)  # not ascending: the order is the caller's
    found = descriptors((numbers, positions, BOX), elements, CUTOFF).reshape(25, 3, NUM_SHELLS + NUM_NEAREST)
    for i in range(25):
        delta = positions - positions[i]
        distances = np.linalg.norm(delta - np.rint(delta / np.diag(BOX)) * np.diag(BOX), axis=1)
        for slot, element in enumerate(elements):
            near = sorted(d for d, n in zip(distances, numbers, strict=True) if n == element and 0 < d < CUTOFF)
            expected = (near + [CUTOFF] * NUM_NEAREST)[:NUM_NEAREST]
            assert found[i, slot, NUM_SHELLS:] == pytest.approx(expected)
            centers, width = (np.arange(NUM_SHELLS) + 0.5) * CUTOFF / NUM_SHELLS, CUTOFF / NUM_SHELLS
            bumps = [np.exp(-2 * ((d - centers) / width) ** 2) * np.cos(np.pi * d / CUTOFF / 2) ** 2 for d in near]
            assert found[i, slot, :NUM_SHELLS] == pytest.approx(np.sum(bumps, axis=0) if near else np.zeros(4))


def test_descriptors_change_smoothly_when_an_atom_leaves() -> None:
    numbers = np.array([1, 1, 8])
    at = [np.array([[0, 0, 0], [0.2, 0, 0], [distance, 0, 0]]) for distance in (CUTOFF - 1e-6, CUTOFF + 1e-6)]
    inside, beyond = (descriptors((numbers, positions, None), (1, 8), CUTOFF) for positions in at)
    assert inside == pytest.approx(beyond, abs=1e-5)


def test_of_training_frames_as_many_are_outside_as_the_quantile_says(distribution: dict[str, Any]) -> None:
    flags = np.concatenate([outside(distribution, frame(seed)) for seed in range(40)])
    assert flags.mean() == pytest.approx(1 - QUANTILE, abs=1e-3)
    unseen = np.concatenate([outside(distribution, frame(seed)) for seed in range(100, 140)])
    assert unseen.mean() < 0.006


def test_compressed_frames_and_single_intruders_are_outside(distribution: dict[str, Any]) -> None:
    assert outside(distribution, frame(200, spacing=0.31)).mean() > 0.9
    numbers, positions, box = frame(201)
    positions[17] = positions[16] + [0.12, 0, 0]
    found = scores(distribution, (numbers, positions, box))
    assert found[16] > 2 and found[17] > 2
    assert np.argmax(found) in (16, 17)


def test_what_is_rigid_in_training_may_differ_by_little(distribution: dict[str, Any]) -> None:
    """Without a least spread the covariance of identical frames could not be inverted."""
    still = fit_distribution([frame(1, noise=0.0)], CUTOFF)
    assert not outside(still, frame(1, noise=0.0)).any()
    assert not outside(still, frame(1, noise=0.0005)).any()
    assert outside(still, frame(1, noise=0.02)).mean() > 0.9


def test_distribution_is_small_plain_json(distribution: dict[str, Any]) -> None:
    text = json.dumps(distribution)
    assert len(text) < 10_000
    assert scores(json.loads(text), frame(5)) == pytest.approx(scores(distribution, frame(5)))


def test_unknown_elements_versions_and_no_frames_are_refused(distribution: dict[str, Any]) -> None:
    numbers, positions, box = frame(1)
    with pytest.raises(DataError, match=r"atomic numbers \[7\] are not among .* give frames of these elements"):
        scores(distribution, (np.where(numbers == 8, 7, 1), positions, box))
    with pytest.raises(DataError, match="has version 99"):
        scores({**distribution, "version": 99}, frame(1))
    with pytest.raises(DataError, match="no training frame .* give at least one"):
        fit_distribution([], CUTOFF)
