"""Frozen specifications of force models: the only place where a hyper-parameter of theirs is written.

A spec is saved with the weights; model, export, force, reporter and analysis read it from there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, ClassVar

from openmm_gnn.base.errors import SpecError, at_least, atomic_numbers, one_of, positive
from openmm_gnn.base.specs.encoder import EncoderSpec, NeighborRule


class ExportFormat(str, Enum):
    """What `openmm-gnn export` writes."""

    PT = "pt"
    """TorchScript, for torch.jit.load in Python and C++."""
    PT2 = "pt2"
    """A program of torch.export, for torch.export.load in Python, and for compilers."""
    AOTI = "aoti"
    """That program compiled by AOTInductor, for torch._inductor.aoti_load_package."""
    METATOMIC = "metatomic"
    """A model of metatomic, for its engines: ASE, i-PI, PLUMED, LAMMPS."""
    NNPOT = "nnpot"
    """TorchScript for NNPot, the interface of GROMACS."""


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
        positive(self, "cutoff")
        at_least(self, 0, "skin")
        at_least(self, 1, "max_neighbors")


def _check_min_distance(spec: GAMDSpec | VectorGAMDSpec) -> None:
    if not 0 <= spec.min_distance < spec.neighbors.cutoff:
        raise SpecError(
            f"{type(spec).__name__}.min_distance is {spec.min_distance} nm: give 0 or more, below the cutoff "
            f"({spec.neighbors.cutoff} nm)"
        )


@dataclass(frozen=True)
class GAMDSpec:
    """Everything that defines a GAMD network but its weights. Lengths in nm, forces in kJ/mol/nm."""

    kind: ClassVar[str] = "gamd"
    """Name of the kind in the JSON form."""
    conservative: ClassVar[bool] = False
    """Whether forces are the gradient of an energy: they are predicted directly."""

    neighbors: NeighborSpec
    elements: tuple[int, ...]
    """Atomic numbers the network knows; an atom's species is its index here."""
    decoder: Decoder = Decoder.PAIR
    """Origin of the forces: pairs of atoms (pair: covariant, no net force), or each atom as in the paper (node)."""
    width: int = 64
    """Number of features of an atom and of an edge."""
    num_layers: int = 2
    """Number of rounds of messages."""
    num_radial: int = 48
    """Number of radial basis functions."""
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
        one_of(self, Decoder, "decoder")
        atomic_numbers(self)
        at_least(self, 2, "width", "num_radial", "envelope_exponent")
        at_least(self, 0, "num_layers")
        positive(self, "force_scale")
        if self.decoder is Decoder.NODE and self.num_layers == 0:
            raise SpecError("GAMDSpec.num_layers is 0: a node decoder needs at least 1 layer")
        _check_min_distance(self)

    @property
    def uses_types(self) -> bool:
        """Whether the network is given the types of its pairs, `pair_types`."""
        return self.use_bonds

    @property
    def is_covariant(self) -> bool:
        """Whether forces turn with the positions exactly, so that training needs no rotated frames."""
        return self.decoder is Decoder.PAIR

    @property
    def reach(self) -> float:
        """From how far an atom is influenced, nm: cutoff times rounds of messages, and once more for pairs."""
        return self.neighbors.cutoff * (self.num_layers + 1)


@dataclass(frozen=True)
class VectorGAMDSpec:
    """Everything that defines a VectorGAMD network but its weights. Lengths in nm, forces in kJ/mol/nm."""

    kind: ClassVar[str] = "vector-gamd"
    """Name of the kind in the JSON form."""
    uses_types: ClassVar[bool] = True
    """Whether the network is given the types of its pairs: pairs of each type have splines of their own."""
    is_covariant: ClassVar[bool] = True
    """Whether forces turn with the positions exactly."""

    neighbors: NeighborSpec
    elements: tuple[int, ...]
    """Atomic numbers the network knows; an atom's species is its index here."""
    width: int = 32
    """Number of scalars, and of vectors, of an atom; a multiple of 16."""
    num_layers: int = 2
    """Number of rounds of messages."""
    num_radial: int = 20
    """Number of spline coefficients of a radial function."""
    min_distance: float = 0.08
    """Distance at which the splines begin, nm: below the shortest distance of two atoms."""
    use_bonds: bool = True
    """Give atoms that are one or two bonds apart radial functions of their own."""
    pair_cutoff: float = 0.0
    """Reach of the pair term, nm: a sum of splines for what is pairwise and long-ranged; 0 for none."""
    pair_radial: int = 60
    """Number of spline coefficients of the pair term."""
    charge_width: float = 0.0
    """Width of Gaussian charges, one per element, that act beyond the pair term's reach, nm; 0: none."""
    conservative: bool = False
    """Predict an energy and derive the forces from it, instead of the forces directly."""
    force_scale: float = 1.0
    """Root mean square of a force component in the training data, kJ/mol/nm."""
    metadata: dict[str, Any] = field(default_factory=dict, compare=False)
    """Where the weights come from: data, commands, held-out figures. Never read by the model."""

    def __post_init__(self) -> None:
        atomic_numbers(self)
        if self.width < 16 or self.width % 16:
            raise SpecError(f"VectorGAMDSpec.width is {self.width}: give a multiple of 16")
        at_least(self, 1, "num_layers")
        at_least(self, 4, "num_radial")
        at_least(self, 8, "pair_radial")
        positive(self, "force_scale")
        _check_min_distance(self)
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

    @property
    def reach(self) -> float:
        """From how far an atom is influenced, nm; infinite with charges."""
        if self.charge_width > 0:
            return math.inf
        return max(self.neighbors.cutoff * (self.num_layers + 1), self.pair_cutoff)


@dataclass(frozen=True)
class EncoderForceSpec:
    """Everything that defines an encoder with forces but its weights. Forces in kJ/mol/nm, the encoder in its own unit.

    The cutoff is the encoder's; every neighbour within it counts, as the choice of the nearest ones makes forces jump.
    """

    kind: ClassVar[str] = "encoder-force"
    """Name of the kind in the JSON form."""
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
        atomic_numbers(self, self.encoder.max_atomic_number)
        at_least(self, 1, "head_width", "head_layers")
        positive(self, "force_scale")
        if self.encoder.neighbor_rule is not NeighborRule.FULL:
            raise SpecError(
                f"EncoderForceSpec.encoder has the neighbour rule {self.encoder.neighbor_rule.value}: give full, or "
                "forces jump whenever another atom becomes the last of the nearest"
            )
        if not self.encoder.smooth:  # older JSON forms do not say so
            object.__setattr__(self, "encoder", replace(self.encoder, smooth=True))
        _ = self.neighbors  # which checks itself

    @property
    def neighbors(self) -> NeighborSpec:
        """The neighbourhood of an atom, nm."""
        return NeighborSpec(self.encoder.cutoff / self.encoder.per_nm, self.skin, self.max_neighbors)

    @property
    def reach(self) -> float:
        """From how far an atom is influenced, nm."""
        return self.neighbors.cutoff * self.encoder.num_layers


ForceSpec = GAMDSpec | VectorGAMDSpec | EncoderForceSpec
"""The spec of any force model."""
FORCE_SPECS: tuple[type[ForceSpec], ...] = (GAMDSpec, VectorGAMDSpec, EncoderForceSpec)
