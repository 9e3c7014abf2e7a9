"""Errors that users meet. Each message says what is wrong, the value found and the remedy."""

from __future__ import annotations


class OpenMMGNNError(Exception):
    """Base of every error this package raises on its own account."""


class SpecError(OpenMMGNNError, ValueError):
    """A specification contradicts itself, or does not fit what it is used with."""


class SettingsError(SpecError):
    """A field of settings or of a specification has a value that it cannot have."""

    def __init__(self, settings: object, field: str, remedy: str) -> None:
        self.owner, self.field, self.remedy = type(settings), field, remedy
        value = getattr(settings, field)
        self.value = getattr(value, "value", value)
        super().__init__(f"{self.owner.__name__}.{field} is {self.value!r}: {remedy}")


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
