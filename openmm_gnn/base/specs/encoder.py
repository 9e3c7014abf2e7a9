"""The frozen specifications of an encoder and of a property model: everything that defines one but its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from openmm_gnn.base.errors import SettingsError, SpecError, at_least, atomic_numbers, one_of, positive
from openmm_gnn.base.units import ANGSTROM_PER_NM


class Architecture(str, Enum):
    """Which network an encoder is."""

    TORCHMD_ET = "torchmd-et"
    VISNET = "visnet"
    TENSORNET = "tensornet"


class NeighborRule(str, Enum):
    """Which of the atoms within the cutoff send messages to an atom; see graph/edges.py."""

    FADING = "fading"
    """All within a reach of the atom's own, which shrinks smoothly where atoms crowd."""
    FULL = "full"
    NEAREST = "nearest"
    INDEX = "index"

    @property
    def is_continuous(self) -> bool:
        """Whether no atom's messages begin or end at a step; the others end with the neighbour of some rank."""
        return self in (NeighborRule.FADING, NeighborRule.FULL)


LENGTH_UNITS = {"angstrom": ANGSTROM_PER_NM, "nanometer": 1.0}
"""How many of each length unit are in a nanometre."""


@dataclass(frozen=True)
class EncoderSpec:
    """Everything that defines an encoder but its weights. Lengths in `length_unit`."""

    kind: ClassVar[str] = "encoder"
    """Name of the kind in the JSON form."""
    unwritten: ClassVar[dict[str, Any]] = {"smooth": False}
    """Fields that older JSON forms do not have, and what is meant there."""

    architecture: Architecture = Architecture.TORCHMD_ET
    """Architecture of the encoder's network."""
    num_layers: int = 4
    """Number of rounds of messages."""
    cutoff: float = 7.5
    """Distance below which atoms are neighbours, in the encoder's length unit."""
    width: int = 64
    """Number of scalars, and of vectors, of an atom."""
    num_radial: int = 64
    """Number of radial basis functions."""
    num_heads: int = 8
    """Number of heads of the attention; TensorNet has none."""
    max_atomic_number: int = 99
    elements: tuple[int, ...] = ()
    """Atomic numbers the training data held; empty: unknown, every number up to `max_atomic_number` is taken."""
    neighbor_rule: NeighborRule = NeighborRule.FADING
    """Atoms within the cutoff that send messages to an atom: all within a reach that shrinks smoothly where atoms crowd
    (fading), all (full), the nearest, or the first by number (index). Features jump where a neighbour enters by the
    rules nearest and index."""
    max_neighbors: int = 32
    """Number of edges to an atom, a loop to itself included: the largest by the rules nearest and index, about the
    largest by fading."""
    smooth: bool = True
    """Let all messages vanish at the cutoff. The published TorchMD-ET and ViSNet send vectors at full strength up to
    it: a feature, and a bias along it, jumps whenever an atom crosses the cutoff."""
    noise_scale: float = 0.0
    """Standard deviation of the noise that the denoising head was trained on, `length_unit`; 0: there is no head."""
    length_unit: str = "angstrom"
    metadata: dict[str, Any] = field(default_factory=dict, compare=False)
    """Where the weights come from: data, commands, figures. Never read by the model."""

    def __post_init__(self) -> None:
        one_of(self, Architecture, "architecture")
        one_of(self, NeighborRule, "neighbor_rule")
        at_least(self, 1, "num_layers", "num_heads", "max_neighbors")
        at_least(self, 2, "num_radial")
        positive(self, "cutoff")
        at_least(self, 0, "noise_scale")
        atomic_numbers(self, self.max_atomic_number, least_count=0)
        if self.width < 2 or self.width % 2 or self.width % self.num_heads:
            raise SettingsError(self, "width", f"give an even multiple of num_heads ({self.num_heads}), at least 2")
        if self.length_unit not in LENGTH_UNITS:
            raise SettingsError(self, "length_unit", f"give one of {sorted(LENGTH_UNITS)}")

    @property
    def is_continuous(self) -> bool:
        """Whether features have no jumps, as a bias along them needs."""
        return self.neighbor_rule.is_continuous and (self.smooth or self.architecture is Architecture.TENSORNET)

    @property
    def per_nm(self) -> float:
        """Multiply a length in nm by this to have it in `length_unit`."""
        return LENGTH_UNITS[self.length_unit]


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
