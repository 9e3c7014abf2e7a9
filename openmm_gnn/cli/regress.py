"""Learn a property from labels in files, on an encoder that stays as it is or learns along.

Molecules are held out as a whole. Predict it of others, never seen before, with `openmm-gnn predict`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from openmm_gnn.cli.options import Nested, Result, RunCommand, TorchCommand
from openmm_gnn.learning.settings import LearnedProperty, PropertySettings


@dataclass(frozen=True, kw_only=True)
class Regress(TorchCommand, RunCommand):
    labels: tyro.conf.Positional[Path]
    """File of the labels: extended XYZ; or .csv with the columns molecule, perhaps frame, and the property."""
    encoder: str
    """Encoder: a shipped name, a bundle (.safetensors), or a geom2vec checkpoint (.pth)."""
    out: Path
    """Directory of the run: model.safetensors, log.csv, last.ckpt."""
    wanted: Annotated[LearnedProperty, Nested(names={"name": "property"}, without=("hydrogens",))]
    hydrogens: bool = False
    """Let the network see hydrogens. Default: if the encoder knows them."""
    no_hydrogens: bool = False
    """Hide hydrogens from the network."""
    settings: Annotated[
        PropertySettings, Nested(names={"freeze_encoder": "freeze"}, without=("gradient_clip", "warmup_steps"))
    ]

    def run(self) -> Result:
        from openmm_gnn.learning.properties.properties import regress, summary_of
        from openmm_gnn.networks.weights import figures_of

        wanted = replace(self.wanted, hydrogens=None if self.hydrogens == self.no_hydrogens else self.hydrogens)
        bundle = regress(self.labels, self.encoder, wanted, self.out, self.settings, self.progress)
        after = f"`openmm-gnn predict {bundle} FILES --out {wanted.name}.csv`"
        return Result(summary_of(bundle), next=after, **figures_of(bundle))
