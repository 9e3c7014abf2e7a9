"""The choices of a featurizer: which atoms it sees, how they become tokens, and how it computes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from openmm_gnn.features.graph_context import GraphContext


@dataclass(frozen=True)
class FeaturizerSettings:
    """The choices of `Featurizer`, which checks them."""

    selection: str | None = None
    """Atoms that the encoder sees, in mdtraj's selection language. Default: heavy atoms of what is neither water nor a
    monatomic ion."""
    tokens: str = "residue"
    """Groups of atoms that are described: residue or atom."""
    reduction: str = "sum"
    """How the features of a token's atoms become one: sum or mean."""
    neighbor_rule: str | None = None
    """Neighbours within the cutoff that count: nearest, full or index. Default: the encoder's own rule."""
    coordinates: str = "anchor"
    """Coordinates of a token: anchor (CA, C1' or P, else the centroid), CA or centroid."""
    context: str = "whole"
    """Atoms in one graph: whole for all selected ones, window for each residue and its neighbours in sequence."""
    window: int | None = None
    """Residues on either side of a window, with context window. Default: 2."""
    dtype: str = "float32"
    """Type of the encoder's arithmetic: float32, bfloat16 or float64."""
    device: str = "cpu"
    """Device on which the encoder runs, such as cpu, cuda or cuda:1."""

    def __post_init__(self) -> None:
        GraphContext.from_description({"context": self.context, "window": self.window})

    def arguments(self) -> dict[str, Any]:
        """Arguments of `Featurizer`."""
        return dataclasses.asdict(self)
