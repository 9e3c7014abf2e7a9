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

import hashlib
import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError

SHARDS, SHARD_FILE, NAMES_FILE = "shards", "shard.json", "names.json"
ARRAYS = {
    "positions": "<f4",
    "atomic_numbers": "|u1",
    "residue_index": "<u2",
    "temperatures": "<f4",
}
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
        index = self._mapped("index", INDEX)
        if len(index) != len(self):
            raise DataError(f"{self.path} has {len(index)} molecules, {len(self)} were written: {self.remedy}")
        return index

    @cached_property
    def positions(self) -> np.ndarray:
        """(rows, 3) float32, nm."""
        return self._mapped("positions", np.dtype(ARRAYS["positions"]))

    @cached_property
    def atomic_numbers(self) -> np.ndarray:
        """(atoms,) uint8."""
        return self._mapped("atomic_numbers", np.dtype(ARRAYS["atomic_numbers"]))

    @cached_property
    def residue_index(self) -> np.ndarray:
        """(atoms,) uint16."""
        return self._mapped("residue_index", np.dtype(ARRAYS["residue_index"]))

    @cached_property
    def temperatures(self) -> np.ndarray:
        """(frames,) float32, K."""
        return self._mapped("temperatures", np.dtype(ARRAYS["temperatures"]))

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
        everyone = {k: f"{self.path / broken[0]} is missing or damaged" for k in range(len(self))}
        if set(broken) != {"positions.npy"}:
            return everyone
        try:
            positions, numbers, index = self.positions, self.atomic_numbers, self.index
        except DataError:
            return everyone
        found = {}
        for k, row in enumerate(index):
            atoms = numbers[row["first_atom"] :][: row["num_atoms"]]
            if molecule_digest(atoms, positions[_rows(row)]) != row["sha256"].tobytes():
                found[k] = f"{self.path / broken[0]} is damaged: {self.names['names'][k]} is not what was written"
        return found or everyone

    def _not_finite(self) -> dict[int, str]:
        if np.isfinite(self.positions).all():
            return {}
        file, names = self.path / "positions.npy", self.names["names"]
        return {
            k: f"{file}: {names[k]} has positions that are not finite"
            for k, row in enumerate(self.index)
            if not np.isfinite(self.positions[_rows(row)]).all()
        }

    def _changed(self, name: str, digest: str) -> bool:
        try:
            return file_sha256(self.path / name) != digest
        except OSError:
            return True

    def _mapped(self, name: str, dtype: np.dtype) -> np.ndarray:
        file = self.path / f"{name}.npy"
        try:
            array = mapped_array(file)
        except (OSError, ValueError, RuntimeError) as error:
            raise DataError(f"{file} cannot be read ({error}): {self.remedy}") from error
        if array.dtype != dtype:
            raise DataError(f"{file} holds {array.dtype}, expected {dtype}: {self.remedy}")
        return array


def _rows(where: np.void) -> slice:
    """Digest of the positions of a molecule."""
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
