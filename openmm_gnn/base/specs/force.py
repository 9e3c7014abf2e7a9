"""Frozen specifications of force models: the only place where a hyper-parameter of theirs is written.

A spec is saved with the weights; model, export, force, reporter and analysis read it from there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.specs.encoder import EncoderSpec, NeighborRule


class Decoder(str, Enum):
    """How GAMD turns atom features into forces."""

    NODE = "node"
    """The paper's: an MLP from each atom's features to its force."""
    PAIR = "pair"
    """f_i = sum_j s_ij r_ij / |r_ij| with s_ij = s_ji: covariant, no net force, no net torque."""


@dataclass(frozen=True)
class NeighborSpec:
    """The neighbourhood of an atom. Lengths in nm."""

    cutoff: float = 0.75
    """Distance below which atoms are neighbours, nm."""
    skin: float = 0.1
    """Margin of the neighbour list, nm: it is made anew when an atom has moved more than half of it."""
    max_neighbors: int = 96
    """Capacity of the neighbour list: mean number of pairs per atom within cutoff + skin, each pair counted once."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cutoff) and self.cutoff > 0):
            raise SpecError(f"NeighborSpec.cutoff is {self.cutoff} nm: give a finite length above 0")
        if not (math.isfinite(self.skin) and self.skin >= 0):
            raise SpecError(f"NeighborSpec.skin is {self.skin} nm: give a finite length, 0 or more")
        if self.max_neighbors < 1:
            raise SpecError(f"NeighborSpec.max_neighbors is {self.max_neighbors}: give at least 1")


@dataclass(frozen=True)
class GAMDSpec:
    """Everything that defines a GAMD network but its weights. Lengths in nm, forces in kJ/mol/nm."""

    conservative: ClassVar[bool] = False
    """Whether forces are the gradient of an energy: they are predicted directly."""

    neighbors: NeighborSpec
    elements: tuple[int, ...]
    """Atomic numbers the network knows; an atom's species is its index here."""
    decoder: Decoder = Decoder.PAIR
    """How forces are read from the network: off each pair (covariant, no net force), or off each atom as in the paper
    (node)."""
    width: int = 64
    """Features of an atom and of an edge."""
    num_layers: int = 2
    """Rounds of messages."""
    num_radial: int = 48
    """Radial basis functions."""
    min_distance: float = 0.0
    """Centre of the first radial basis function, nm."""
    envelope_exponent: int = 6
    """Exponent of the cutoff envelope: larger is flatter inside and steeper at the cutoff."""
    use_bonds: bool = False
    """Give atoms that are one or two bonds apart an edge type of their own."""
    remove_net_force: bool = False
    """Subtract the mean force from a node decoder's output (a pair decoder has none)."""
    force_scale: float = 1.0
    """Root mean square of a force component in the training data, kJ/mol/nm."""
    metadata: dict[str, Any] = field(default_factory=dict, compare=False)
    """Where the weights come from: data, commands, held-out figures. Never read by the model."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "decoder", Decoder(self.decoder))
        object.__setattr__(self, "elements", tuple(int(number) for number in self.elements))
        if not self.elements or len(set(self.elements)) != len(self.elements):
            raise SpecError(f"GAMDSpec.elements is {self.elements}: give each atomic number once, at least one")
        for name in ("width", "num_radial"):
            if getattr(self, name) < 2:
                raise SpecError(f"GAMDSpec.{name} is {getattr(self, name)}: give at least 2")
        if self.envelope_exponent < 2:
            raise SpecError(f"GAMDSpec.envelope_exponent is {self.envelope_exponent}: give at least 2")
        if self.num_layers < 0:
            raise SpecError(f"GAMDSpec.num_layers is {self.num_layers}: give 0 or more")
        if self.decoder is Decoder.NODE and self.num_layers == 0:
            raise SpecError("GAMDSpec.num_layers is 0: a node decoder needs at least 1 layer")
        if not 0 <= self.min_distance < self.neighbors.cutoff:
            raise SpecError(
                f"GAMDSpec.min_distance is {self.min_distance} nm: give 0 or more, below the cutoff "
                f"({self.neighbors.cutoff} nm)"
            )
        if not (math.isfinite(self.force_scale) and self.force_scale > 0):
            raise SpecError(f"GAMDSpec.force_scale is {self.force_scale} kJ/mol/nm: give a finite number above 0")

    @property
    def uses_types(self) -> bool:
        """Whether the network is given the types of its pairs, `pair_types`."""
        return self.use_bonds

    @property
    def is_covariant(self) -> bool:
        """Whether forces turn with the positions exactly, so that training needs no rotated frames."""
        return self.decoder is Decoder.PAIR


@dataclass(frozen=True)
class VectorGAMDSpec:
    """Everything that defines a VectorGAMD network but its weights. Lengths in nm, forces in kJ/mol/nm."""

    uses_types: ClassVar[bool] = True
    """Whether the network is given the types of its pairs: pairs of each type have splines of their own."""
    is_covariant: ClassVar[bool] = True
    """Whether forces turn with the positions exactly."""

    neighbors: NeighborSpec
    elements: tuple[int, ...]
    """Atomic numbers the network knows; an atom's species is its index here."""
    width: int = 32
    """Scalars, and vectors, of an atom; a multiple of 16."""
    num_layers: int = 2
    """Rounds of messages."""
    num_radial: int = 20
    """Spline coefficients of a radial function."""
    min_distance: float = 0.08
    """Where the splines begin, nm: below the shortest distance of two atoms."""
    use_bonds: bool = True
    """Give atoms that are one or two bonds apart radial functions of their own."""
    pair_cutoff: float = 0.0
    """Reach of the pair term, nm: a sum of splines for what is pairwise and long-ranged; 0 for none."""
    pair_radial: int = 60
    """Spline coefficients of the pair term."""
    charge_width: float = 0.0
    """Width of Gaussian charges, one per element, that act beyond the pair term's reach, nm; 0: none."""
    conservative: bool = False
    """Predict an energy and derive the forces from it, instead of the forces directly."""
    force_scale: float = 1.0
    """Root mean square of a force component in the training data, kJ/mol/nm."""
    metadata: dict[str, Any] = field(default_factory=dict, compare=False)
    """Where the weights come from: data, commands, held-out figures. Never read by the model."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", tuple(int(number) for number in self.elements))
        if not self.elements or len(set(self.elements)) != len(self.elements):
            raise SpecError(f"VectorGAMDSpec.elements is {self.elements}: give each atomic number once, at least one")
        if self.width < 16 or self.width % 16:
            raise SpecError(f"VectorGAMDSpec.width is {self.width}: give a multiple of 16")
        for name, least in (("num_layers", 1), ("num_radial", 4), ("pair_radial", 8)):
            if getattr(self, name) < least:
                raise SpecError(f"VectorGAMDSpec.{name} is {getattr(self, name)}: give at least {least}")
        if not 0 <= self.min_distance < self.neighbors.cutoff:
            raise SpecError(
                f"VectorGAMDSpec.min_distance is {self.min_distance} nm: give 0 or more, below the cutoff "
                f"({self.neighbors.cutoff} nm)"
            )
        if not (self.pair_cutoff == 0 or self.min_distance < self.pair_cutoff < math.inf):
            raise SpecError(
                f"VectorGAMDSpec.pair_cutoff is {self.pair_cutoff} nm: give 0, or a length above min_distance "
                f"({self.min_distance} nm)"
            )
        if not 0 <= self.charge_width <= max(0.0, self.pair_cutoff):
            raise SpecError(
                f"VectorGAMDSpec.charge_width is {self.charge_width} nm: give 0, or a width well below pair_cutoff "
                f"({self.pair_cutoff} nm), whose splines correct the charges at short range"
            )
        if not (math.isfinite(self.force_scale) and self.force_scale > 0):
            raise SpecError(f"VectorGAMDSpec.force_scale is {self.force_scale} kJ/mol/nm: give a finite number above 0")


@dataclass(frozen=True)
class EncoderForceSpec:
    """Everything that defines an encoder with forces but its weights. Forces in kJ/mol/nm, the encoder in its own unit.

    The cutoff is the encoder's; every neighbour within it counts, as the choice of the nearest ones makes forces jump.
    """

    use_bonds: ClassVar[bool] = False
    """Whether the network knows which atoms are bonded: it does not."""
    uses_types: ClassVar[bool] = False
    """Whether the network is given the types of its pairs: it is not."""
    is_covariant: ClassVar[bool] = True
    """Whether forces turn with the positions exactly."""

    encoder: EncoderSpec
    elements: tuple[int, ...]
    """Atomic numbers the network knows; an atom's species is its index here."""
    conservative: bool = False
    """Predict an energy and derive the forces from it, instead of the forces directly."""
    head_width: int = 32
    """Scalars, and vectors, between the layers of the head; half the encoder's lets a denoising head begin."""
    head_layers: int = 2
    remove_net_force: bool = False
    """Subtract the mean force from forces predicted directly (derived ones have none)."""
    skin: float = 0.1
    """Width of the shell around the cutoff from which the neighbour list keeps pairs, nm."""
    max_neighbors: int = 96
    """Capacity of the neighbour list: mean number of pairs per atom within cutoff + skin, each pair counted once."""
    force_scale: float = 1.0
    """Root mean square of a force component in the training data, kJ/mol/nm."""
    metadata: dict[str, Any] = field(default_factory=dict, compare=False)
    """Where the weights come from: data, commands, held-out figures. Never read by the model."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", tuple(int(number) for number in self.elements))
        most = self.encoder.max_atomic_number
        if not self.elements or len(set(self.elements)) != len(self.elements) or max(self.elements) > most:
            raise SpecError(
                f"EncoderForceSpec.elements is {self.elements}: give each atomic number once, at least one, none above "
                f"the encoder's max_atomic_number ({most})"
            )
        if self.encoder.neighbor_rule is not NeighborRule.FULL:
            raise SpecError(
                f"EncoderForceSpec.encoder has the neighbour rule {self.encoder.neighbor_rule.value}: give full, or "
                "forces jump whenever another atom becomes the last of the nearest"
            )
        for name in ("head_width", "head_layers"):
            if getattr(self, name) < 1:
                raise SpecError(f"EncoderForceSpec.{name} is {getattr(self, name)}: give at least 1")
        if not (math.isfinite(self.force_scale) and self.force_scale > 0):
            raise SpecError(
                f"EncoderForceSpec.force_scale is {self.force_scale} kJ/mol/nm: give a finite number above 0"
            )
        _ = self.neighbors  # which checks itself

    @property
    def neighbors(self) -> NeighborSpec:
        """The neighbourhood of an atom, nm."""
        return NeighborSpec(self.encoder.cutoff / self.encoder.per_nm, self.skin, self.max_neighbors)


ForceSpec = GAMDSpec | VectorGAMDSpec | EncoderForceSpec
"""The spec of any force model."""
FORCE_SPECS: tuple[type[ForceSpec], ...] = (GAMDSpec, VectorGAMDSpec, EncoderForceSpec)
