"""Shards of conformations: some files that hold many molecules each, checksummed, memory-mapped, written as a whole.

    shards/000000016/positions.npy       (rows, 3) float32, nm: the atoms of each frame, frame after frame
    shards/000000016/atomic_numbers.npy  (atoms,) uint8, hydrogens included
    shards/000000016/residue_index.npy   (atoms,) uint16, counted within a molecule; 0 where there are no residues
    shards/000000016/temperatures.npy    (frames,) float32, K; NaN where a frame has none
    shards/000000016/index.npy           (molecules,) of `INDEX`: where each molecule lies in the others, its checksum
    shards/000000016/names.json          names and sequences
    shards/000000016/shard.json          number of molecules, SHA-256 of each file above, what was skipped

A shard is called after the number of its first molecule. Its directory is written under another name and renamed when
all of it is on the disk, so it is there as a whole or not at all. Nothing is pickled.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.files import replace_durably, write_atomically, write_json

SHARDS, SHARD_FILE, NAMES_FILE = "shards", "shard.json", "names.json"
ARRAYS = {"positions": "<f4", "atomic_numbers": "|u1", "residue_index": "<u2", "temperatures": "<f4"}
INDEX = np.dtype(
    [
        ("first_row", "<i8"),
        ("first_atom", "<i8"),
        ("first_frame", "<i8"),
        ("num_atoms", "<i4"),
        ("num_heavy", "<i4"),
        ("num_frames", "<i4"),
        ("sequence_hash", "<u8"),
        ("sha256", "u1", (32,)),
    ]
)
_HEAVIEST = 118


def molecule_digest(atomic_numbers: np.ndarray, positions: np.ndarray) -> bytes:
    """SHA-256 of atomic numbers (N,) and positions (frames, N, 3), nm, as they are stored."""
    digest = hashlib.sha256(np.ascontiguousarray(atomic_numbers, ARRAYS["atomic_numbers"]).tobytes())
    digest.update(np.ascontiguousarray(positions, ARRAYS["positions"]).tobytes())
    return digest.digest()


def sequence_hash(sequence: str) -> int:
    """64 bits by which molecules of one sequence are found among millions."""
    return int.from_bytes(hashlib.blake2b(sequence.encode(), digest_size=8).digest(), "little")


def shard_folder(directory: Path, first: int) -> Path:
    """Where the shard that begins with this molecule is kept."""
    return directory / SHARDS / f"{first:09d}"


def file_sha256(file: Path) -> str:
    """In hexadecimal digits."""
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class Shard:
    """A shard on the disk; its files are mapped when they are first asked for, and again in another process."""

    path: Path
    content: dict[str, Any] = field(compare=False)
    """Content of shard.json."""
    _mapped: dict[str, np.ndarray] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def first(self) -> int:
        """Number of the first molecule."""
        return int(self.content["first"])

    @property
    def end(self) -> int:
        """Number of the first molecule after it; some before it may have been skipped."""
        return self.first + int(self.content["numbers"])

    def __len__(self) -> int:
        return int(self.content["num_molecules"])

    def __reduce__(self) -> tuple[Any, ...]:
        return Shard, (self.path, self.content)  # not what is mapped

    @cached_property
    def index(self) -> np.ndarray:
        """(molecules,) of `INDEX`."""
        index = self._map("index", INDEX)
        if len(index) != len(self):
            raise DataError(f"{self.path} has {len(index)} molecules, {len(self)} were written: {self.remedy}")
        return index

    def __getitem__(self, name: str) -> np.ndarray:
        """An array of `ARRAYS` as the table above describes it, mapped when it is first asked for.

        Raises:
            DataError: if its file is missing, damaged or of another type.
        """
        if name not in self._mapped:
            self._mapped[name] = self._map(name, np.dtype(ARRAYS[name]))
        return self._mapped[name]

    @cached_property
    def names(self) -> dict[str, list[str]]:
        """`names` and `sequences`, one for each molecule."""
        try:
            names = json.loads((self.path / NAMES_FILE).read_text())
            return {key: [str(name) for name in names[key]] for key in ("names", "sequences")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.path / NAMES_FILE} cannot be read ({error}): {self.remedy}") from error

    @property
    def remedy(self) -> str:
        """What can be done about a damaged shard."""
        return f"delete {self.path} and give the command that made it again, or leave bad ones out with --skip-bad"

    def damage(self) -> dict[int, str]:
        """What is wrong with which molecules, counted within the shard; reads all of it. Empty: it is as written."""
        broken = [name for name, digest in self.content["sha256"].items() if self._changed(name, digest)]
        if not broken:
            return self._not_finite()
        all_damaged = {k: f"{self.path / broken[0]} is missing or damaged" for k in range(len(self))}
        if set(broken) != {"positions.npy"}:
            return all_damaged
        try:
            positions, numbers, index = self["positions"], self["atomic_numbers"], self.index
        except DataError:
            return all_damaged
        found = {}
        for k, row in enumerate(index):
            atoms = numbers[row["first_atom"] :][: row["num_atoms"]]
            if molecule_digest(atoms, positions[_rows(row)]) != row["sha256"].tobytes():
                found[k] = f"{self.path / broken[0]} is damaged: {self.names['names'][k]} is not what was written"
        return found or all_damaged

    def _not_finite(self) -> dict[int, str]:
        if np.isfinite(self["positions"]).all():
            return {}
        file, names = self.path / "positions.npy", self.names["names"]
        return {
            k: f"{file}: {names[k]} has positions that are not finite"
            for k, row in enumerate(self.index)
            if not np.isfinite(self["positions"][_rows(row)]).all()
        }

    def _changed(self, name: str, digest: str) -> bool:
        try:
            return file_sha256(self.path / name) != digest
        except OSError:
            return True

    def _map(self, name: str, dtype: np.dtype) -> np.ndarray:
        file = self.path / f"{name}.npy"
        try:
            array = mapped_array(file)
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(f"{file} cannot be read ({error}): {self.remedy}") from error
        if array.dtype != dtype:
            raise DataError(f"{file} holds {array.dtype}, expected {dtype}: {self.remedy}")
        return array


def _rows(where: np.void) -> slice:
    """The rows of `positions` that belong to a molecule."""
    first = int(where["first_row"])
    return slice(first, first + int(where["num_atoms"]) * int(where["num_frames"]))


def mapped_array(file: Path) -> np.ndarray:
    """A read-only memory map of a .npy file that keeps no file open, as a map of numpy would: there are many shards.

    Raises:
        OSError: if it cannot be opened.
        ValueError: if it is no .npy file, or its size is not what its header says.
    """
    import torch

    with open(file, "rb") as stream:
        np.lib.format.read_magic(stream)
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
        offset, size = stream.tell(), os.fstat(stream.fileno()).st_size
    expected = offset + int(np.prod(shape)) * dtype.itemsize
    if fortran_order or dtype.hasobject or size != expected:
        raise ValueError(f"{size} bytes, expected {expected}")
    content = torch.from_file(os.fspath(file), shared=False, size=size, dtype=torch.uint8).numpy()
    array = content[offset:].view(dtype).reshape(shape)
    array.flags.writeable = False
    return array


def open_shard(path: Path) -> Shard:
    """A shard that is complete; DataError if its shard.json is missing or damaged."""
    try:
        content = json.loads((path / SHARD_FILE).read_text())
        _ = int(content["first"]), int(content["numbers"]), int(content["num_molecules"]), dict(content["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path / SHARD_FILE} cannot be read ({error}): delete {path} and give the command that made it again, "
            "or leave bad ones out with --skip-bad"
        ) from error
    return Shard(path, content)


def shard_paths(directory: Path) -> list[Path]:
    """Paths of the complete shards, in the order of their molecules."""
    folder = directory / SHARDS
    return sorted((path for path in folder.iterdir() if path.name.isdigit()), key=_number) if folder.is_dir() else []


def _number(path: Path) -> int:
    return int(path.name)


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
