"""What denoising learns from: frames of many molecules, put together in an order that a restart repeats exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from openmm_gnn.pretraining.conformations import Molecule
from openmm_gnn.spec import EncoderSpec
from openmm_gnn.units import ANGSTROM_PER_NM


class MoleculeBatch(NamedTuple):
    """Several molecules; atom k belongs to molecule batch[k]."""

    atomic_numbers: Tensor
    """(N,) int64."""
    positions: Tensor
    """(N, 3) float32, without noise, in the encoder's length unit."""
    batch: Tensor
    """(N,) int64, not falling."""


class MoleculeFrames(Dataset[tuple[Tensor, Tensor]]):
    """Every frame of some molecules: atomic numbers (N,) and positions (N, 3) in the encoder's length unit."""

    def __init__(self, molecules: Sequence[Molecule], hydrogens: bool, length_unit: str) -> None:
        self.scale = unit_per_nm(length_unit)
        self.molecules = list(molecules)
        self.kept = [
            np.flatnonzero((molecule.atomic_numbers != 1) | hydrogens).astype(np.int64) for molecule in self.molecules
        ]
        self.where = [(m, frame) for m, molecule in enumerate(self.molecules) for frame in range(molecule.num_frames)]

    def __len__(self) -> int:
        return len(self.where)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        number, frame = self.where[index]
        molecule, kept = self.molecules[number], self.kept[number]
        positions = torch.from_numpy(np.array(molecule.positions[frame])[kept] * np.float32(self.scale))
        return torch.from_numpy(molecule.atomic_numbers[kept]), positions


def unit_per_nm(length_unit: str) -> float:
    """How many of `EncoderSpec.length_unit` are in a nanometre."""
    return ANGSTROM_PER_NM if length_unit == "angstrom" else 1.0


def collate(frames: Sequence[tuple[Tensor, Tensor]]) -> MoleculeBatch:
    """Molecules one behind the other."""
    sizes = torch.tensor([len(numbers) for numbers, _ in frames])
    return MoleculeBatch(
        torch.cat([numbers for numbers, _ in frames]),
        torch.cat([positions for _, positions in frames]),
        torch.repeat_interleave(torch.arange(len(frames)), sizes),
    )


def standard_noise(num_atoms: int, seed: int, step: int) -> Tensor:
    """(num_atoms, 3) float32 normal numbers of unit variance, the same ones for the same seed and step."""
    state = np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state % 2**63))
    return torch.randn((num_atoms, 3), generator=generator)


def noise_scale_of(spec: EncoderSpec) -> float:
    """Standard deviation of the noise that an encoder's head was or will be trained on, in its length unit.

    Raises:
        ValueError: if the encoder has no such head.
    """
    if spec.noise_scale <= 0:
        raise ValueError("this encoder has no denoising head: give EncoderSpec.noise_scale a length above 0")
    return spec.noise_scale
