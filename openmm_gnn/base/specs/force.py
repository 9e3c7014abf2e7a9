"""Frozen specifications, the only place where a hyper-parameter is written, and their JSON form.

A spec is saved with the weights; model, export, force, reporter and analysis read it from there.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.units import ANGSTROM_PER_NM


class Decoder(str, Enum):
    """How GAMD turns atom features into forces."""

    NODE = "node"
    """The paper's: an MLP from each atom's features to its force."""
    PAIR = "pair"
    """f_i = sum_j s_ij r_ij / |r_ij| with s_ij = s_ji: covariant, no net force, no net torque."""


@dataclass(frozen=True)
class NeighborSpec:
    """The neighbourhood of an atom. Lengths in nm."""

    cutoff: float
    skin: float = 0.1
    max_neighbors: int = 96
    """Capacity of the list: mean number of pairs per atom, each pair counted once, within cutoff + skin."""

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

    neighbors: NeighborSpec
    elements: tuple[int, ...]
    """Atomic numbers the network knows; an atom's species is its index here."""
    decoder: Decoder = Decoder.PAIR
    width: int = 64
    num_layers: int = 2
    num_radial: int = 48
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


@dataclass(frozen=True)
class VectorGAMDSpec:
    """Everything that defines a VectorGAMD network but its weights. Lengths in nm, forces in kJ/mol/nm."""

    neighbors: NeighborSpec
    elements: tuple[int, ...]
    """Atomic numbers the network knows; an atom's species is its index here."""
    width: int = 32
    """Scalars, and vectors, of an atom; a multiple of 16."""
    num_layers: int = 2
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


class Architecture(str, Enum):
    """Which network an encoder is."""

    TORCHMD_ET = "torchmd-et"
    VISNET = "visnet"
    TENSORNET = "tensornet"


class NeighborRule(str, Enum):
    """Which of the atoms within the cutoff an atom listens to; see graph/edges.py."""

    NEAREST = "nearest"
    FULL = "full"
    INDEX = "index"


LENGTH_UNITS = {"angstrom": ANGSTROM_PER_NM, "nanometer": 1.0}
"""How many of each length unit of an encoder are in a nanometre."""


@dataclass(frozen=True)
class EncoderSpec:
    """Everything that defines an encoder but its weights. Lengths in `length_unit`."""

    architecture: Architecture
    num_layers: int
    cutoff: float
    width: int = 64
    """Scalars, and vectors, of an atom."""
    num_radial: int = 64
    num_heads: int = 8
    """Of the attention; TensorNet has none."""
    max_atomic_number: int = 99
    elements: tuple[int, ...] = ()
    """Atomic numbers the training data held; empty: unknown, every number up to `max_atomic_number` is taken."""
    neighbor_rule: NeighborRule = NeighborRule.NEAREST
    """Nearest is the best by the error of denoising: of the public TorchMD-ET 0.39 (full 0.40, index 0.69), of ViSNet
    0.37 (0.47, 0.77), of TensorNet 0.66 by all; see benchmarks/neighbor_rules.py."""
    max_neighbors: int = 32
    """Edges of an atom, its own included, by the rules nearest and index."""
    noise_scale: float = 0.0
    """Standard deviation of the noise that the denoising head was trained on, `length_unit`; 0: there is no head."""
    length_unit: str = "angstrom"
    metadata: dict[str, Any] = field(default_factory=dict, compare=False)
    """Where the weights come from: data, commands, figures. Never read by the model."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "architecture", Architecture(self.architecture))
        object.__setattr__(self, "neighbor_rule", NeighborRule(self.neighbor_rule))
        object.__setattr__(self, "elements", tuple(int(number) for number in self.elements))
        for name, least in (("num_layers", 1), ("num_radial", 2), ("num_heads", 1), ("max_neighbors", 1)):
            if getattr(self, name) < least:
                raise SpecError(f"EncoderSpec.{name} is {getattr(self, name)}: give at least {least}")
        if self.width < 2 or self.width % 2 or self.width % self.num_heads:
            raise SpecError(
                f"EncoderSpec.width is {self.width}: give an even multiple of num_heads ({self.num_heads}), at least 2"
            )
        if not (math.isfinite(self.cutoff) and self.cutoff > 0):
            raise SpecError(f"EncoderSpec.cutoff is {self.cutoff}: give a finite length above 0")
        if not (math.isfinite(self.noise_scale) and self.noise_scale >= 0):
            raise SpecError(f"EncoderSpec.noise_scale is {self.noise_scale}: give a finite length, 0 for no head")
        if self.length_unit not in LENGTH_UNITS:
            raise SpecError(f"EncoderSpec.length_unit is {self.length_unit!r}: give one of {tuple(LENGTH_UNITS)}")
        unknown = [number for number in self.elements if not 1 <= number <= self.max_atomic_number]
        if unknown or len(set(self.elements)) != len(self.elements):
            raise SpecError(
                f"EncoderSpec.elements is {self.elements}: give each atomic number once, "
                f"from 1 to max_atomic_number ({self.max_atomic_number})"
            )

    @property
    def per_nm(self) -> float:
        """How many of `length_unit` are in a nanometre."""
        return LENGTH_UNITS[self.length_unit]


@dataclass(frozen=True)
class EncoderForceSpec:
    """Everything that defines an encoder with forces but its weights. Forces in kJ/mol/nm, the encoder in its own unit.

    The cutoff is the encoder's; every neighbour within it counts, as the choice of the nearest ones makes forces jump.
    """

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
    """Of the neighbour list, nm."""
    max_neighbors: int = 96
    """Capacity of the neighbour list, see `NeighborSpec`."""
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

    @property
    def use_bonds(self) -> bool:
        """Whether the network is told which atoms are bonded: it is not."""
        return False


ForceSpec = GAMDSpec | VectorGAMDSpec | EncoderForceSpec
"""The spec of any force model."""
ModelSpec = ForceSpec | EncoderSpec
"""The spec of anything that a bundle can hold."""
SPEC_VERSION = 1
KINDS: dict[str, Any] = {
    "gamd": GAMDSpec,
    "vector-gamd": VectorGAMDSpec,
    "encoder": EncoderSpec,
    "encoder-force": EncoderForceSpec,
}


def spec_to_json(spec: ModelSpec) -> str:
    """The JSON form of a spec, with the model's kind and the version of the layout."""
    (kind,) = (name for name, made in KINDS.items() if type(spec) is made)
    return json.dumps({"kind": kind, "version": SPEC_VERSION, "spec": dataclasses.asdict(spec)}, sort_keys=True)


def spec_from_json(text: str) -> ForceSpec:
    """The spec of a force model, written by `spec_to_json`.

    Raises:
        SpecError: if the text is no JSON, of another kind or version, or has unknown or missing fields.
    """
    spec = _any_spec_from_json(text)
    if isinstance(spec, EncoderSpec):
        raise SpecError("the specification is an encoder's, which has no forces: load it with load_encoder")
    return spec


def encoder_spec_from_json(text: str) -> EncoderSpec:
    """The spec of an encoder, written by `spec_to_json`; refuses what `spec_from_json` refuses."""
    spec = _any_spec_from_json(text)
    if not isinstance(spec, EncoderSpec):
        raise SpecError(f"the specification is a {type(spec).__name__}, a force model's: load it with load_model")
    return spec


def _any_spec_from_json(text: str) -> ModelSpec:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise SpecError(f"the specification is not JSON ({error}): the file is damaged or not ours") from error
    if not isinstance(document, dict) or document.get("kind") not in KINDS:
        raise SpecError(f"the specification starts with {text[:60]!r}: expected a kind among {sorted(KINDS)}")
    if document.get("version") != SPEC_VERSION:
        raise SpecError(
            f"the specification has version {document.get('version')}, this package reads {SPEC_VERSION}: "
            "install the release of openmm_gnn that wrote it"
        )
    fields, made = dict(document["spec"]), KINDS[document["kind"]]
    try:
        if made is EncoderForceSpec:
            fields["encoder"] = EncoderSpec(**fields["encoder"])
        elif made is not EncoderSpec:
            fields["neighbors"] = NeighborSpec(**fields["neighbors"])
        return made(**fields)
    except (TypeError, KeyError) as error:
        raise SpecError(f"the specification has unknown or missing fields: {error}") from error
