"""Which vectors can be a periodic box, and how wide it is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from openmm_gnn.base.boxes import box_width, can_be_box, narrow_box

SKEW = np.array([[5.0, 0, 0], [2.1, 4.9, 0], [-1.7, 2.0, 4.6]])


@pytest.mark.parametrize("bad", [np.zeros((3, 3)), np.ones((3, 3)), np.full((3, 3), np.nan), np.eye(3) * 0.1])
def test_vectors_without_room_for_the_atoms_are_no_box(bad: np.ndarray) -> None:
    """CRYST1 1 1 1 of 2 atoms is 2000 atoms per cubic nanometre, where diamond has 176."""
    assert can_be_box(np.stack([np.eye(3), bad, SKEW]), 2).tolist() == [True, False, True]


def test_a_box_is_as_wide_as_its_nearest_lattice_planes_are_apart() -> None:
    """The distance from the origin to the plane that two vectors span from the end of the third."""
    normals = [np.cross(SKEW[j], SKEW[k]) for j, k in itertools.combinations(range(3), 2)]
    heights = [abs(np.linalg.det(SKEW)) / np.linalg.norm(normal) for normal in normals]
    assert box_width(np.stack([SKEW, 2 * SKEW])) == pytest.approx([min(heights), 2 * min(heights)], rel=1e-12)
    assert narrow_box(SKEW, min(heights) / 2 - 1e-9) is None
    assert "less than twice the cutoff of 3 nm" in str(narrow_box(SKEW, 3.0))
