"""How a force model is trained: the settings of a training, and how trajectories are chosen by their seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from openmm_gnn.base.errors import SettingsError, SpecError, at_least, positive, whole


@dataclass(frozen=True)
class TrainingSettings:
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
    num_steps: int = 8000
    """Number of optimisation steps."""
    batch_size: int = 4
    """Number of frames per optimisation step."""
    learning_rate: float = 2e-3
    """Highest learning rate of the schedule: a linear rise, then half a cosine down to zero."""
    warmup_steps: int = 200
    """Number of optimisation steps in which the learning rate rises."""
    net_force_weight: float = 0.1
    """Weight of the net force in the loss, lambda in equation (10) of Li et al. (2022). It acts on the node decoder
    alone: a pair decoder has no net force."""
    validate_every: int = 500
    """Number of optimisation steps between validations and checkpoints; a killed run repeats at most these."""
    seed: int = 0
    """Random seed of the weights, the order of the frames and their rotations."""

    def __post_init__(self) -> None:
        whole(self, 1, "validation_frames", "num_steps", "batch_size", "validate_every")
        whole(self, 0, "warmup_steps", "seed")
        positive(self, "learning_rate")
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
