"""How an encoder is pretrained, and on what hardware."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from openmm_gnn.base.errors import SettingsError, SpecError, at_least, one_of, positive, share, whole

USUAL_NOISE = 0.2
"""Standard deviation of the noise, angstrom, where neither settings nor the weights to start from say another."""


class Precision(str, Enum):
    """Arithmetic of training steps. Weights, their average, the loss and validations are float32."""

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
    """How an encoder is pretrained; everything about the network itself is in its spec."""

    noise_scales: tuple[float, ...] = ()
    """Standard deviation of the noise, angstrom; may be given again: each molecule of a step draws one. The first is
    the unit of the denoising head, and chooses the best weights. Default: 0.2, or that of the weights to start from."""
    hydrogens: bool = False
    """Learn from hydrogens, too."""
    hold_out: int = 10
    """Held-out molecules, which choose the best weights: 10 holds out every tenth."""
    num_steps: int = 8000
    """Number of optimisation steps, a multiple of the steps between validations."""
    batch_size: int = 16
    """Number of molecules per optimisation step, of all processes together."""
    batch_atoms: int = 0
    """Largest number of atoms per optimisation step, of all processes together, in place of a number of molecules; 0:
    the number of molecules counts."""
    learning_rate: float = 5e-4
    """Highest learning rate of the schedule: a linear rise, then half a cosine down to zero."""
    warmup_steps: int = 200
    """Number of optimisation steps in which the learning rate rises."""
    weight_decay: float = 0.01
    """Weight decay of AdamW."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient of all weights; a longer one is shortened."""
    average_decay: float = 0.999
    """Decay of the exponential moving average of the weights, which is validated and kept; 0: no average."""
    start_share: float = 0.0
    """Share of the starting weights in those that are validated and kept: 0.5 keeps what they learned of other data at
    a small cost on these. Source: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, arXiv
    2109.01903."""
    validate_every: int = 250
    """Number of optimisation steps between validations and checkpoints; a killed run repeats at most these."""
    precision: Precision = Precision.FLOAT32
    """Arithmetic of training steps: float32 (32), or bfloat16 where it is precise enough (bf16-mixed)."""
    seed: int = 0
    """Random seed of the weights, the order of the molecules and the noise."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise_scales", tuple(float(scale) for scale in self.noise_scales))
        one_of(self, Precision, "precision")
        if self.num_steps < 1 or self.validate_every < 1 or self.num_steps % self.validate_every:
            raise SpecError(
                f"{self.num_steps} steps with a validation every {self.validate_every}: give a multiple, so that the "
                "last step is validated"
            )
        whole(self, 1, "batch_size")
        whole(self, 0, "batch_atoms", "warmup_steps", "seed")
        whole(self, 2, "hold_out")
        positive(self, "learning_rate", "gradient_clip")
        at_least(self, 0, "weight_decay")
        share(self, "average_decay")
        if not 0 <= self.start_share <= 1:
            raise SettingsError(self, "start_share", "give 0 to 1")
        if not all(0 < scale < float("inf") for scale in self.noise_scales):
            raise SettingsError(self, "noise_scales", "give finite lengths above 0")
        if len(set(self.noise_scales)) < len(self.noise_scales):
            raise SettingsError(self, "noise_scales", "give each once")


@dataclass(frozen=True)
class Hardware:
    """What a pretraining runs on. Frames, noise and loss of a step do not depend on it, but for rounding."""

    devices: int = 1
    """Number of processes that share each step, each with a GPU of its own if there are any."""
    strategy: Strategy = Strategy.AUTO
    """Way in which several processes work together; auto is ddp."""
    workers: int = 0
    """Number of processes that load frames for each training process; 0: it loads its own."""

    def __post_init__(self) -> None:
        one_of(self, Strategy, "strategy")
        whole(self, 1, "devices")
        whole(self, 0, "workers")
