"""How networks are trained: the settings of force matching, of pretraining by denoising, and of properties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from openmm_gnn.base.errors import SettingsError, SpecError, at_least, one_of, positive, share, whole
from openmm_gnn.base.specs.encoder import Readout, Target

USUAL_NOISE = 0.2
"""Standard deviation of the noise, angstrom, where neither settings nor the weights to start from say another."""


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """How weights are optimised, step by step, in every training."""

    num_steps: int = 8000
    """Number of optimisation steps."""
    batch_size: int = 16
    """Number of frames per optimisation step."""
    learning_rate: float = 1e-3
    """Highest learning rate of the schedule: a linear rise, then half a cosine down to zero."""
    warmup_steps: int = 200
    """Number of optimisation steps in which the learning rate rises."""
    validate_every: int = 250
    """Number of optimisation steps between validations and checkpoints; a killed run repeats at most these."""
    seed: int = 0
    """Random seed of the weights, the order of the frames, and their rotations or noise."""

    def __post_init__(self) -> None:
        whole(self, 1, "num_steps", "batch_size", "validate_every")
        whole(self, 0, "warmup_steps", "seed")
        positive(self, "learning_rate")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Optimisation):
    """How a force model is trained; everything about the network itself is in its spec."""

    train_seeds: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    """Seeds of the trajectories to train on, such as 1-8 or 1,2,5."""
    validation_seeds: tuple[int, ...] = (9,)
    """Seeds of the trajectories that choose the best weights."""
    validation_frames: int = 100
    """Number of frames of the validation trajectories that each validation takes, evenly spread."""
    freeze_encoder: bool = False
    """Train only the head on an encoder, and the embeddings of elements that the encoder does not know."""
    random_weights: bool = False
    """Take the architecture of the encoder without what it has learned."""
    batch_size: int = 4
    learning_rate: float = 2e-3
    net_force_weight: float = 0.1
    """Weight of the net force in the loss, lambda in equation (10) of Li et al. (2022). It acts on the node decoder
    alone: a pair decoder has no net force."""
    validate_every: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self, 1, "validation_frames")
        at_least(self, 0, "net_force_weight")
        if both := sorted(set(self.train_seeds) & set(self.validation_seeds)):
            raise SettingsError(
                self,
                "validation_seeds",
                f"the seeds {both} are for training and for validation, a trajectory is for one of them",
            )
        if self.freeze_encoder and self.random_weights:
            raise SpecError("random weights are to be frozen: give a pretrained encoder, or let all weights learn")


def seed_ranges(seeds: Sequence[int]) -> str:
    """Seeds as text, such as "1-4,9", the form in which a bundle's metadata holds them."""
    parts: list[list[int]] = []
    for seed in seeds:
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


def seeds_in(ranges: str) -> list[int]:
    """The seeds that a text such as "1-4,9" names."""
    seeds: list[int] = []
    for part in ranges.split(","):
        first, _, last = part.strip().partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


class Precision(str, Enum):
    """Arithmetic of training steps. Weights, their average, the loss and validations are float32."""

    FLOAT32 = "32"
    BFLOAT16_MIXED = "bf16-mixed"
    """Matrix products and messages in bfloat16."""


@dataclass(frozen=True, kw_only=True)
class DenoisingSettings(Optimisation):
    """How an encoder is pretrained; everything about the network itself is in its spec."""

    noise_scales: tuple[float, ...] = ()
    """Standard deviations of the noise, angstrom: each molecule of a step draws one. The first is
    the unit of the denoising head, and chooses the best weights. Default: 0.2, or that of the weights to start from."""
    hydrogens: bool = False
    """Learn from hydrogens, too."""
    hold_out: int = 10
    """Held-out molecules, which choose the best weights: 10 holds out every tenth."""
    batch_size: int = 16
    """Number of molecules per optimisation step, of all processes together."""
    batch_atoms: int = 0
    """Largest number of atoms per optimisation step, of all processes together, in place of a number of molecules; 0:
    the number of molecules counts."""
    learning_rate: float = 5e-4
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
    precision: Precision = Precision.FLOAT32
    """Arithmetic of training steps: float32 (32), or bfloat16 where it is precise enough (bf16-mixed)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise_scales", tuple(float(scale) for scale in self.noise_scales))
        super().__post_init__()
        one_of(self, Precision, "precision")
        if self.num_steps % self.validate_every:
            raise SpecError(
                f"{self.num_steps} steps with a validation every {self.validate_every}: give a multiple, so that the "
                "last step is validated"
            )
        whole(self, 0, "batch_atoms")
        whole(self, 2, "hold_out")
        positive(self, "gradient_clip")
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
    workers: int = 0
    """Number of processes that load frames for each training process; 0: it loads its own."""

    def __post_init__(self) -> None:
        whole(self, 1, "devices")
        whole(self, 0, "workers")


@dataclass(frozen=True)
class LearnedProperty:
    """A property, and what is known of its labels and of the molecules that carry them."""

    name: str
    """Name of the property in the labels."""
    target: Target = Target.MOLECULE
    """Owner of the property: a molecule with one number (molecule) or one vector (vector), or each atom with one number
    (atom)."""
    readout: Readout = Readout.SUM
    """Operation that makes a molecule's property of its atoms' contributions: sum or mean."""
    unit: str = ""
    """Unit of the labels, to be shown; nothing is converted. Default: none is shown."""
    conformations: Path | None = None
    """Directory written by `openmm-gnn conformers`, with the molecules of a table of labels (.csv). Default: the labels
    are extended XYZ and bring their molecules."""
    group_key: str | None = None
    """Entry of extended XYZ that frames of one molecule share. Default: their formula."""
    hydrogens: bool | None = None
    """Whether the network sees hydrogens. Default: if the encoder knows them."""
    new_elements: bool = False
    """Learn embeddings of elements that the encoder does not know."""

    def __post_init__(self) -> None:
        one_of(self, Target, "target")
        one_of(self, Readout, "readout")


@dataclass(frozen=True, kw_only=True)
class PropertySettings(Optimisation):
    """How a property is learned; everything about the network itself is in its spec."""

    freeze_encoder: bool = True
    """Train only the head on the encoder, and the embeddings of elements that the encoder does not know."""
    random_weights: bool = False
    """Take the architecture of the encoder without what it has learned, and train all weights."""
    hold_out: int = 5
    """Held-out molecules, which choose the best weights: 5 holds out every fifth."""
    by_frame: bool = False
    """Hold out frames instead of whole molecules, for labels of one molecule."""
    num_steps: int = 2000
    warmup_steps: int = 100
    gradient_clip: float = 1.0
    """Largest norm of the gradient of all weights; a longer one is shortened."""
    validate_every: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self, 1, "hold_out")
        positive(self, "gradient_clip")
