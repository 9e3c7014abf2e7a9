"""What denoising learns from: frames of many molecules with their noise, shared among the processes of a training.

Noise belongs to a step and to a place in it, not to a process: however many processes share a step, its frames, its
noise and its loss, the mean over all of its atoms, are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from openmm_gnn.base.specs.encoder import LENGTH_UNITS, EncoderSpec
from openmm_gnn.data.conformers.conformations import Molecules
from openmm_gnn.learning.step_order import StepOrder, ends_of_packs

VALIDATION_SEED = 2**31
"""Random seed of the noise on held-out frames, the same at every validation."""


class MoleculeFrames(Dataset[tuple[Tensor, Tensor]]):
    """Every frame of some molecules: atomic numbers (N,) and positions (N, 3) in the encoder's length unit."""

    def __init__(self, molecules: Molecules, hydrogens: bool, length_unit: str) -> None:
        self.scale = LENGTH_UNITS[length_unit]
        self.molecules, self.hydrogens = molecules, hydrogens
        self.frames_per_molecule = molecules.column("num_frames").astype(np.int64)
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
        atoms = self.molecules.column("num_atoms" if self.hydrogens else "num_heavy")
        return np.repeat(atoms.astype(np.int64), self.frames_per_molecule)

    def name(self, index: int) -> str:
        """Such as 'ACE-GW-NME, frame 3'."""
        number, frame = self.where(index)
        return f"{self.molecules[number].name}, frame {frame}"


def collate(frames: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Molecules one behind the other: atomic numbers (N,), positions (N, 3), and the molecule of each atom (N,)."""
    sizes = torch.tensor([len(numbers) for numbers, _ in frames])
    return (
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


class Draw(NamedTuple):
    """A frame in a step."""

    frame: int
    step: int
    place: int
    """Number of the frame in its step."""
    step_frames: int
    """Frames of the step, of all processes."""
    step_atoms: int
    """Atoms of the step, of all processes; 0: not counted, these frames are the whole step."""
    counts: bool = True
    """Not, if it only stands in for a process that the step has no frame for."""


class NoisyBatch(NamedTuple):
    """Some frames of a step and the noise to add to them; atom k belongs to molecule batch[k]."""

    atomic_numbers: Tensor
    """(N,) int64."""
    positions: Tensor
    """(N, 3) float32, without noise, in the encoder's length unit."""
    batch: Tensor
    """(N,) int64, non-decreasing."""
    noise: Tensor
    """(N, 3) float32, of unit variance."""
    scales: Tensor
    """(N, 1) float32, standard deviation of the noise, in the encoder's length unit; alike within a molecule."""
    frames: list[int]
    step_frames: int
    step_atoms: int
    weight: float
    """Factor of the sum of squares over these atoms, so that those of all processes add up to the step's mean."""


class NoisyFrames(Dataset[tuple[Draw, Tensor, Tensor, Tensor, float]]):
    """Drawn frames with their noise. Frames that are not in a step of a training have noise of their own.

    Args:
        scales: of the noise, in the encoder's length unit; each molecule of a step draws one.
    """

    def __init__(self, frames: MoleculeFrames, scales: Sequence[float], seed: int) -> None:
        self.frames, self.scales, self.seed = frames, tuple(scales), seed

    def __getitem__(self, draw: Draw) -> tuple[Draw, Tensor, Tensor, Tensor, float]:
        atomic_numbers, positions = self.frames[draw.frame]
        noise = standard_noise(len(positions), self.seed, draw.step, draw.place)
        return draw, atomic_numbers, positions, noise, drawn_scale(self.scales, self.seed, draw.step, draw.place)


def collate_noisy(samples: Sequence[tuple[Draw, Tensor, Tensor, Tensor, float]]) -> NoisyBatch:
    """Frames one behind the other."""
    molecules = collate([(atomic_numbers, positions) for _, atomic_numbers, positions, _, _ in samples])
    first, batch = samples[0][0], molecules[2]
    atoms = first.step_atoms or len(batch)
    scales = torch.tensor([scale for *_, scale in samples], dtype=torch.float32)
    return NoisyBatch(
        *molecules,
        torch.cat([noise for _, _, _, noise, _ in samples]),
        scales.index_select(0, batch).unsqueeze(1),
        [draw.frame for draw, *_ in samples],
        first.step_frames,
        atoms,
        1.0 / (3 * atoms) if first.counts else 0.0,
    )


@dataclass(frozen=True)
class StepShares(Sampler[list[Draw]]):
    """What one process takes of each step: frames such that all processes have about as many atoms."""

    order: StepOrder
    frames: MoleculeFrames
    """Their sizes are read only when there are several processes."""
    first_step: Callable[[], int]
    """Asked at the beginning of each epoch for the number of steps done."""
    rank: int = 0
    """Number of this process, from 0 on."""
    num_processes: int = 1

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[list[Draw]]:
        first = self.first_step()
        return (self.share_of(step) for step in range(first, first + len(self)))

    def share_of(self, step: int) -> list[Draw]:
        """The frames of one step that are for this process."""
        frames = self.order.frames_of(step)
        if self.num_processes == 1:
            return [Draw(frame, step, place, len(frames), 0) for place, frame in enumerate(frames)]
        sizes = self.frames.sizes[frames]
        atoms, places = int(sizes.sum()), fair_shares(sizes, self.num_processes)[self.rank]
        if not places:
            return [Draw(frames[0], step, 0, len(frames), atoms, counts=False)]
        return [Draw(frames[place], step, place, len(frames), atoms) for place in places]


class HeldOutShares(Sampler[list[Draw]]):
    """Every held-out frame once, with noise that is its own at every validation; each process takes some batches.

    Args:
        most_atoms: of a batch; 0: `batch_size` frames.
    """

    def __init__(
        self, frames: MoleculeFrames, batch_size: int, most_atoms: int = 0, rank: int = 0, num_processes: int = 1
    ) -> None:
        if most_atoms:
            ends = ends_of_packs(frames.sizes, max(most_atoms, int(frames.sizes.max())))
        else:
            ends = np.minimum(np.arange(batch_size, len(frames) + batch_size, batch_size), len(frames))
        firsts = [0, *ends[:-1].tolist()]
        self._batches = list(zip(firsts, ends.tolist(), strict=True))[rank::num_processes]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Draw]]:
        return ([Draw(k, k, 0, end - first, 0) for k in range(first, end)] for first, end in self._batches)


def fair_shares(sizes: np.ndarray, num_processes: int) -> list[list[int]]:
    """Places of frames with these numbers of atoms for each process, ascending: the largest first, to who has least."""
    shares: list[list[int]] = [[] for _ in range(num_processes)]
    loads = np.zeros(num_processes, dtype=np.int64)
    for place in np.argsort(-sizes, kind="stable"):
        least = int(loads.argmin())
        shares[least].append(int(place))
        loads[least] += sizes[place]
    return [sorted(share) for share in shares]
