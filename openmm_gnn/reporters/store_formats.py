"""The formats that an embedding store is exported to, and what a linear method may see of it."""

from __future__ import annotations

from enum import Enum


class Format(str, Enum):
    """What other programs read."""

    TORCH = "torch"
    HDF5 = "hdf5"
    ZARR = "zarr"
    NUMPY = "numpy"
    """Observables for deeptime and other tools that read .npy files."""


class Observables(str, Enum):
    """Vectors turn with the molecule, so a linear method gets only their lengths."""

    TOKENS = "tokens"
    """Scalars and vector lengths of every token, n = tokens * 2 H."""
    MEAN = "mean"
    """Their means over the tokens, n = 2 H."""
