"""Frames labelled elsewhere: extended XYZ files, and the processed RPBE water of the GAMD paper.

Both become `ExternalFrame`s in nm, kJ/mol and kJ/mol/nm. Nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.files import ends_in_a_line
from openmm_gnn.base.units import ANGSTROM_PER_NM, KJ_MOL_PER_EV, KJ_MOL_PER_HARTREE, NM_PER_BOHR

if TYPE_CHECKING:
    from ase import Atoms

XYZ_SUFFIXES = (".xyz", ".extxyz")
FORCE_KEYS = ("forces", "force", "REF_forces", "REF_force", "dft_forces")
ENERGY_KEYS = ("energy", "REF_energy", "dft_energy", "free_energy")
"""Names that are looked for where none is given."""
HYDROGEN, OXYGEN = 1, 8


@dataclass(frozen=True)
class ExternalFrame:
    """One configuration with its forces."""

    atomic_numbers: np.ndarray
    """(num_atoms,) int64."""
    positions: np.ndarray
    """(num_atoms, 3), nm."""
    forces: np.ndarray
    """(num_atoms, 3), kJ/mol/nm."""
    box_vectors: np.ndarray | None
    """(3, 3), rows a, b, c, nm, not always in reduced form; None in open space."""
    energy: float
    """kJ/mol; NaN where the file gives none."""


@dataclass(frozen=True)
class ExternalFile:
    """The frames of one file, in its order."""

    path: Path
    frames: list[ExternalFrame]
    published_split: tuple[np.ndarray, np.ndarray] | None = None
    """Frames for training and for test, as indices, where the file names them."""


def read_external(path: Path, force_key: str | None = None, energy_key: str | None = None) -> ExternalFile:
    """All frames of a file; its ending says what it is: .xyz and .extxyz, or .npz of the processed RPBE layout.

    Args:
        force_key, energy_key: names in an extended XYZ file; by default the one of `FORCE_KEYS`, `ENERGY_KEYS` it has.
    Raises:
        DataError: if the file is missing, empty, of another kind, or a frame is incomplete or not finite.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}: check the path of the labels")
    if path.suffix.lower() in XYZ_SUFFIXES:
        read = ExternalFile(path, list(_extended_xyz(path, force_key, energy_key)))
    elif path.suffix.lower() == ".npz":
        if force_key or energy_key:
            raise DataError(f"{path} is no extended XYZ file: leave the names of forces and energies out")
        read = read_processed_rpbe(path)
    else:
        raise DataError(f"{path} ends in {path.suffix!r}: give extended XYZ (.xyz, .extxyz) or processed RPBE (.npz)")
    if not read.frames:
        raise DataError(f"{path} holds no frame: check that it was written to its end")
    for index, frame in enumerate(read.frames):
        _check(frame, f"frame {index} of {path}")
    return read


def _check(frame: ExternalFrame, where: str) -> None:
    check_atoms(frame.atomic_numbers, {"position": frame.positions, "force": frame.forces}, where)
    if frame.box_vectors is not None and not abs(np.linalg.det(frame.box_vectors)) > 1e-9:
        raise DataError(f"the box of {where} is {frame.box_vectors.tolist()} nm: it has no volume")


def check_atoms(atomic_numbers: np.ndarray, arrays: dict[str, np.ndarray], where: str) -> None:
    """Refuse a frame whose atoms are not all known and finite.

    Raises:
        DataError: if there are no atoms, one is of no element, or a vector of an atom is missing or not finite.
    """
    if len(atomic_numbers) == 0:
        raise DataError(f"{where} has no atoms: remove it")
    if (atomic_numbers < 1).any():
        atom = int(np.argmax(atomic_numbers < 1))
        raise DataError(f"atom {atom} of {where} is of no element: leave virtual and dummy atoms out of the file")
    for what, values in arrays.items():
        if values.shape != (len(atomic_numbers), 3):
            raise DataError(f"the {what}s of {where} have shape {values.shape}: expected ({len(atomic_numbers)}, 3)")
        if not np.isfinite(values).all():
            atom = int(np.argwhere(~np.isfinite(values))[0][0])
            raise DataError(f"the {what} of atom {atom} of {where} is not finite: remove the frame")


# ---- extended XYZ ----------------------------------------------------------------------------------------------------


def read_extended_xyz(path: Path) -> Iterator[tuple[str, Atoms]]:
    """Each frame of a file, after what it is called in messages.

    Raises:
        DataError: if ASE is not installed or cannot read a frame.
    """
    try:
        from ase.io import iread
    except ImportError as error:
        raise DataError(f"reading {path} needs ASE ({error}): install it with `pip install ase`") from error
    index = -1
    try:
        for index, atoms in enumerate(iread(path, index=":", format="extxyz")):
            yield f"frame {index} of {path}", atoms
    except Exception as error:  # ASE raises whatever the text makes it stumble over
        where = f"frame {index + 1} of {path}"
        raise DataError(f"{where} cannot be read as extended XYZ: {error or type(error).__name__}") from error
    if index >= 0 and ends_in_a_line(path):
        raise DataError(
            f"{path} ends in the middle of a line, where a number may be cut: copy it again, or end the line"
        )


def _extended_xyz(path: Path, force_key: str | None, energy_key: str | None) -> Iterator[ExternalFrame]:
    for where, atoms in read_extended_xyz(path):
        forces = _labelled(atoms, atoms.arrays, FORCE_KEYS, force_key, f"forces of {where}", "--force-key")
        energy = _labelled(atoms, atoms.info, ENERGY_KEYS, energy_key, f"energy of {where}", "--energy-key")
        if forces is None:
            names = sorted({*atoms.arrays, *_results(atoms)} - {"numbers", "positions"})
            raise DataError(
                f"{where} has no forces under any of the names {list(FORCE_KEYS)}: give theirs with --force-key (the "
                f"file has {names})"
            )
        yield ExternalFrame(
            atomic_numbers=np.asarray(atoms.numbers, dtype=np.int64),
            positions=np.asarray(atoms.positions, dtype=np.float64) / ANGSTROM_PER_NM,
            forces=np.asarray(forces, dtype=np.float64) * (KJ_MOL_PER_EV * ANGSTROM_PER_NM),
            box_vectors=_box(atoms, where),
            energy=float("nan") if energy is None else float(energy) * KJ_MOL_PER_EV,
        )


def _results(atoms: Atoms) -> dict[str, Any]:
    """What ASE's reader took for results of a calculator; read as they are, so that constraints zero no force."""
    return {} if atoms.calc is None else atoms.calc.results


def _labelled(
    atoms: Atoms, stored: dict[str, Any], names: tuple[str, ...], key: str | None, what: str, option: str
) -> Any:
    """The value of this name, or of the one that is there; None if none is and none was asked for."""
    values = {**stored, **_results(atoms)}
    found = [name for name in names if name in values] if key is None else [key]
    if key is not None and key not in values:
        raise DataError(f"{what}: there is no {key!r}, the file has {sorted(values)}")
    if len(found) > 1:
        raise DataError(f"the {what} are there as {found}: choose one with {option}")
    return values[found[0]] if found else None


def _box(atoms: Atoms, where: str) -> np.ndarray | None:
    periodic = [bool(side) for side in atoms.pbc]
    if not any(periodic):
        return None
    if not all(periodic):
        raise DataError(
            f"{where} is periodic along {sum(periodic)} of 3 directions: give a slab a cell with enough vacuum and "
            'pbc="T T T"'
        )
    return np.asarray(atoms.cell.array, dtype=np.float64) / ANGSTROM_PER_NM


# ---- the processed RPBE layout ---------------------------------------------------------------------------------------

_LAYOUT = ("pos", "force", "atom_type", "box", "num_atoms", "train_idx", "test_idx")
"""Arrays; the first four are always there."""
CONVERSION = (
    "import numpy as np; d = np.load('{name}', allow_pickle=True); c = lambda k: np.concatenate([np.asarray(f, float)"
    ".reshape(len(p), -1) for f, p in zip(d[k], d['pos'])]); np.savez('converted.npz', num_atoms=[len(p) for p in "
    "d['pos']], box=np.array([np.asarray(b, float) for b in d['box']]), train_idx=d['train_idx'], "
    "test_idx=d['test_idx'], pos=c('pos'), force=c('force'), atom_type=c('atom_type').ravel().astype(int))"
)
"""Python that turns pickled arrays into plain ones; for the user to run on a file they trust."""


def read_processed_rpbe(path: Path) -> ExternalFile:
    """The .npz file of RPBE water as the published code of GAMD reads it, without the pickled arrays it allows.

    Arrays: `pos` (bohr) and `force` (hartree/bohr), (num_frames, num_atoms, 3); `box` (bohr), lengths or vectors of
    each frame; `atom_type`, atomic numbers, or 0 and 1 of which the more frequent is hydrogen; `train_idx`, `test_idx`.
    Where the number of atoms varies, frames lie one behind the other along the first axis of `pos`, `force` and
    `atom_type`, and `num_atoms` says how many atoms each has.

    Source: Li et al., J. Chem. Phys. 156, 144103 (2022), data of Morawietz et al., PNAS 113, 8368 (2016).
    Raises:
        DataError: if an array is missing, pickled, or of another shape than the others.
    """
    arrays = _plain_arrays(path)
    pos, force, kind, box = (arrays[name] for name in _LAYOUT[:4])
    if pos.shape != force.shape or pos.shape[-1:] != (3,):
        raise DataError(f"pos of {path} has shape {pos.shape}, force {force.shape}: expected the same, (..., 3)")
    if pos.ndim == 3:
        counts = np.full(len(pos), pos.shape[1])
        kind = np.broadcast_to(kind.reshape(-1, pos.shape[1]), pos.shape[:2]) if kind.size % pos.shape[1] == 0 else kind
    else:
        counts = arrays.get("num_atoms", np.zeros(0, int))
    pos, force, kind = pos.reshape(-1, 3), force.reshape(-1, 3), kind.reshape(-1)
    if not len(pos) == len(kind) == int(counts.sum()) or len(box) != len(counts) or box.size // len(box) not in (3, 9):
        raise DataError(
            f"{path} does not fit together: {len(counts)} frames of {int(counts.sum())} atoms, but {len(pos)} "
            f"positions, {len(kind)} atom types and boxes of shape {box.shape}"
        )
    numbers = _elements_of_water(kind, path)
    vectors = box.reshape(len(box), -1).astype(np.float64) * NM_PER_BOHR
    starts = np.concatenate([[0], np.cumsum(counts)])
    frames = [
        ExternalFrame(
            atomic_numbers=numbers[first:last],
            positions=pos[first:last].astype(np.float64) * NM_PER_BOHR,
            forces=force[first:last].astype(np.float64) * (KJ_MOL_PER_HARTREE / NM_PER_BOHR),
            box_vectors=np.diag(row) if len(row) == 3 else row.reshape(3, 3),
            energy=float("nan"),
        )
        for first, last, row in zip(starts[:-1], starts[1:], vectors, strict=True)
    ]
    split = None
    if "train_idx" in arrays and "test_idx" in arrays:
        split = (arrays["train_idx"].astype(np.int64), arrays["test_idx"].astype(np.int64))
    return ExternalFile(path, frames, split)


def _plain_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the layout that a file has, by name."""
    arrays = {}
    try:
        with np.load(path, allow_pickle=False) as content:
            for name in _LAYOUT:
                if name in content.files:
                    arrays[name] = np.asarray(content[name])
            if missing := [name for name in _LAYOUT[:4] if name not in arrays]:
                raise DataError(
                    f"{path} has no array {missing[0]!r} but {content.files}: expected the processed RPBE layout"
                )
    except DataError:
        raise
    except Exception as error:  # zip and numpy raise several kinds
        if "Object arrays" not in str(error):
            raise DataError(f"{path} cannot be read as .npz: {error or type(error).__name__}") from error
        raise DataError(
            f"{path} holds pickled Python objects, which can run any code when loaded, so they are not read here. If "
            "you trust the file, convert it in its folder with\n  python -c "
            f'"{CONVERSION.format(name=path.name)}"\nand import converted.npz'
        ) from error
    return arrays


def _elements_of_water(kind: np.ndarray, path: Path) -> np.ndarray:
    """(num_atoms,) int64 atomic numbers."""
    kind = kind.astype(np.int64)
    values = np.unique(kind).tolist()
    if set(values) <= {HYDROGEN, OXYGEN} and values != [1]:
        return kind
    ones = int((kind == 1).sum())
    if values == [0, 1] and len(kind) in (3 * ones, 3 * (len(kind) - ones)):
        return np.where(kind == 1, OXYGEN if len(kind) == 3 * ones else HYDROGEN, 0) + np.where(
            kind == 0, HYDROGEN if len(kind) == 3 * ones else OXYGEN, 0
        )
    raise DataError(
        f"atom_type of {path} has the values {values[:8]}, {ones} of {len(kind)} are 1: expected the atomic numbers 1 "
        "and 8, or 0 and 1 in the ratio of water"
    )
