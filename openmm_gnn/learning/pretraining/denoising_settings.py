"""How an encoder is pretrained, and on what hardware."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from openmm_gnn.base.errors import SpecError


class Precision(str, Enum):
    """Of the arithmetic of training steps. Weights, their average, the loss and validations are float32."""

    FLOAT32 = "32"
    BFLOAT16_MIXED = "bf16-mixed"
    """Matrix products and messages in bfloat16."""


class Strategy(str, Enum):
    """How several processes train together."""

    AUTO = "auto"
    DDP = "ddp"
    """Each process has all weights and a part of every step's frames; gradients are summed, by NCCL or gloo."""


@dataclass(frozen=True)
class DenoisingSettings:
    """How to pretrain; everything about the network itself is in its spec."""

    num_steps: int = 8000
    batch_size: int = 16
    """Molecules per step, of all processes."""
    batch_atoms: int = 0
    """At most so many atoms per step, of all processes, in place of `batch_size`; 0: `batch_size` counts."""
    noise_scales: tuple[float, ...] = ()
    """Standard deviations of the noise, in the encoder's length unit; each molecule of a step draws one of them, and
    each is validated. Empty: `EncoderSpec.noise_scale` alone, which is the unit of the head in any case."""
    learning_rate: float = 5e-4
    """Highest of the schedule: a linear rise, then half a cosine down to zero."""
    warmup_steps: int = 200
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    average_decay: float = 0.999
    """Of the exponential moving average of the weights, which is what is validated and kept."""
    start_share: float = 0.0
    """Share of the weights begun with in what is validated and kept, beside the trained ones: a half keeps what the
    start knew of other data at a small cost on these. Source: Wortsman et al., "Robust fine-tuning of zero-shot
    models", CVPR 2022, arXiv 2109.01903."""
    hydrogens: bool = False
    validate_every: int = 250
    """Steps; also between checkpoints, which a kill costs at most."""
    precision: Precision = Precision.FLOAT32
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise_scales", tuple(float(scale) for scale in self.noise_scales))
        try:
            object.__setattr__(self, "precision", Precision(self.precision))
        except ValueError as error:
            raise SpecError(f"{error}: give one of {[kind.value for kind in Precision]}") from error
        if self.num_steps < 1 or self.validate_every < 1 or self.num_steps % self.validate_every:
            raise SpecError(
                f"{self.num_steps} steps with a validation every {self.validate_every}: give a multiple, so that the "
                "last step is validated"
            )
        if not 0 <= self.average_decay < 1:
            raise SpecError(f"the decay of the average is {self.average_decay}: give 0 (none) or more, below 1")
        if not 0 <= self.start_share <= 1:
            raise SpecError(f"the share of the start's weights is {self.start_share}: give 0 to 1")
        if self.batch_size < 1 or self.batch_atoms < 0:
            raise SpecError(
                f"a step has {self.batch_size} molecules, or at most {self.batch_atoms} atoms: give at least one "
                "molecule, and 0 or more atoms"
            )
        if not all(math.isfinite(scale) and scale > 0 for scale in self.noise_scales):
            raise SpecError(f"the noise scales are {self.noise_scales}: give finite lengths above 0")
        if len(set(self.noise_scales)) < len(self.noise_scales):
            raise SpecError(f"the noise scales are {self.noise_scales}: give each once")


@dataclass(frozen=True)
class Hardware:
    """What a pretraining runs on. Frames, noise and loss of a step do not depend on it, but for rounding."""

    devices: int = 1
    """Processes, each with a GPU of its own where there are any."""
    strategy: Strategy = Strategy.AUTO
    workers: int = 0
    """Processes that load frames, for each of the others; 0: they load their own."""

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "strategy", Strategy(self.strategy))
        except ValueError as error:
            raise SpecError(f"{error}: give one of {[kind.value for kind in Strategy]}") from error
        if self.devices < 1 or self.workers < 0:
            raise SpecError(f"{self.devices} devices, {self.workers} workers: give at least 1, and 0 or more")
