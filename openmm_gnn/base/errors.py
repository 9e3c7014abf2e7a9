"""Errors that users meet, and checks of the fields of settings and specifications that raise one.

Each message says what is wrong, the value found and the remedy. A field that is None is left to its default elsewhere,
and passes the checks.
"""

from __future__ import annotations

import errno
import math
import re
import traceback
from collections.abc import Callable
from enum import Enum
from typing import Any


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
    """Numbers became NaN or infinite, or a molecule came apart, during a run."""


def in_words(error: BaseException) -> str:
    """An error as a sentence or two that a user can read.

    TorchScript and torch put a traceback around what is wrong, OpenMM puts theirs behind a word of its own; what the
    system refuses becomes the file, the reason and the remedy.
    """
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}: {_REMEDIES.get(error.errno or 0, 'check the path')}"
    if isinstance(error, MemoryError) or any(words in str(error) for words in _NO_MEMORY):
        return f"not enough memory ({_said(error)}): give fewer atoms or frames at once, or a machine with more"
    return re.sub(r"\s*\n\s*", " ", str(error)) if isinstance(error, OpenMMGNNError) else _said(error)


def is_of_input(error: BaseException) -> bool:
    """Whether an error tells of a file, a value or the machine; if not, it is a fault of this package.

    What OpenMM and the compiled operators refuse is of the input too: their errors come out of other code than ours.
    """
    if isinstance(error, (OpenMMGNNError, OSError, ValueError, ImportError, MemoryError)):
        return True
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    refused = type(error).__name__ == "OpenMMException" or any(words in str(error) for words in _NO_MEMORY)
    return refused or (isinstance(error, RuntimeError) and bool(frames) and frames[-1].endswith(_OPERATORS))


_OPERATORS = ("torch/_ops.py", "torch/jit/_script.py")
_NO_MEMORY = ("out of memory", "can't allocate memory", "Unable to allocate")
_REMEDIES = {
    errno.EACCES: "mend its permissions, or give another path",
    errno.EROFS: "give a path on another file system",
    errno.ENOSPC: "make room, or give a path on another file system",
    errno.EDQUOT: "make room, or give a path on another file system",
}


def words_of_warnings() -> Callable[..., str]:
    """A `warnings.formatwarning` that says each warning in one line, once, whoever warns of it again.

    The action "once" of Python does not do: it forgets what was said whenever a library changes the filters.
    """
    said: set[str] = set()

    def words(message: Warning | str, *_: object) -> str:
        line = f"Warning: {str(message).strip().removeprefix('Warning: ')}\n"
        if line in said:
            return ""
        said.add(line)
        return line

    return words


def _said(error: BaseException) -> str:
    """The line of an error's text that says what is wrong: TorchScript puts it at the end, CUDA at the beginning."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = [line for line in lines if _TYPED.match(line)]
    return _TYPED.sub("", said[-1] if said else lines[0]).strip()


_TYPED = re.compile(r"^\s*(?:[\w.]*Error|builtins\.\w+|OpenMMException): ")


def at_least(settings: Any, least: float, *names: str) -> None:
    """Require finite numbers of `least` or more."""
    _require(settings, names, lambda value: _is_finite(value) and value >= least, f"give at least {least:g}")


def whole(settings: Any, least: int, *names: str) -> None:
    """Require whole numbers of `least` or more."""
    remedy = f"give a whole number, {least} or more"
    _require(settings, names, lambda value: isinstance(value, int) and value >= least, remedy)


def positive(settings: Any, *names: str) -> None:
    """Require finite numbers above 0."""
    _require(settings, names, lambda value: _is_finite(value) and value > 0, "give a finite number above 0")


def share(settings: Any, *names: str) -> None:
    """Require numbers from 0 to 1, 1 left out."""
    _require(settings, names, lambda value: 0 <= value < 1, "give 0 or more, below 1")


def one_of(settings: Any, choices: type[Enum], *names: str) -> None:
    """Turn the text of a choice into its member, in a frozen dataclass that is being made."""
    for name in names:
        try:
            object.__setattr__(settings, name, choices(getattr(settings, name)))
        except ValueError:
            allowed = ", ".join(str(one.value) for one in choices)
            raise SettingsError(settings, name, f"give one of {allowed}") from None


def atomic_numbers(settings: Any, most: int | None = None, least_count: int = 1) -> None:
    """Turn `elements` into a tuple of integers: atomic numbers, each once, up to `most`."""
    elements = tuple(int(number) for number in settings.elements)
    object.__setattr__(settings, "elements", elements)
    known = all(1 <= number <= (most or number) for number in elements)
    if not known or len(set(elements)) != len(elements) or len(elements) < least_count:
        count = ", at least one" if least_count else ""
        limit = "" if most is None else f", from 1 to max_atomic_number ({most})"
        raise SettingsError(settings, "elements", f"give each atomic number once{count}{limit}")


def _require(settings: Any, names: tuple[str, ...], holds: Callable[[Any], bool], remedy: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is not None and not holds(value):
            raise SettingsError(settings, name, remedy)


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
