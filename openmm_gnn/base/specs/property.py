"""The specification of a property model: what is predicted of a molecule or its atoms, and by which encoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from openmm_gnn.base.checks import at_least, atomic_numbers, one_of
from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.specs.encoder import EncoderSpec


class Target(str, Enum):
    """What kind of label there is."""

    MOLECULE = "molecule"
    """One number of each molecule, such as an energy."""
    VECTOR = "vector"
    """Three numbers of each molecule that turn with it, such as a dipole moment."""
    ATOM = "atom"
    """One number of each atom, such as a charge."""


class Readout(str, Enum):
    """How atoms make up a molecule."""

    SUM = "sum"
    """For what grows with the molecule."""
    MEAN = "mean"


@dataclass(frozen=True)
class PropertySpec:
    """Everything that defines a property model but its weights."""

    kind: ClassVar[str] = "property"
    """Name of the kind in the JSON form."""

    encoder: EncoderSpec
    name: str
    """Name of the property in the labels."""
    target: Target
    elements: tuple[int, ...]
    """Atomic numbers among the labelled molecules; others are refused."""
    readout: Readout = Readout.SUM
    hydrogens: bool = False
    """Whether the network sees hydrogens, and predicts for them; if not, they are left out of what it is given."""
    unit: str = ""
    """Unit of the labels, in words; nothing is converted."""
    head_width: int = 32
    head_layers: int = 2
    metadata: dict[str, Any] = field(default_factory=dict, compare=False)
    """Where the weights come from: labels, command, held-out figures. Never read by the model."""

    def __post_init__(self) -> None:
        one_of(self, Target, "target")
        one_of(self, Readout, "readout")
        atomic_numbers(self, self.encoder.max_atomic_number)
        at_least(self, 1, "head_width", "head_layers")
        if not self.hydrogens and 1 in self.elements:
            raise SpecError("PropertySpec.elements has hydrogen, but hydrogens is False: leave one of them out")
        if not self.name:
            raise SpecError("PropertySpec.name is empty: give the name that the property has in the labels")
