"""Is an atom's neighbourhood like those the network was trained on?

A neighbourhood is described by numbers that no rotation, translation or exchange of equal atoms changes: for each
element, smooth counts of its atoms in radial shells, and the distances of the nearest few. Their mean and covariance
over the training frames make a Mahalanobis distance for the atoms of each element; the distance that all but a few
training atoms keep is the border. It is a warning, not a proof: the network interpolates inside and guesses
outside.
Source: Mahalanobis, Proc. Natl. Inst. Sci. India 2, 49 (1936); for potentials, the descriptor is a coarse form of
Behler, J. Chem. Phys. 134, 074106 (2011), doi 10.1063/1.3553717, equation 6.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset

from openmm_gnn.base.errors import DataError
from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs
from openmm_gnn.learning.training.frames import FrameBatch, FrameDataset

Frame = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""Atomic numbers (num_atoms,), without virtual sites; positions (num_atoms, 3), nm; box (3, 3), nm, or None."""

TRAINING_DISTRIBUTION = "training_distribution"
"""Where a bundle's metadata holds the result of `fit_distribution`."""
VERSION = 1
NUM_SHELLS = 4
NUM_NEAREST = 3
QUANTILE = 0.999
"""Fraction of the training atoms within the border."""
NUM_FRAMES = 60
_LEAST_SPREAD = (0.02, 0.002)
"""Least standard deviation of a count and of a distance in nm: a bond that is rigid in training may differ a little."""


def descriptors(frame: Frame, elements: tuple[int, ...], cutoff: float) -> np.ndarray:
    """(num_atoms, len(elements) * (NUM_SHELLS + NUM_NEAREST)): counts in shells and nearest distances, per element.

    A nearest distance that is not there is the cutoff, so it is continuous where an atom leaves.

    Args:
        elements: atomic numbers of the neighbours that count, in this order.
        cutoff: nm.
    Raises:
        DataError: if the frame has an element that is not among them.
    """
    numbers, positions, box = frame
    numbers = np.asarray(numbers)
    if unknown := sorted(set(numbers.tolist()) - set(elements)):
        raise DataError(
            f"atomic numbers {unknown} are not among those of the training data, {list(elements)}: give frames of "
            "these elements, or train with the others too"
        )
    box_tensor = None if box is None else torch.from_numpy(np.array(box, dtype=np.float64))
    with torch.no_grad():
        found = neighbor_pairs(torch.from_numpy(np.array(positions, dtype=np.float64)), cutoff, box_tensor, full=True)
    (center, neighbor), distance = found[0].numpy(), found[2].numpy()
    kind = np.searchsorted(elements, numbers[neighbor], sorter=np.argsort(elements))
    kind = np.argsort(elements)[kind]
    slot = center * len(elements) + kind
    num_slots = len(numbers) * len(elements)

    spacing = cutoff / NUM_SHELLS
    envelope = 0.5 * (1 + np.cos(np.pi * distance / cutoff))
    counts = np.empty((num_slots, NUM_SHELLS))
    for shell in range(NUM_SHELLS):
        weight = np.exp(-2 * ((distance - (shell + 0.5) * spacing) / spacing) ** 2) * envelope
        counts[:, shell] = np.bincount(slot, weights=weight, minlength=num_slots)

    order = np.lexsort((distance, slot))
    starts = np.searchsorted(slot[order], np.arange(num_slots))
    rank = np.arange(len(order)) - starts[slot[order]]
    near = rank < NUM_NEAREST
    nearest = np.full((num_slots, NUM_NEAREST), cutoff)
    nearest[slot[order][near], rank[near]] = distance[order][near]
    return np.concatenate([counts, nearest], axis=1).reshape(len(numbers), -1)


def training_frames(training: ConcatDataset[FrameBatch], elements: tuple[int, ...]) -> list[Frame]:
    """Some `NUM_FRAMES` frames for `fit_distribution`, evenly spread over what a network is trained on.

    Args:
        training: as `force_matching_sets` gives it.
        elements: atomic numbers that its species are indices of.
    """
    known = np.array(elements)
    frames: list[Frame] = []
    every = max(1, len(training) // NUM_FRAMES)
    for part in training.datasets:
        assert isinstance(part, FrameDataset)
        for index in range(0, len(part), every):
            positions, _, box = part.frame(index)
            frames.append((known[part.species.numpy()], positions.numpy(), box.numpy()))
    return frames


def fit_distribution(frames: Iterable[Frame], cutoff: float) -> dict[str, Any]:
    """The distribution of the neighbourhoods in training frames, as plain data for JSON.

    Args:
        frames: some hundred are plenty.
        cutoff: of the network, nm.
    Raises:
        DataError: if there is no frame.
    """
    frames = list(frames)
    elements = tuple(sorted({int(number) for numbers, _, _ in frames for number in np.unique(numbers)}))
    if not elements:
        raise DataError("no training frame was given: give at least one, of which neighbourhoods can be taken")
    described = np.concatenate([descriptors(frame, elements, cutoff) for frame in frames])
    numbers = np.concatenate([np.asarray(frame[0]) for frame in frames])
    least = np.square(np.tile(np.repeat(_LEAST_SPREAD, (NUM_SHELLS, NUM_NEAREST)), len(elements)))
    of_elements = {}
    for element in elements:
        rows = described[numbers == element]
        mean = rows.mean(axis=0)
        covariance = np.cov(rows, rowvar=False, bias=True) + np.diag(least)
        border = np.quantile(_mahalanobis(rows, mean, covariance), QUANTILE)
        border = max(border, math.sqrt(rows.shape[1]))  # frames that are all alike: the least spread in every number
        of_elements[str(element)] = {
            "mean": _rounded(mean),
            "covariance": [_rounded(row) for row in covariance],
            "threshold": float(f"{border:.6g}"),
            "num_atoms": len(rows),
        }
    return {
        "version": VERSION,
        "cutoff": cutoff,
        "quantile": QUANTILE,
        "num_frames": len(frames),
        "elements": of_elements,
    }


def scores(distribution: dict[str, Any], frame: Frame) -> np.ndarray:
    """(num_atoms,) distance of each atom's neighbourhood from the training data, in units of the border's.

    Raises:
        DataError: if the frame has an element that the training data lacks, or the data is of another version.
    """
    if distribution.get("version") != VERSION:
        raise DataError(
            f"the training distribution has version {distribution.get('version')}, this package reads {VERSION}: "
            "train again"
        )
    elements = tuple(int(number) for number in distribution["elements"])
    described = descriptors(frame, elements, distribution["cutoff"])
    numbers, found = np.asarray(frame[0]), np.empty(len(described))
    for number, entry in distribution["elements"].items():
        rows = numbers == int(number)
        distances = _mahalanobis(described[rows], np.array(entry["mean"]), np.array(entry["covariance"]))
        found[rows] = distances / entry["threshold"]
    return found


def outside(distribution: dict[str, Any], frame: Frame) -> np.ndarray:
    """(num_atoms,) bool: atoms whose neighbourhood lies beyond the border; of training frames 1 - QUANTILE do."""
    return scores(distribution, frame) > 1


def _mahalanobis(rows: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    centred = rows - mean
    return np.sqrt(np.einsum("ni,ni->n", centred, np.linalg.solve(covariance, centred.T).T))


def _rounded(values: np.ndarray) -> list[float]:
    """Seven digits: enough, and JSON stays small."""
    return [float(f"{value:.7g}") for value in values]
