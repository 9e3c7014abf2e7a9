"""Labelled frames as batches of neighbour pairs, ready for a network, and how far predicted forces are from theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from openmm_gnn.base.units import MEV_PER_ANGSTROM_PER_KJ_MOL_NM
from openmm_gnn.data.labels.trajectories import Trajectory
from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs
from openmm_gnn.kernels.radial_pairs import pair_types
from openmm_gnn.networks.force_model import ForceModel, PairList
from openmm_gnn.networks.pair_term import PairTerm

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class FrameBatch:
    """Several frames in one graph. N atoms and P pairs in all; nm and kJ/mol/nm."""

    species: Tensor
    """(N,) int64."""
    pairs: Tensor
    """(2, P) int64, each pair once, indices into the N atoms."""
    vectors: Tensor
    """(P, 3)."""
    distances: Tensor
    """(P,)."""
    types: Tensor | None
    """(P,) int64 of `pair_types`, if the model uses them."""
    batch: Tensor
    """(N,) int64, the frame of each atom."""
    forces: Tensor
    """(N, 3), the reference."""
    num_frames: int
    pair_forces: Tensor | None = None
    """(N, 3) of the pair term, which the network's forces complete, if the model has one."""

    def to(self, device: torch.device | str) -> FrameBatch:
        """The same batch on another device (Lightning calls this)."""
        moved: dict[str, Any] = {name: v.to(device) for name, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


@dataclass(eq=False)
class FrameDataset(Dataset):
    """Frames of whole trajectories, in float32; item (trajectory, frame) in running order."""

    trajectories: Sequence[Trajectory]
    """All of one topology."""
    atoms: Sequence[int]
    """Indices of the atoms the network sees (virtual sites left out)."""
    species: Tensor
    """(len(atoms),) int64."""
    partners: Tensor | None
    """`separation_table` of these atoms, or None if the model does not tell kinds of pairs apart."""
    cutoff: float
    """The cutoff of the network, nm."""
    rotate: bool = False
    """Turn every frame at random, so that a network that is not covariant by construction learns to be."""
    seed: int = 0
    """Random seed of the rotations."""
    num_species: int = 1
    """Number of species that the network knows."""
    pair_term: PairTerm | None = None
    """The pair term of the model, fitted already."""

    def __post_init__(self) -> None:
        self.known_pair_forces: dict[int, Tensor] = {}
        self.generator = np.random.default_rng(self.seed)
        self.starts = np.cumsum([0, *(len(trajectory.positions) for trajectory in self.trajectories)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def frame(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Positions (N, 3), nm, forces (N, 3), kJ/mol/nm, and box (3, 3), nm, of one frame, float64."""
        which = int(np.searchsorted(self.starts, index, side="right")) - 1
        trajectory, frame = self.trajectories[which], index - int(self.starts[which])
        positions, forces = (
            torch.from_numpy(np.asarray(values[frame], dtype=np.float64)[self.atoms])
            for values in (trajectory.positions, trajectory.forces)
        )
        return positions, forces, torch.from_numpy(np.array(trajectory.box_vectors[frame], dtype=np.float64))

    def __getitem__(self, index: int) -> FrameBatch:
        positions, forces, box = self.frame(index)
        with torch.no_grad():
            pairs, vectors, distances = neighbor_pairs(positions, self.cutoff, box, full=False)
            types = None if self.partners is None else self.types(pairs)
        pair_forces = None if self.pair_term is None else self.pair_forces(index, positions, box)
        if self.rotate:
            rotation = torch.from_numpy(random_rotation(self.generator))
            vectors, forces = vectors @ rotation.T, forces @ rotation.T
            pair_forces = None if pair_forces is None else pair_forces @ rotation.T.to(pair_forces.dtype)
        return FrameBatch(
            species=self.species,
            pairs=pairs,
            vectors=vectors.to(torch.float32),
            distances=distances.to(torch.float32),
            types=types,
            batch=torch.zeros(len(self.atoms), dtype=torch.int64),
            forces=forces.to(torch.float32),
            num_frames=1,
            pair_forces=pair_forces,
        )

    def types(self, pairs: Tensor) -> Tensor:
        """(P,) kinds of these pairs."""
        assert self.partners is not None
        return pair_types(pairs, self.species, self.partners, self.num_species)

    def pair_forces(self, index: int, positions: Tensor, box: Tensor | None) -> Tensor:
        """(N, 3) float32 of the pair term, kept once computed: it reaches far and does not change in training."""
        assert self.pair_term is not None
        if index not in self.known_pair_forces:
            with torch.no_grad():
                pairs, vectors, distances = neighbor_pairs(positions, self.pair_term.cutoff, box, full=False)
                far = PairList(pairs, vectors.to(torch.float32), distances.to(torch.float32), self.types(pairs))
                self.known_pair_forces[index] = self.pair_term.energy_and_forces(self.species, far, positions, box)[1]
        return self.known_pair_forces[index]


def collate(frames: Sequence[FrameBatch]) -> FrameBatch:
    """One batch of several frames; atom indices are shifted so that frames stay apart."""
    counts = [len(frame.species) for frame in frames]
    starts = np.cumsum([0, *counts[:-1]]).tolist()
    types = [frame.types for frame in frames if frame.types is not None]
    pair_forces = [frame.pair_forces for frame in frames if frame.pair_forces is not None]
    return FrameBatch(
        species=torch.cat([frame.species for frame in frames]),
        pairs=torch.cat([frame.pairs + start for frame, start in zip(frames, starts, strict=True)], dim=1),
        vectors=torch.cat([frame.vectors for frame in frames]),
        distances=torch.cat([frame.distances for frame in frames]),
        types=torch.cat(types) if types else None,
        batch=torch.repeat_interleave(torch.arange(len(frames)), torch.tensor(counts)),
        forces=torch.cat([frame.forces for frame in frames]),
        num_frames=len(frames),
        pair_forces=torch.cat(pair_forces) if pair_forces else None,
    )


def predicted_forces(model: ForceModel, frames: FrameBatch) -> Tensor:
    """(N, 3), kJ/mol/nm: of the network, and of its pair term where it has one."""
    near = PairList(frames.pairs, frames.vectors, frames.distances, frames.types)
    forces = model(frames.species, near, frames.batch)
    return forces if frames.pair_forces is None else forces + frames.pair_forces


def random_rotation(generator: np.random.Generator) -> np.ndarray:
    """(3, 3) proper rotation, uniform over the group.

    Source: Shoemake, "Uniform random rotations", Graphics Gems III (1992): a normalised Gaussian quaternion.
    """
    w, x, y, z = (quaternion := generator.normal(size=4)) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


@dataclass(frozen=True)
class ForceErrors:
    """Errors over a set of frames; forces in meV/angstrom, over components unless said otherwise."""

    mae: float
    rmse: float
    relative_error: float
    """Mean absolute error of a component over the mean norm of the reference forces (the published definition)."""
    mean_cosine: float
    """Mean over atoms of the cosine between predicted and reference force."""
    cosine_5_percent: float
    """5 % quantile of the same: 95 % of the atoms are above."""
    mean_force: float
    """Mean norm of the reference forces."""
    net_force: float
    """Mean over frames of the norm of the summed predicted forces, per atom."""
    relative_net_force: float
    """`net_force` over `mean_force`."""
    num_frames: int

    def table(self, title: str | None = None) -> Table:
        """The figures as a table to print."""
        from rich.table import Table

        table = Table("figure", title=title)
        table.add_column("value", justify="right")
        table.add_row("frames", f"{self.num_frames}")
        table.add_row("MAE, meV/A", f"{self.mae:.4f}")
        table.add_row("RMSE, meV/A", f"{self.rmse:.4f}")
        table.add_row("relative error, %", f"{100 * self.relative_error:.4f}")
        table.add_row("mean cosine", f"{self.mean_cosine:.7f}")
        table.add_row("cosine, 5 % quantile", f"{self.cosine_5_percent:.7f}")
        table.add_row("mean |F|, meV/A", f"{self.mean_force:.3f}")
        table.add_row("net force / mean |F|", f"{self.relative_net_force:.1e}")
        return table


class ForceErrorMeter:
    """Collects frames and gives their `ForceErrors`. Sums are kept in float64."""

    def __init__(self) -> None:
        self._absolute = 0.0
        self._squared = 0.0
        self._reference_norm = 0.0
        self._net = 0.0
        self._components = 0
        self._frames = 0
        self._cosines: list[Tensor] = []

    def add(self, predicted: Tensor, reference: Tensor) -> None:
        """One frame: predicted and reference forces, (num_atoms, 3), kJ/mol/nm."""
        predicted = predicted.detach().to(torch.float64) * MEV_PER_ANGSTROM_PER_KJ_MOL_NM
        reference = reference.detach().to(torch.float64) * MEV_PER_ANGSTROM_PER_KJ_MOL_NM
        difference = predicted - reference
        self._absolute += float(difference.abs().sum())
        self._squared += float(difference.square().sum())
        self._reference_norm += float(reference.norm(dim=-1).sum())
        self._net += float(predicted.sum(dim=0).norm()) / predicted.size(0)
        self._components += predicted.numel()
        self._frames += 1
        self._cosines.append(torch.nn.functional.cosine_similarity(predicted, reference, dim=-1, eps=1e-12))

    def errors(self) -> ForceErrors:
        """The figures of all frames so far.

        Raises:
            ValueError: if no frame was added.
        """
        if self._frames == 0:
            raise ValueError("no frame was added: errors of nothing are not defined")
        cosines = torch.cat(self._cosines)
        mean_force = self._reference_norm / (self._components / 3)
        return ForceErrors(
            mae=self._absolute / self._components,
            rmse=(self._squared / self._components) ** 0.5,
            relative_error=self._absolute / self._components / mean_force,
            mean_cosine=float(cosines.mean()),
            cosine_5_percent=float(cosines.sort().values[int(0.05 * cosines.numel())]),
            mean_force=mean_force,
            net_force=self._net / self._frames,
            relative_net_force=self._net / self._frames / mean_force,
            num_frames=self._frames,
        )
