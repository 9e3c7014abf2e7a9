"""What denoising learns from: frames of many molecules, and noise that belongs to a frame of a step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from openmm_gnn.base.specs.encoder import LENGTH_UNITS, EncoderSpec
from openmm_gnn.data.conformers.conformations import Molecule, Molecules


class MoleculeBatch(NamedTuple):
    """Several molecules; atom k belongs to molecule batch[k]."""

    atomic_numbers: Tensor
    """(N,) int64."""
    positions: Tensor
    """(N, 3) float32, without noise, in the encoder's length unit."""
    batch: Tensor
    """(N,) int64, non-decreasing."""


class MoleculeFrames(Dataset[tuple[Tensor, Tensor]]):
    """Every frame of some molecules: atomic numbers (N,) and positions (N, 3) in the encoder's length unit."""

    def __init__(self, molecules: Sequence[Molecule], hydrogens: bool, length_unit: str) -> None:
        self.scale = LENGTH_UNITS[length_unit]
        self.molecules, self.hydrogens = molecules, hydrogens
        counts = (
            molecules.column("num_frames") if isinstance(molecules, Molecules) else [m.num_frames for m in molecules]
        )
        self.frames_per_molecule = np.array(counts, dtype=np.int64)
        self._ends = np.cumsum(self.frames_per_molecule)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        number, frame = self.where(index)
        molecule = self.molecules[number]
        atomic_numbers, positions = molecule.atomic_numbers, np.array(molecule.positions[frame])
        if not self.hydrogens:
            heavy = atomic_numbers != 1
            atomic_numbers, positions = atomic_numbers[heavy], positions[heavy]
        return torch.from_numpy(atomic_numbers), torch.from_numpy(positions * np.float32(self.scale))

    def where(self, index: int) -> tuple[int, int]:
        """Number of the molecule, and of the frame among its own."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, index - (int(self._ends[number - 1]) if number else 0)

    @cached_property
    def sizes(self) -> np.ndarray:
        """(num_frames,) int64, atoms of each frame."""
        if isinstance(self.molecules, Molecules):
            counts = self.molecules.column("num_atoms" if self.hydrogens else "num_heavy")
            return np.repeat(counts.astype(np.int64), self.frames_per_molecule)
        atoms = [
            len(numbers) if self.hydrogens else int(np.count_nonzero(numbers != 1))
            for numbers in (molecule.atomic_numbers for molecule in self.molecules)
        ]
        return np.repeat(np.array(atoms, dtype=np.int64), self.frames_per_molecule)

    def name(self, index: int) -> str:
        """Such as 'ACE-GW-NME, frame 3'."""
        number, frame = self.where(index)
        return f"{self.molecules[number].name}, frame {frame}"


def collate(frames: Sequence[tuple[Tensor, Tensor]]) -> MoleculeBatch:
    """Molecules one behind the other."""
    sizes = torch.tensor([len(numbers) for numbers, _ in frames])
    return MoleculeBatch(
        torch.cat([numbers for numbers, _ in frames]),
        torch.cat([positions for _, positions in frames]),
        torch.repeat_interleave(torch.arange(len(frames)), sizes),
    )


def standard_noise(num_atoms: int, seed: int, step: int, place: int = 0) -> Tensor:
    """(num_atoms, 3) float32 normal numbers of unit variance, the same ones for the same seed, step and place in it."""
    state = np.random.SeedSequence([seed, step, place]).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(state % 2**63))
    return torch.randn((num_atoms, 3), generator=generator)


def drawn_scale(scales: Sequence[float], seed: int, step: int, place: int) -> float:
    """One of these noise scales, each as likely, the same one for the same seed, step and place in it."""
    if len(scales) == 1:
        return scales[0]
    return scales[int(np.random.default_rng([seed, step, place, 1]).integers(len(scales)))]


def noise_scale_of(spec: EncoderSpec) -> float:
    """Standard deviation of the noise that an encoder's head was or will be trained on, in its length unit.

    Raises:
        ValueError: if the encoder has no such head.
    """
    if spec.noise_scale <= 0:
        raise ValueError("this encoder has no denoising head: give EncoderSpec.noise_scale a length above 0")
    return spec.noise_scale
