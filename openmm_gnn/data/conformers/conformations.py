"""Conformations of many molecules: the directory that `conformers` and `import-conformers` write and `pretrain` reads.

    meta.json      settings, number of molecules, what is left out of them, units, versions, commands
    shards/...     the molecules, see `shards.py`

Opening reads one small file for each shard; positions are mapped when they are asked for, so that a set may be larger
than the memory, and processes that read the same set share its pages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.data.conformers.shards import Shard, open_shard, shard_paths
from openmm_gnn.data.description import DataKind

CONFORMATIONS = DataKind("openmm_gnn conformations", 2, "openmm-gnn conformers")
UNITS = {"positions": "nm", "temperatures": "K"}


@dataclass(frozen=True)
class Molecule:
    """The frames of one molecule."""

    shard: Shard
    number: int
    """In its shard."""

    @property
    def _where(self) -> np.void:
        return self.shard.index[self.number]

    @property
    def name(self) -> str:
        """Such as 'ACE-GW-NME'."""
        return self.shard.names["names"][self.number]

    @property
    def sequence(self) -> str:
        """Residues, SMILES, or the name of the compound: the same for molecules that are the same."""
        return self.shard.names["sequences"][self.number]

    @property
    def num_atoms(self) -> int:
        return int(self._where["num_atoms"])

    @property
    def num_frames(self) -> int:
        return int(self._where["num_frames"])

    @property
    def atomic_numbers(self) -> np.ndarray:
        """(num_atoms,) int64, hydrogens included."""
        return self._of_atoms(self.shard["atomic_numbers"])

    @property
    def residue_index(self) -> np.ndarray:
        """(num_atoms,) int64, from 0 on; all 0 where there are no residues."""
        return self._of_atoms(self.shard["residue_index"])

    def _of_atoms(self, values: np.ndarray) -> np.ndarray:
        where = self._where
        return values[where["first_atom"] :][: where["num_atoms"]].astype(np.int64)

    @property
    def temperatures(self) -> np.ndarray:
        """(num_frames,) float32, K; NaN where a frame has none."""
        where = self._where
        return self.shard["temperatures"][where["first_frame"] :][: where["num_frames"]]

    @property
    def positions(self) -> np.ndarray:
        """(num_frames, num_atoms, 3) float32, nm; read-only, of the memory map.

        Raises:
            DataError: if the file is missing or damaged.
        """
        where = self._where
        frames, atoms = int(where["num_frames"]), int(where["num_atoms"])
        return self.shard["positions"][where["first_row"] :][: frames * atoms].reshape(frames, atoms, 3)

    @property
    def sha256(self) -> str:
        """SHA-256 of atomic numbers and positions."""
        return self._where["sha256"].tobytes().hex()


class Molecules(Sequence[Molecule]):
    """Some molecules of some shards; a slice is again one of these. Nothing is kept for each molecule but its number.

    Args:
        shards: one behind the other.
        numbers: (num_molecules,) int64 among all of theirs; by default all.
    """

    def __init__(self, shards: Sequence[Shard], numbers: np.ndarray | None = None) -> None:
        self.shards = tuple(shards)
        self._ends = np.cumsum([len(shard) for shard in self.shards], dtype=np.int64)
        self.numbers = np.arange(self._ends[-1] if len(self._ends) else 0) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Molecule: ...
    @overload
    def __getitem__(self, index: slice) -> Molecules: ...
    def __getitem__(self, index: int | slice) -> Molecule | Molecules:
        if isinstance(index, slice):
            return Molecules(self.shards, self.numbers[index])
        number = int(self.numbers[index])
        k = int(np.searchsorted(self._ends, number, side="right"))
        return Molecule(self.shards[k], number - int(self._ends[k]) + len(self.shards[k]))

    def __iter__(self) -> Iterator[Molecule]:
        return (self[k] for k in range(len(self)))

    def where(self, kept: np.ndarray) -> Molecules:
        """Those that a mask (num_molecules,) bool keeps."""
        return Molecules(self.shards, self.numbers[kept])

    def column(self, name: str) -> np.ndarray:
        """(num_molecules, ...) a field of `shards.INDEX`: num_atoms, num_heavy, num_frames, sequence_hash, sha256."""
        parts = [shard.index[name] for shard in self.shards]
        return np.concatenate(parts)[self.numbers] if parts else np.zeros(0, np.int64)

    def elements(self, hydrogens: bool = True) -> tuple[int, ...]:
        """Atomic numbers among them, ascending; without that of hydrogen if `hydrogens` is False."""
        kept = np.zeros(self._ends[-1] if len(self._ends) else 0, bool)
        kept[self.numbers] = True
        found: set[int] = set()
        for shard, mask in zip(self.shards, np.split(kept, self._ends[:-1]), strict=True):
            if mask.any():
                atoms = np.repeat(mask, shard.index["num_atoms"])
                found |= set(np.unique(shard["atomic_numbers"][atoms]).tolist())
        return tuple(sorted(found if hydrogens else found - {1}))


class Split(NamedTuple):
    """No sequence is in both."""

    training: Molecules
    validation: Molecules


@dataclass(frozen=True)
class Conformations:
    """A complete directory of conformations, or several joined."""

    path: Path
    meta: dict[str, Any]
    molecules: Molecules
    skipped: tuple[str, ...] = field(default=(), compare=False)
    """What was left out because it is damaged; filled only when that was asked for."""

    @classmethod
    def open(cls, path: str | Path, skip_bad: bool = False) -> Conformations:
        """Open a directory that `openmm-gnn conformers` or `import-conformers` has completed.

        Args:
            skip_bad: leave out shards that cannot be read, and say so in `skipped`.
        Raises:
            DataError: if it is no such directory, of another version, damaged, or molecules are still missing.
        """
        path = Path(path)
        meta = CONFORMATIONS.read(path)
        shards: list[Shard] = []
        skipped: list[str] = []
        for folder in shard_paths(path):
            try:
                shards.append(open_shard(folder))
            except DataError as error:
                if not skip_bad:
                    raise
                skipped.append(str(error))
        found = sum(shard.end - shard.first for shard in shards)
        if not meta["complete"] or (found != meta["num_molecules"] and not skipped):
            raise DataError(
                f"{path} has {found} of {meta['num_molecules'] or 'all'} molecules: give the same "
                f"`openmm-gnn {meta['made_by']}` command again to complete it"
            )
        return cls(path, meta, Molecules(shards), tuple(skipped))

    @property
    def num_frames(self) -> int:
        return int(self.molecules.column("num_frames").sum())

    def summary(self, kind: str = "molecules") -> str:
        """The numbers of frames and molecules, and of what was skipped when they were made."""
        said, skipped = f"{self.num_frames} frames of {len(self.molecules)} {kind} in {self.path}", self.meta["skipped"]
        if skipped["count"]:
            said += f"\nskipped {skipped['count']}, the first one: {skipped['examples'][0]}"
        return said

    @property
    def numbers(self) -> dict[str, Any]:
        """Directory, molecules and frames, and what was skipped, for programs."""
        counts = {"molecules": len(self.molecules), "frames": self.num_frames}
        return {"directory": self.path, **counts, "skipped": self.meta["skipped"]}

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of what a network learns from, atoms and positions, whatever the shards are."""
        return hashlib.sha256(self.molecules.column("sha256").tobytes()).hexdigest()

    def verify(self, skip_bad: bool = False) -> Conformations:
        """Read every shard whole, and return what is as it was written: itself if all is.

        Args:
            skip_bad: leave out molecules that are damaged or not finite, and say so in `skipped`.
        Raises:
            DataError: names the first file and molecule that is not what was written, or not finite.
        """
        damaged: dict[int, str] = {}
        first = 0
        for shard in self.molecules.shards:
            damage = shard.damage()
            if damage and not skip_bad:
                raise DataError(f"{next(iter(damage.values()))}: {shard.remedy}")
            damaged |= {first + number: text for number, text in damage.items()}
            first += len(shard)
        kept = ~np.isin(self.molecules.numbers, list(damaged))
        if kept.all():
            return self
        left_out = [damaged[int(number)] for number in self.molecules.numbers[~kept]]
        return Conformations(self.path, self.meta, self.molecules.where(kept), (*self.skipped, *left_out))

    def split(self, every: int) -> Split:
        """Hold out one of `every` molecules for validation, the last of each round, and train on the others.

        Raises:
            DataError: if nothing is left for one of them.
        """
        validation = self.molecules[every - 1 :: every] if every > 1 else self.molecules[:0]
        held_out = np.isin(self.molecules.column("sequence_hash"), validation.column("sequence_hash"))
        training = self.molecules.where(~held_out)
        if not len(training) or not len(validation):
            raise DataError(
                f"{len(self.molecules)} molecules of {self.path}, every {every}th held out, leave {len(training)} for "
                f"training and {len(validation)} for validation: both need some"
            )
        return Split(training, validation)


def join_conformations(paths: Sequence[str | Path], skip_bad: bool = False) -> Conformations:
    """Several directories as one set, in this order; a single one is opened as it is.

    The meta of a joined set holds commands, settings and what is left out of all, and each part under `parts`.

    Raises:
        DataError: as `Conformations.open`, or if no directory or one twice is given.
    """
    opened = [Conformations.open(path, skip_bad) for path in paths]
    if len({part.path.resolve() for part in opened}) < max(1, len(opened)):
        raise DataError(f"the directories are {[str(path) for path in paths]}: give one or more, each once")
    if len(opened) == 1:
        return opened[0]
    parts = [{"directory": part.path.resolve().name, "sha256": part.sha256, **part.meta} for part in opened]
    meta = {
        "kind": CONFORMATIONS.name,
        "version": CONFORMATIONS.version,
        "complete": True,
        "num_molecules": sum(len(part.molecules) for part in opened),
        "commands": [command for part in opened for command in part.meta["commands"]],
        "settings": [part.meta["settings"] for part in opened],
        "left_out": {name: sequence for part in opened for name, sequence in part.meta["left_out"].items()},
        "units": UNITS,
        "parts": parts,
    }
    shards = [shard for part in opened for shard in part.molecules.shards]
    skipped = tuple(text for part in opened for text in part.skipped)
    return Conformations(opened[0].path, meta, Molecules(shards), skipped)


def check_elements(spec: EncoderSpec, elements: Sequence[int]) -> None:
    """SpecError if an encoder was not made for these atomic numbers."""
    known = spec.elements or range(1, spec.max_atomic_number + 1)
    if unknown := [number for number in elements if number not in known]:
        raise SpecError(f"the encoder does not know the atomic numbers {unknown}, it knows {list(known)}")
