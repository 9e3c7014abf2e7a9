"""Periodic boxes that come from files: which vectors can be a box, and how wide it is."""

from __future__ import annotations

import numpy as np

MOST_ATOMS_PER_NM3 = 500.0
"""Number density that no matter has (diamond: 176): a box that holds more is a placeholder, such as CRYST1 1 1 1."""


def can_be_box(box_vectors: np.ndarray, num_atoms: int) -> np.ndarray:
    """Whether vectors are finite, span a volume and have room for the atoms of the system.

    Args:
        box_vectors: (..., 3, 3) nm, rows a, b, c.
    Returns:
        (...) bool.
    """
    finite = np.isfinite(box_vectors).all(axis=(-2, -1))
    volumes = np.abs(np.linalg.det(np.where(finite[..., None, None], box_vectors, 0.0)))
    return (volumes > 0) & (volumes * MOST_ATOMS_PER_NM3 >= num_atoms)


def box_width(box_vectors: np.ndarray) -> np.ndarray:
    """(...) nm, the smallest distance between opposite faces of boxes (..., 3, 3)."""
    return 1.0 / np.linalg.norm(np.linalg.inv(box_vectors), axis=-2).max(axis=-1)


def box_words(box_vectors: np.ndarray) -> str:
    """The lengths of a box (3, 3) for an error: "3 x 3 x 4.5 nm"."""
    return " x ".join(f"{length:.4g}" for length in np.linalg.norm(box_vectors, axis=1)) + " nm"


def narrow_box(box_vectors: np.ndarray, cutoff: float) -> str | None:
    """What to say of a box (3, 3) nm in which atoms within the cutoff, nm, meet images of themselves; else None."""
    width = float(box_width(box_vectors))
    if width >= 2 * cutoff:
        return None
    return (
        f"the periodic box of {box_words(box_vectors)} is {width:.3g} nm wide, less than twice the cutoff of "
        f"{cutoff:g} nm, so that atoms are neighbours of their own images: check that it is the box of the simulation"
    )
