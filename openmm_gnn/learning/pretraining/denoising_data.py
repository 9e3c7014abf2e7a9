"""The data of a pretraining for Lightning: loaders of each process, and the sets that errors are told apart by."""

from __future__ import annotations

import re
from collections.abc import Sequence

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.data.conformers.conformations import Molecule
from openmm_gnn.learning.pretraining.denoising_meter import ERROR, DenoisingErrorMeter
from openmm_gnn.learning.pretraining.denoising_settings import DenoisingSettings, Hardware
from openmm_gnn.learning.pretraining.noisy_batches import (
    HeldOutShares,
    NoisyBatch,
    NoisyFrames,
    StepShares,
    collate_noisy,
    held_out_frames,
)
from openmm_gnn.learning.pretraining.noisy_frames import MoleculeFrames
from openmm_gnn.learning.step_order import AtomOrder, StepOrder


class DenoisingData(lightning.LightningDataModule):
    """Molecules to train on and molecules held out.

    Raises:
        SpecError: if a molecule is larger than a step may be, or a step has fewer molecules than there are processes.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        training: Sequence[Molecule],
        validation: Sequence[Molecule],
        settings: DenoisingSettings,
        hardware: Hardware,
    ) -> None:
        super().__init__()
        self.settings, self.hardware = settings, hardware
        self.scales = settings.noise_scales or (spec.noise_scale,)
        self.training = MoleculeFrames(training, settings.hydrogens, spec.length_unit)
        self.held_out = MoleculeFrames(validation, settings.hydrogens, spec.length_unit)
        self.set_names, self.set_of = sets_of(self.held_out)
        if settings.batch_atoms:
            self.order: StepOrder = AtomOrder(
                self.training.sizes, settings.batch_atoms, settings.validate_every, settings.seed
            )
        elif settings.batch_size < hardware.devices:
            raise SpecError(
                f"{hardware.devices} processes share {settings.batch_size} molecules per step: give at least one each"
            )
        else:
            self.order = StepOrder(len(self.training), settings.batch_size, settings.validate_every, settings.seed)

    def train_dataloader(self) -> DataLoader[NoisyBatch]:
        """This process's share of the steps."""
        trainer = self.trainer
        assert trainer is not None
        shares = StepShares(
            self.order, self.training, lambda: trainer.global_step, trainer.global_rank, trainer.world_size
        )
        return self._loader(NoisyFrames(self.training, self.scales, self.settings.seed), shares)

    def val_dataloader(self) -> DataLoader[NoisyBatch]:
        """This process's share of the held-out frames; which scale their noise has is for the validation to say."""
        trainer, settings = self.trainer, self.settings
        assert trainer is not None
        shares = HeldOutShares(
            self.held_out, settings.batch_size, settings.batch_atoms, trainer.global_rank, trainer.world_size
        )
        return self._loader(held_out_frames(self.held_out, self.scales[0]), shares)

    def _loader(self, frames: NoisyFrames, shares: StepShares | HeldOutShares) -> DataLoader[NoisyBatch]:
        workers = self.hardware.workers
        return DataLoader(
            frames,  # type: ignore[arg-type]
            batch_sampler=shares,
            collate_fn=collate_noisy,
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    def columns(self, scales: Sequence[float]) -> list[str]:
        """Names of the errors on held-out molecules: at the first scale; at each, of each set, where there are more."""
        return list(self.named_errors(DenoisingErrorMeter((len(scales), len(self.set_names))), scales))

    def named_errors(self, meter: DenoisingErrorMeter, scales: Sequence[float]) -> dict[str, float]:
        """The errors that a meter of shape (scales, sets) has found."""
        found = {ERROR: meter.error_at(0)}
        if len(scales) > 1:
            found |= {f"{ERROR}_at_{scale:g}": meter.error_at(k) for k, scale in enumerate(scales)}
        if len(self.set_names) > 1:
            names = [re.sub(r"[^\w.-]+", "_", name) for name in self.set_names]  # no commas in log.csv
            found |= {f"{ERROR}_of_{name}": meter.error_at(0, k) for k, name in enumerate(names)}
        return found


def sets_of(frames: MoleculeFrames) -> tuple[list[str], Tensor]:
    """Names of the directories that molecules come from, and (num_frames,) int64 which of them each frame is from."""
    directories = [molecule.shard.path.parents[1].name for molecule in frames.molecules]
    names = sorted(set(directories))
    number = {name: k for k, name in enumerate(names)}
    per_molecule = np.array([number[name] for name in directories], dtype=np.int64)
    return names, torch.from_numpy(np.repeat(per_molecule, frames.frames_per_molecule))
