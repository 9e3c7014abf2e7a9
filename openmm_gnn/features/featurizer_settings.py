"""The choices of a featurizer: which atoms it sees, in which graphs, how they become tokens, and how it computes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum
from typing import Any

from openmm_gnn.base.errors import SpecError, one_of, whole
from openmm_gnn.base.specs.encoder import NeighborRule

DEFAULT_WINDOW = 2


class Context(str, Enum):
    """What an atom's features may know of the rest."""

    WHOLE = "whole"
    """All selected atoms are one graph."""
    WINDOW = "window"
    """A residue and its neighbours along the sequence are one graph, one for each residue."""


@dataclass(frozen=True)
class GraphContext:
    """The graphs that features were made from. Features of two contexts are not of one kind, and must not be mixed."""

    context: Context = Context.WHOLE
    window: int | None = None
    """Residues on either side that belong to a residue's graph; None where there are no windows."""
    segments: tuple[int, ...] | None = None
    """Residues in each run that bonds join along the sequence; a window ends with its run. None: no windows."""

    def __post_init__(self) -> None:
        one_of(self, Context, "context")
        if self.segments is not None:
            object.__setattr__(self, "segments", tuple(int(length) for length in self.segments))
        if self.context is Context.WHOLE:
            if self.window is not None or self.segments is not None:
                raise SpecError(f"window is {self.window}, but context is 'whole': give context='window'")
            return
        if self.window is None:
            object.__setattr__(self, "window", DEFAULT_WINDOW)
        whole(self, 0, "window")

    @property
    def is_window(self) -> bool:
        return self.context is Context.WINDOW

    def to_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`, and part of `Featurizer.describe()`."""
        segments = None if self.segments is None else list(self.segments)
        return {"context": self.context.value, "window": self.window, "segments": segments}

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> GraphContext:
        """The context of a `Featurizer.describe()`; one without it is older than windows: the whole graph.

        Raises:
            SpecError: if it means nothing.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: description[name] for name in names if name in description})


WHOLE = GraphContext()


@dataclass(frozen=True)
class FeaturizerSettings:
    """The choices of `Featurizer`, which checks them."""

    selection: str | None = None
    """Atoms that the encoder sees, in mdtraj's selection language. Default: heavy atoms, without water and monatomic
    ions."""
    tokens: str = "residue"
    """Groups of atoms that get features: residue or atom."""
    reduction: str = "sum"
    """Operation that makes one feature of those of a token's atoms: sum or mean."""
    neighbor_rule: NeighborRule | None = None
    """Neighbours within the cutoff that count: fading or full, with features that are continuous; nearest or index, the
    published ones, along which no bias can be put. Default: the encoder's own rule."""
    coordinates: str = "anchor"
    """Coordinates of a token: anchor (CA, C1' or P, else the centroid), CA or centroid."""
    context: Context = Context.WHOLE
    """Atoms in one graph: all selected ones (whole), or each residue with its neighbours in sequence (window)."""
    window: int | None = None
    """Number of residues on either side of each residue that its graph contains, with context window. Default: 2."""
    elements: tuple[str, ...] = ()
    """Element of atoms that the topology does not know, such as FE=Fe or HEM:NA=N, VS for a virtual site; may be given
    again. Default: those of the topology, or of the names of residue and atom."""
    dtype: str = "float32"
    """Type of the encoder's arithmetic: float32, bfloat16 or float64."""
    device: str = "cpu"
    """Device on which the encoder runs, such as cpu, cuda or cuda:1."""

    def __post_init__(self) -> None:
        one_of(self, Context, "context")
        if self.neighbor_rule is not None:
            one_of(self, NeighborRule, "neighbor_rule")
        GraphContext(self.context, self.window)
