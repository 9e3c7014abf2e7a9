"""Molecules on their way into a shard: what is checked of each, and how they are put one behind the other."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.files import replace_durably, write_atomically, write_json
from openmm_gnn.data.conformers.shards import (
    ARRAYS,
    INDEX,
    NAMES_FILE,
    SHARD_FILE,
    file_sha256,
    molecule_digest,
    sequence_hash,
    shard_folder,
)

_HEAVIEST = 118


@dataclass(frozen=True)
class Conformers:
    """Frames of one molecule, to be written into a shard."""

    name: str
    sequence: str
    """What molecules of a kind have in common, residues or SMILES: never in training and validation both."""
    atomic_numbers: np.ndarray
    """(num_atoms,) int, hydrogens included."""
    positions: np.ndarray
    """(num_frames, num_atoms, 3) nm."""
    temperatures: np.ndarray | None = None
    """(num_frames,) K; None if the frames have none."""
    residue_index: np.ndarray | None = None
    """(num_atoms,) from 0 on; None: a molecule without residues."""

    def check(self) -> None:
        """DataError if it is empty, of unknown elements, not finite, or its arrays do not fit each other."""
        num_atoms, shape = len(self.atomic_numbers), np.shape(self.positions)
        if num_atoms == 0 or shape[0] == 0:
            raise DataError(f"{self.name} is empty: it has {num_atoms} atoms and {shape[0]} frames")
        if shape[1:] != (num_atoms, 3):
            raise DataError(
                f"{self.name} has positions of shape {shape} for {num_atoms} atoms: give (frames, atoms, 3)"
            )
        unknown = (np.asarray(self.atomic_numbers) < 1) | (np.asarray(self.atomic_numbers) > _HEAVIEST)
        if unknown.any():
            atom = int(np.flatnonzero(unknown)[0])
            raise DataError(
                f"{self.name} has an unknown element: atom {atom} has the atomic number {self.atomic_numbers[atom]}"
            )
        if not np.isfinite(self.positions).all():
            frame, atom, axis = np.argwhere(~np.isfinite(self.positions))[0]
            raise DataError(
                f"{self.name} has positions that are not finite: {self.positions[frame, atom, axis]} for {'xyz'[axis]} "
                f"of atom {atom} in frame {frame}"
            )
        for name, array, count in (
            ("temperatures", self.temperatures, shape[0]),
            ("residue indices", self.residue_index, num_atoms),
        ):
            if array is not None and len(array) != count:
                raise DataError(f"{self.name} has {len(array)} {name}, expected {count}")

    @property
    def digest(self) -> bytes:
        """SHA-256 of what a network learns from."""
        return molecule_digest(np.asarray(self.atomic_numbers), np.asarray(self.positions))


def write_shard(
    directory: Path,
    first: int,
    molecules: Sequence[Conformers],
    numbers: int | None = None,
    notes: dict[str, Any] | None = None,
) -> None:
    """Write molecules as the shard that begins with number `first`.

    Args:
        numbers: how many molecules it stands for, with those that were left out; by default all are there.
        notes: kept in shard.json.
    Raises:
        DataError: if a molecule is empty, of unknown elements or not finite.
    """
    for molecule in molecules:
        molecule.check()
    folder = shard_folder(directory, first)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    partial.mkdir(parents=True)
    for name, array in {**_arrays(molecules), "index": _index(molecules)}.items():
        write_atomically(partial / f"{name}.npy", functools.partial(np.save, arr=array, allow_pickle=False))
    names = {"names": [m.name for m in molecules], "sequences": [m.sequence for m in molecules]}
    write_atomically(partial / NAMES_FILE, json.dumps(names).encode())
    sums = {file.name: file_sha256(file) for file in sorted(partial.iterdir())}
    content: dict[str, Any] = {"first": first, "numbers": len(molecules) if numbers is None else numbers}
    content |= {"num_molecules": len(molecules), "sha256": sums, **(notes or {})}
    write_json(partial / SHARD_FILE, content, indent=1)
    replace_durably(partial, folder)


def _arrays(molecules: Sequence[Conformers]) -> dict[str, np.ndarray]:
    def joined(name: str, parts: list[Any]) -> np.ndarray:
        empty = np.zeros((0, 3) if name == "positions" else 0, ARRAYS[name])
        return np.concatenate([empty, *(np.asarray(part, ARRAYS[name]) for part in parts)])

    numbers = [molecule.atomic_numbers for molecule in molecules]
    temperatures = [m.temperatures if m.temperatures is not None else [np.nan] * len(m.positions) for m in molecules]
    residues = [m.residue_index if m.residue_index is not None else [0] * len(m.atomic_numbers) for m in molecules]
    return {
        "positions": joined("positions", [np.asarray(m.positions).reshape(-1, 3) for m in molecules]),
        "atomic_numbers": joined("atomic_numbers", numbers),
        "residue_index": joined("residue_index", residues),
        "temperatures": joined("temperatures", temperatures),
    }


def _index(molecules: Sequence[Conformers]) -> np.ndarray:
    index = np.zeros(len(molecules), INDEX)
    index["num_atoms"] = [len(molecule.atomic_numbers) for molecule in molecules]
    index["num_heavy"] = [np.count_nonzero(np.asarray(molecule.atomic_numbers) != 1) for molecule in molecules]
    index["num_frames"] = [len(molecule.positions) for molecule in molecules]
    rows = index["num_atoms"].astype(np.int64) * index["num_frames"]
    for name, sizes in (("row", rows), ("atom", index["num_atoms"]), ("frame", index["num_frames"])):
        index[f"first_{name}"] = np.cumsum(sizes) - sizes
    index["sequence_hash"] = [sequence_hash(molecule.sequence) for molecule in molecules]
    for row, molecule in zip(index, molecules, strict=True):
        row["sha256"] = np.frombuffer(molecule.digest, np.uint8)
    return index
