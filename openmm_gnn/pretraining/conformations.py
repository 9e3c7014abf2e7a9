"""Conformations of many small molecules: the directory that `conformers` writes and `pretrain` reads.

    meta.json                          settings, molecules, what is left out of them, units, versions, commands
    molecules/00012/molecule.json      sequence, atoms, temperature of each frame, checksum
    molecules/00012/positions.npy      (frames, atoms, 3) float32, nm, hydrogens included; plain .npy, memory-mapped

A molecule is there as a whole or not at all: its .json is written last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from openmm_gnn.errors import DataError, SpecError
from openmm_gnn.spec import EncoderSpec

META_FILE, MOLECULE_FILE, POSITIONS_FILE = "meta.json", "molecule.json", "positions.npy"
META_KIND = "openmm_gnn conformations"
META_VERSION = 1
UNITS = {"positions": "nm", "temperatures": "K"}


@dataclass(frozen=True)
class Molecule:
    """The frames of one molecule; positions are a read-only memory map."""

    path: Path
    description: dict[str, Any]

    @property
    def name(self) -> str:
        """Such as 'ACE-GW-NME'."""
        return str(self.description["name"])

    @property
    def sequence(self) -> str:
        return str(self.description["sequence"])

    @cached_property
    def atomic_numbers(self) -> np.ndarray:
        """(num_atoms,) int64."""
        return np.array(self.description["atomic_numbers"], dtype=np.int64)

    @property
    def temperatures(self) -> np.ndarray:
        """(num_frames,), K."""
        return np.array(self.description["temperatures"])

    @property
    def num_frames(self) -> int:
        return len(self.description["temperatures"])

    @property
    def sha256(self) -> str:
        """Of the file of positions."""
        return str(self.description["sha256"])

    @cached_property
    def positions(self) -> np.ndarray:
        """(num_frames, num_atoms, 3) float32, nm.

        Raises:
            DataError: if the file is missing or of another shape.
        """
        file, expected = self.path / POSITIONS_FILE, (self.num_frames, len(self.atomic_numbers), 3)
        try:
            positions = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{file} cannot be read ({error}): delete {self.path} and make it again") from error
        if positions.shape != expected or positions.dtype != np.float32:
            raise DataError(
                f"{file} holds {positions.dtype} of shape {positions.shape}, expected float32 of {expected}: "
                f"delete {self.path} and make it again"
            )
        return positions


class Split(NamedTuple):
    """No sequence is in both."""

    training: list[Molecule]
    validation: list[Molecule]


@dataclass(frozen=True)
class Conformations:
    """A complete directory of conformations."""

    path: Path
    meta: dict[str, Any]
    molecules: list[Molecule]

    @classmethod
    def open(cls, path: str | Path) -> Conformations:
        """Open a directory that `openmm-gnn conformers` has completed.

        Raises:
            DataError: if it is no such directory, of another version, damaged, or molecules are still missing.
        """
        path = Path(path)
        meta = read_meta(path)
        folders = [molecule_folder(path, index) for index in range(meta["num_molecules"])]
        missing = [folder for folder in folders if not (folder / MOLECULE_FILE).is_file()]
        if missing:
            raise DataError(
                f"{path} has {len(folders) - len(missing)} of {len(folders)} molecules: give the same "
                "`openmm-gnn conformers` command again to complete it"
            )
        return cls(path, meta, [read_molecule(folder) for folder in folders])

    @property
    def num_frames(self) -> int:
        return sum(molecule.num_frames for molecule in self.molecules)

    @cached_property
    def sha256(self) -> str:
        """Of all that a network learns from: atoms and positions."""
        every = [
            [molecule.name, molecule.description["atomic_numbers"], molecule.sha256] for molecule in self.molecules
        ]
        return hashlib.sha256(json.dumps(every).encode()).hexdigest()

    def verify(self) -> None:
        """Read every frame; DataError names the first molecule whose file is not what was written, or not finite."""
        for molecule in self.molecules:
            content = (molecule.path / POSITIONS_FILE).read_bytes()
            if hashlib.sha256(content).hexdigest() != molecule.sha256:
                raise DataError(
                    f"{molecule.path / POSITIONS_FILE} is damaged: delete {molecule.path} and make it again"
                )
            if not np.isfinite(molecule.positions).all():
                raise DataError(f"{molecule.name} in {molecule.path} has positions that are not finite")

    def split(self, every: int) -> Split:
        """Every so-manieth molecule for validation, the last of each round, and the others for training.

        Raises:
            DataError: if nothing is left for one of them.
        """
        validation = self.molecules[every - 1 :: every] if every > 1 else []
        held_out = {molecule.sequence for molecule in validation}
        training = [molecule for molecule in self.molecules if molecule.sequence not in held_out]
        if not training or not validation:
            raise DataError(
                f"{len(self.molecules)} molecules of {self.path}, every {every}th held out, leave {len(training)} for "
                f"training and {len(validation)} for validation: both need some"
            )
        return Split(training, validation)


def elements_of(molecules: Sequence[Molecule], hydrogens: bool) -> tuple[int, ...]:
    """Atomic numbers among them, ascending."""
    every = sorted({int(number) for molecule in molecules for number in molecule.atomic_numbers})
    return tuple(number for number in every if hydrogens or number != 1)


def check_elements(spec: EncoderSpec, elements: Sequence[int]) -> None:
    """SpecError if an encoder was not made for these atomic numbers."""
    known = spec.elements or range(1, spec.max_atomic_number + 1)
    if unknown := [number for number in elements if number not in known]:
        raise SpecError(f"the encoder does not know the atomic numbers {unknown}, it knows {list(known)}")


def molecule_folder(path: Path, index: int) -> Path:
    """Where a molecule is kept."""
    return path / "molecules" / f"{index:05d}"


def read_molecule(folder: Path) -> Molecule:
    """A molecule that is complete; DataError if its description is damaged."""
    try:
        description = json.loads((folder / MOLECULE_FILE).read_text())
        return Molecule(folder, {name: description[name] for name in DESCRIPTION})
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / MOLECULE_FILE} is damaged ({error}): delete {folder} and make it again") from error


DESCRIPTION = ("name", "sequence", "atomic_numbers", "atom_names", "residue_index", "temperatures", "sha256")
"""What molecule.json holds."""


def read_meta(path: Path) -> dict[str, Any]:
    """The content of meta.json; DataError if it is missing, damaged, of another kind or version."""
    file = path / META_FILE
    try:
        meta = json.loads(file.read_text())
        kind, version = meta["kind"], meta["version"]
    except FileNotFoundError:
        raise DataError(f"{path} holds no {META_FILE}: give a directory written by `openmm-gnn conformers`") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is damaged ({error})") from error
    if kind != META_KIND or version != META_VERSION:
        raise DataError(
            f"{file} is of kind {kind!r}, version {version}: expected {META_KIND!r}, version {META_VERSION}"
        )
    return dict(meta)
