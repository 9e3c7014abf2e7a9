"""Errors that users meet. Each message says what is wrong, the value found and the remedy."""

from __future__ import annotations


class OpenMMGNNError(Exception):
    """Base of every error this package raises on its own account."""


class SpecError(OpenMMGNNError, ValueError):
    """A specification contradicts itself, or does not fit what it is used with."""


class NeighborOverflowError(OpenMMGNNError, RuntimeError):
    """More neighbour pairs were found than the list can hold."""


class TopologyError(OpenMMGNNError, ValueError):
    """A topology holds something the model was not made for."""


class BackendError(OpenMMGNNError, RuntimeError):
    """No force backend works here; `openmm-gnn doctor` says why."""


class DataError(OpenMMGNNError, ValueError):
    """A file is not what it should be: wrong layout, size, checksum or version."""


class NonFiniteError(OpenMMGNNError, RuntimeError):
    """Positions, velocities or forces became NaN or infinite during a run."""
