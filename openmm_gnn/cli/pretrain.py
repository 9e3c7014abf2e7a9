"""Pretrain an encoder by denoising; a killed run goes on when the command is given again.

The error is the mean square of the noise that remains, divided by that of the noise that was added, on held-out
molecules: 1.0 means that nothing was learned. The bundle is read by `load_encoder`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.base.units import ANGSTROM_PER_NM
from openmm_gnn.cli.options import Nested, Result, RunCommand, TorchCommand
from openmm_gnn.learning.settings import DenoisingSettings, Hardware

LEARNED = ("cutoff", "max_atomic_number", "elements", "noise_scale", "length_unit", "metadata")
"""Fields of a spec that come from the data, or that the command has in another unit."""


@dataclass(frozen=True, kw_only=True)
class Pretrain(TorchCommand, RunCommand):
    data: tyro.conf.Positional[tuple[Path, ...]]
    """Directories written by `openmm-gnn conformers` or `import-conformers`."""
    out: Path
    """Directory of the run: model.safetensors, log.csv, last.ckpt, tensorboard."""
    encoder: str | None = None
    """Encoder to start from, which brings its architecture and cutoff: a shipped name, a bundle (.safetensors), or a
    geom2vec checkpoint (.pth). Default: random weights."""
    cutoff: float = EncoderSpec.cutoff / ANGSTROM_PER_NM
    """Distance below which atoms are neighbours, nm."""
    spec: Annotated[
        Callable[..., EncoderSpec], Nested(EncoderSpec, names={"max_neighbors": "max-edges"}, without=LEARNED)
    ]
    settings: Annotated[
        DenoisingSettings,
        Nested(names={"noise_scales": "noise", "warmup_steps": "warmup"}, without=("gradient_clip",)),
    ]
    test: tuple[Path, ...] = ()
    """PDB or PDBx/mmCIF file, never trained on, whose error is kept with the weights; may be given again."""
    skip_bad: bool = False
    """Leave out molecules that are damaged, and count them."""
    hardware: Hardware

    def run(self) -> Result | None:
        from openmm_gnn.learning.pretraining.denoising import is_first_process, pretrain, summary_of
        from openmm_gnn.networks.weights import figures_of

        bundle = pretrain(
            self.data,
            self.out,
            partial(self.spec, cutoff=self.cutoff * ANGSTROM_PER_NM),
            self.settings,
            self.encoder,
            self.hardware,
            self.test,
            self.skip_bad,
            self.progress,
        )
        after = f"`load_encoder`, or --features {bundle} of `openmm-gnn simulate`, or --encoder of `featurize`"
        return Result(summary_of(bundle), next=after, **figures_of(bundle)) if is_first_process() else None
