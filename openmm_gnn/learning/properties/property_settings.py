"""Which property is learned from which labels, and how: the settings of a regression on an encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openmm_gnn.base.errors import one_of, positive, whole
from openmm_gnn.base.specs.encoder import Readout, Target


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


@dataclass(frozen=True)
class PropertySettings:
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
    """Number of optimisation steps."""
    batch_size: int = 16
    """Number of frames per optimisation step."""
    learning_rate: float = 1e-3
    """Highest learning rate of the schedule: a linear rise, then half a cosine down to zero."""
    warmup_steps: int = 100
    """Optimisation steps in which the learning rate rises."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient of all weights; a longer one is shortened."""
    validate_every: int = 200
    """Number of optimisation steps between validations and checkpoints; a killed run repeats at most these."""
    seed: int = 0
    """Random seed of the weights and the order of the frames."""

    def __post_init__(self) -> None:
        whole(self, 1, "hold_out", "num_steps", "batch_size", "validate_every")
        whole(self, 0, "warmup_steps", "seed")
        positive(self, "learning_rate", "gradient_clip")
