"""Radial distribution function of a periodic trajectory, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from openmm_gnn.base.errors import DataError


@dataclass(frozen=True)
class RadialDistribution:
    """g(r): the density of atoms at a distance r of an atom, relative to the mean density."""

    edges_nm: np.ndarray
    """(bins + 1,) borders of the bins."""
    values: np.ndarray
    """(bins,) g in each bin."""
    blocks: np.ndarray
    """(num_blocks, bins) g of each consecutive part of the trajectory."""

    @property
    def distances_nm(self) -> np.ndarray:
        """(bins,) middles of the bins."""
        return 0.5 * (self.edges_nm[1:] + self.edges_nm[:-1])

    @property
    def errors(self) -> np.ndarray:
        """(bins,) standard errors from the blocks; NaN with fewer than two of them."""
        if len(self.blocks) < 2:
            return np.full_like(self.values, np.nan)
        return self.blocks.std(axis=0, ddof=1) / np.sqrt(len(self.blocks))

    def first_peak(self) -> tuple[float, float]:
        """Position (nm) and height of the first peak: the top of a parabola through the highest bins.

        The bins within 3 % of the distance of the highest one are fitted: a window that is wide against the
        noise and narrow against the peak, whatever the bin width.
        """
        middles = self.distances_nm
        top = int(np.argmax(self.values))
        window = np.abs(middles - middles[top]) <= 0.03 * middles[top]
        if window.sum() < 3:
            return float(middles[top]), float(self.values[top])
        offset = middles[window] - middles[top]
        curvature, slope, height = np.polyfit(offset, self.values[window], 2)
        if curvature >= 0:
            return float(middles[top]), float(self.values[top])
        shift = -slope / (2 * curvature)
        return float(middles[top] + shift), float(height + slope * shift / 2)


def largest_radius(box_vectors: np.ndarray) -> float:
    """Half the smallest distance between opposite faces of the boxes: up to it each pair has one image."""
    volume = np.abs(np.linalg.det(box_vectors))
    a, b, c = np.moveaxis(np.asarray(box_vectors, dtype=np.float64), -2, 0)
    faces = [np.linalg.norm(np.cross(u, v), axis=-1) for u, v in ((b, c), (c, a), (a, b))]
    return float(min((volume / face).min() for face in faces) / 2)


def radial_distribution(
    positions: np.ndarray,
    box_vectors: np.ndarray,
    first: np.ndarray | None = None,
    second: np.ndarray | None = None,
    molecules: np.ndarray | None = None,
    bin_width_nm: float = 0.005,
    num_blocks: int = 10,
    radius_nm: float | None = None,
) -> RadialDistribution:
    """g(r) of all atoms, or between two kinds of atoms without pairs within a molecule, from 0 to half the box.

    g(r) = V / num_pairs * pairs(r) / (4/3 pi (r_2^3 - r_1^3)), with exact shell volumes, each frame with its own
    volume. num_pairs is the number of pairs that are counted, N (N - 1) / 2 for one kind of free atoms and not N^2 / 2:
    an ideal gas then gives 1 at any size.
    Source: Allen, Tildesley, Computer Simulation of Liquids, 2nd ed. (2017), section 8.2.

    Args:
        positions: (frames, num_atoms, 3), nm, wrapped or not.
        box_vectors: (frames, 3, 3) or (3, 3), nm, rows a, b, c; any shape of box.
        first, second: indices of the atoms of each kind, equal for the g(r) of one kind; all atoms if not given.
        molecules: (num_atoms,) a number for each molecule; each atom is its own if not given.
        bin_width_nm: wanted width of the bins; bins are stretched to fill the range.
        num_blocks: consecutive parts of the trajectory from which errors are estimated.
        radius_nm: largest distance of g(r), at most half the smallest box, which is the default.
    Raises:
        DataError: if no pair is of two molecules, there are fewer frames than blocks, or the radius is beyond half the
            box.
    """
    everything = np.arange(np.asarray(positions).shape[1])
    first, second, molecules = (everything if one is None else np.asarray(one) for one in (first, second, molecules))
    same_kind = np.array_equal(first, second)
    if not same_kind and np.intersect1d(first, second).size:
        raise DataError("the two kinds share some of their atoms: give the same atoms twice, or none twice")
    num_pairs = _pairs_of_molecules(molecules[first], molecules[second]) / (2 if same_kind else 1)
    if num_pairs == 0:
        raise DataError(f"no pair of {len(first)} and {len(second)} atoms is of two molecules: g(r) needs at least one")

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        # Blocks of at most about a million pairs, so that memory stays flat for any number of atoms.
        rows_per_block = max(1, 1_000_000 // len(second))
        for start in range(0, len(first), rows_per_block):
            rows = np.arange(start, min(start + rows_per_block, len(first)))
            wanted = molecules[first[rows]][:, None] != molecules[second][None, :]
            if same_kind:
                wanted &= rows[:, None] < np.arange(len(second))
            ones, others = np.nonzero(wanted)
            yield first[rows[ones]], second[others]

    positions = np.asarray(positions, dtype=np.float64)
    num_frames = len(positions)
    if num_frames < num_blocks:
        raise DataError(f"{num_frames} frames do not fill {num_blocks} blocks: run longer, or ask for fewer blocks")
    boxes = np.broadcast_to(np.asarray(box_vectors, dtype=np.float64), (num_frames, 3, 3))
    largest = largest_radius(boxes)
    radius = largest if radius_nm is None else radius_nm
    if radius > largest * (1 + 1e-9):
        raise DataError(
            f"g(r) is asked for up to {radius:.4f} nm, half the smallest box is {largest:.4f} nm: "
            "give a radius of at most that"
        )
    num_bins = max(1, round(radius / bin_width_nm))
    edges = np.linspace(0.0, radius, num_bins + 1)

    # Rounding fractional coordinates finds the nearest image of every pair closer than half the distance of the
    # faces, in any box: its fractional components are then below one half.
    fractional = np.swapaxes(positions @ np.linalg.inv(boxes), 1, 2).copy()
    counts = np.zeros((num_frames, num_bins))
    for left, right in pairs():
        for frame in range(num_frames):
            distances = _distances(fractional[frame], boxes[frame], left, right)
            bins = (distances[distances < radius] * (num_bins / radius)).astype(np.int64)
            counts[frame] += np.bincount(np.minimum(bins, num_bins - 1), minlength=num_bins)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    per_frame = counts * np.abs(np.linalg.det(boxes))[:, None] / (num_pairs * shells)
    blocks = np.stack([part.mean(axis=0) for part in np.array_split(per_frame, num_blocks)])
    return RadialDistribution(edges, per_frame.mean(axis=0), blocks)


def _pairs_of_molecules(first: np.ndarray, second: np.ndarray) -> int:
    """The number of pairs (one of each) of two molecules."""
    names, counts = np.unique(first, return_counts=True)
    others, of_others = np.unique(second, return_counts=True)
    _, here, there = np.intersect1d(names, others, return_indices=True)
    return len(first) * len(second) - int((counts[here] * of_others[there]).sum())


def _distances(fractional: np.ndarray, box: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Nearest-image distances of pairs; fractional coordinates as (3, num_atoms)."""
    delta = fractional[:, first] - fractional[:, second]
    delta -= np.rint(delta)
    squared = np.zeros(len(first))
    for axis in range(3):
        component = sum(delta[row] * box[row, axis] for row in range(3) if box[row, axis] != 0.0)
        squared += component * component
    return np.sqrt(squared)
