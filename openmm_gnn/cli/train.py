"""Train a network on the forces of labelled trajectories; a killed run goes on when the command is given again.

Whole trajectories are held out by their seeds: those in neither list are left for `openmm-gnn evaluate`.

The options of the network depend on --network: see `openmm-gnn train --network vector --help`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

import tyro

from openmm_gnn.base.errors import SettingsError
from openmm_gnn.base.specs.force import EncoderForceSpec, ForceSpec, GAMDSpec, VectorGAMDSpec
from openmm_gnn.cli.options import Command, Nested, Result, RunCommand, TorchCommand, value_of, with_settings
from openmm_gnn.learning.settings import TrainingSettings

LEARNED = ("elements", "force_scale", "metadata", "encoder", "head_width", "head_layers")
"""Fields of a spec that come from the data and the encoder."""


class Network(str, Enum):
    """The force models that can be trained."""

    GAMD = "gamd"
    VECTOR = "vector"
    ENCODER = "encoder"


SPECS = {Network.GAMD: GAMDSpec, Network.VECTOR: VectorGAMDSpec, Network.ENCODER: EncoderForceSpec}


@dataclass(frozen=True, kw_only=True)
class Train(TorchCommand, RunCommand):
    data: tyro.conf.Positional[tuple[Path, ...]]
    """Directories written by `openmm-gnn label` or `import-labels`."""
    out: Path
    """Directory of the run: model.safetensors, log.csv, last.ckpt."""
    network: Network = Network.GAMD
    """Network to train: gamd is the paper's; in vector the atoms carry vectors too, for molecules; encoder is a
    pretrained encoder with a head, which brings its own cutoff, width and layers."""
    encoder: str | None = None
    """Encoder to start from, with --network encoder: a shipped name, a bundle (.safetensors), or a geom2vec checkpoint
    (.pth)."""
    settings: Annotated[
        TrainingSettings, Nested(names={"freeze_encoder": "freeze"}, without=("net_force_weight", "warmup_steps"))
    ]
    spec: Annotated[Callable[..., ForceSpec], Nested(GAMDSpec, without=LEARNED)]

    def __post_init__(self) -> None:
        if (self.network is Network.ENCODER) != (self.encoder is not None):
            raise SettingsError(self, "encoder", "--network encoder and --encoder NAME go together")

    @classmethod
    def variant(cls, arguments: Sequence[str]) -> type[Command]:
        return with_settings(cls, "spec", SPECS[value_of("--network", Network, Network.GAMD, arguments)])

    def run(self) -> Result:
        from openmm_gnn.learning.training.force_matching import train
        from openmm_gnn.networks.weights import figures_of

        bundle = train(self.data, self.out, self.spec, self.settings, self.encoder, self.progress)
        after = f"`openmm-gnn evaluate {bundle} {self.data[0]} --seeds SEEDS`, on seeds that it was not trained on"
        return Result(f"wrote {bundle}", next=after, **figures_of(bundle))
