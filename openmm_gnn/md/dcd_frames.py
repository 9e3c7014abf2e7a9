"""DCD trajectories that survive kill -9: writing, truncating and reading whole frames.

A DCD (CHARMM's, little-endian, as OpenMM, VMD and mdtraj read it) holds three header records and then frames of one
constant size, so a restart keeps the first n frames by cutting the file and correcting the count in its header.
Positions are stored as given (unwrapped, so that diffusion can be measured), float32, in angstrom.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.units import ANGSTROM_PER_NM

_COUNT_OFFSET = 8
_LAST_STEP_OFFSET = 20
_FIXED_ATOMS_OFFSET = 40
_HAS_BOX_OFFSET = 48
_VERSION_OFFSET = 84
_COMMENTS_OFFSET = 92
_PS_PER_AKMA_TIME = 0.04888821
_CHARMM_VERSION = 24


@dataclass(frozen=True)
class DCDLayout:
    """Where the frames of a DCD file lie, in bytes."""

    num_atoms: int
    has_box: bool
    header_bytes: int
    first_step: int
    interval: int
    promised_frames: int
    """The count in the header, which its writer may not have come to correct."""
    version: int
    """The release of CHARMM that wrote the file, 0 for X-PLOR; other programs write 24."""

    @property
    def frame_record(self) -> np.dtype:
        """One frame: the box, then x, y and z, each between two marks that give its size in bytes."""
        box = [("box_mark", "<i4"), ("box", "<f8", (6,)), ("box_end", "<i4")] if self.has_box else []
        axes = [
            field
            for axis in "xyz"
            for field in ((f"{axis}_mark", "<i4"), (axis, "<f4", (self.num_atoms,)), (f"{axis}_end", "<i4"))
        ]
        return np.dtype(box + axes)

    @property
    def frame_bytes(self) -> int:
        return self.frame_record.itemsize

    def whole_frames(self, file_bytes: int) -> int:
        """The number of complete frames in a file of this size."""
        return max(0, (file_bytes - self.header_bytes) // self.frame_bytes)


def dcd_layout(path: Path) -> DCDLayout:
    """Read the header of a little-endian DCD file of frames of one size, as OpenMM writes it.

    Raises:
        DataError: if the file is too short or starts otherwise, or has fixed atoms or a fourth dimension.
    """
    with open(path, "rb") as file:
        start = file.read(_COMMENTS_OFFSET + 4)
        if len(start) < _COMMENTS_OFFSET + 4 or start[:8] != struct.pack("<i", 84) + b"CORD":
            raise DataError(f"{path} is not a DCD file written by OpenMM: its header is missing or damaged")
        (comments_bytes,) = struct.unpack_from("<i", start, _COMMENTS_OFFSET)
        file.seek(_COMMENTS_OFFSET + 4 + comments_bytes + 4)
        tail = file.read(12)
        if len(tail) < 12 or struct.unpack_from("<i", tail, 0)[0] != 4:
            raise DataError(f"{path}: the DCD header is cut short, the file holds no frame")
        (num_atoms,) = struct.unpack_from("<i", tail, 4)
        promised, first_step, interval = struct.unpack_from("<iii", start, _COUNT_OFFSET)
        has_box, four_dimensions = struct.unpack_from("<ii", start, _HAS_BOX_OFFSET)
        (version,) = struct.unpack_from("<i", start, _VERSION_OFFSET)
        if version and (four_dimensions or struct.unpack_from("<i", start, _FIXED_ATOMS_OFFSET)[0]):
            raise DataError(f"{path}: frames of this DCD file differ in size, as with fixed atoms")
        return DCDLayout(num_atoms, bool(has_box and version), file.tell(), first_step, interval, promised, version)


class DCDWriter:
    """Appends frames to a DCD file; a new file gets its header at once.

    The count in the header is corrected after each frame, so the file can be read while it grows.
    """

    def __init__(self, path: Path, num_atoms: int, has_box: bool, time_step_ps: float, interval: int) -> None:
        if not path.exists() or path.stat().st_size == 0:
            path.write_bytes(_header(num_atoms, has_box, time_step_ps, interval))
        self._layout = dcd_layout(path)
        if (self._layout.num_atoms, self._layout.has_box) != (num_atoms, has_box):
            raise DataError(f"{path} holds {self._layout.num_atoms} atoms, the run has {num_atoms}: not its trajectory")
        self.num_frames = self._layout.whole_frames(os.path.getsize(path))
        self._file = open(path, "r+b")  # noqa: SIM115 - closed by close()

    def write(self, positions_nm: np.ndarray, box_vectors_nm: np.ndarray | None) -> None:
        """Append one frame: positions (num_atoms, 3), box vectors (3, 3) as rows."""
        frame = np.zeros(1, dtype=self._layout.frame_record)
        if box_vectors_nm is not None:
            frame["box_mark"] = frame["box_end"] = 48
            frame["box"] = _charmm_cell(np.asarray(box_vectors_nm, dtype=np.float64))
        for column, axis in enumerate("xyz"):
            frame[f"{axis}_mark"] = frame[f"{axis}_end"] = 4 * self._layout.num_atoms
            frame[axis] = np.asarray(positions_nm)[:, column] * ANGSTROM_PER_NM
        self._file.seek(self._layout.header_bytes + self.num_frames * self._layout.frame_bytes)
        self._file.write(frame.tobytes())
        self._file.flush()
        self.num_frames += 1
        _write_count(self._file, self._layout, self.num_frames)

    def sync(self) -> None:
        """Return when all frames are on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def truncate_dcd(path: Path, num_frames: int) -> None:
    """Keep the first `num_frames` frames, cut what lies past them, and write the count into the header.

    Raises:
        DataError: if the file holds fewer whole frames than that.
    """
    layout = dcd_layout(path)
    present = layout.whole_frames(os.path.getsize(path))
    if present < num_frames:
        raise DataError(
            f"{path} holds {present} whole frames, the checkpoint was written after {num_frames}: "
            "the trajectory was changed or cut; start the run in a new directory"
        )
    with open(path, "r+b") as file:
        file.truncate(layout.header_bytes + num_frames * layout.frame_bytes)
        _write_count(file, layout, num_frames)
        os.fsync(file.fileno())


def read_dcd(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """All whole frames of a DCD file; also while it is being written, and after a kill.

    Returns:
        positions: (frames, num_atoms, 3) float64, nm, as written.
        box_vectors: (frames, 3, 3) float64, nm, rows a, b, c with a along x and b in the xy plane; None if the
            trajectory has no box.
    """
    layout = dcd_layout(path)
    num_frames = layout.whole_frames(os.path.getsize(path))
    frames = np.fromfile(path, dtype=layout.frame_record, count=num_frames, offset=layout.header_bytes)
    if num_frames and not (frames["x_mark"] == 4 * layout.num_atoms).all():
        raise DataError(f"{path}: a frame does not start where it should, the file is damaged")
    positions = np.stack([frames["x"], frames["y"], frames["z"]], axis=-1).astype(np.float64) / ANGSTROM_PER_NM
    return positions, _box_vectors(frames["box"]) if layout.has_box else None


def dcd_cells(path: Path) -> tuple[np.ndarray, int] | None:
    """The numbers for `foreign_box_vectors` of all whole frames, a memory map, and the version that wrote them.

    None where the file has no boxes, or is no DCD that `dcd_layout` reads.
    """
    try:
        layout = dcd_layout(path)
    except (DataError, OSError):
        return None
    count = layout.whole_frames(os.path.getsize(path))
    if not layout.has_box or not count:
        return None
    frames = np.memmap(path, layout.frame_record, "r", layout.header_bytes, (count,))
    if frames["box_mark"][0] != 48 or frames["x_mark"][0] != 4 * layout.num_atoms:
        return None
    return frames["box"], layout.version


def foreign_box_vectors(cells: np.ndarray, version: int) -> np.ndarray:
    """Box vectors of the six numbers that programs write with a frame of a DCD file.

    Most write lengths and angles, a gamma b beta alpha c, the angles as cosines or in degrees; their vectors have a
    along x and b in the xy plane. CHARMM writes the lower triangle of the symmetric matrix whose rows are the vectors,
    in the orientation of the positions, which is another one.

    Args:
        cells: (frames, 6) as they are in the file, lengths in angstrom.
        version: release of CHARMM, as `DCDLayout.version`.
    Returns:
        (frames, 3, 3) nm, rows a, b, c; NaN where the numbers are no box by either reading.
    """
    matrices = cells[:, [[0, 1, 3], [1, 2, 4], [3, 4, 5]]]
    finite = np.isfinite(cells).all(axis=1)
    is_matrix = finite & (np.linalg.eigvalsh(np.where(finite[:, None, None], matrices, -np.eye(3)))[:, 0] > 0)
    angles = cells[:, [1, 3, 4]]
    are_cosines = (np.abs(angles) <= 1).all(axis=1)
    cosines = np.where(are_cosines[:, None], angles, np.cos(np.radians(angles)))
    # An angle of a few degrees is a length that was taken for one.
    plausible = finite & (are_cosines | ((angles > 10) & (angles < 170)).all(axis=1)) & (cells[:, [0, 2, 5]] > 0).all(1)
    gram = 1 - (cosines**2).sum(axis=1) + 2 * cosines.prod(axis=1)
    has_angles = plausible & (gram > 1e-6)
    from_angles = np.full(matrices.shape, np.nan)
    a, b, c = cells[has_angles][:, [0, 2, 5]].T
    gamma, beta, alpha = cosines[has_angles].T
    from_angles[has_angles] = _box_vectors(np.stack([a, gamma, b, beta, alpha, c], axis=1))
    as_matrix = is_matrix & (~has_angles | (version > _CHARMM_VERSION))
    return np.where(as_matrix[:, None, None], matrices / ANGSTROM_PER_NM, from_angles)


def _header(num_atoms: int, has_box: bool, time_step_ps: float, interval: int) -> bytes:
    counters = struct.pack("<4s9i", b"CORD", 0, interval, interval, 0, 0, 0, 0, 0, 0)
    flags = struct.pack("<f10i", time_step_ps / _PS_PER_AKMA_TIME, int(has_box), *[0] * 8, _CHARMM_VERSION)
    title = struct.pack("<i80s80s", 2, b"Created by openmm_gnn", b"Positions are not wrapped into the box")
    records = (counters + flags, title, struct.pack("<i", num_atoms))
    return b"".join(struct.pack("<i", len(record)) + record + struct.pack("<i", len(record)) for record in records)


def _write_count(file: BinaryIO, layout: DCDLayout, num_frames: int) -> None:
    last_step = layout.first_step + max(0, num_frames - 1) * layout.interval
    file.seek(_COUNT_OFFSET)
    file.write(struct.pack("<i", num_frames))
    file.seek(_LAST_STEP_OFFSET)
    file.write(struct.pack("<i", min(last_step, 2**31 - 1)))
    file.flush()


def _charmm_cell(box: np.ndarray) -> tuple[float, ...]:
    """a, cos gamma, b, cos beta, cos alpha, c; lengths in angstrom."""
    a, b, c = np.linalg.norm(box, axis=1)
    cos_alpha, cos_beta, cos_gamma = box[1] @ box[2] / (b * c), box[0] @ box[2] / (a * c), box[0] @ box[1] / (a * b)
    return a * ANGSTROM_PER_NM, cos_gamma, b * ANGSTROM_PER_NM, cos_beta, cos_alpha, c * ANGSTROM_PER_NM


def _box_vectors(cell: np.ndarray) -> np.ndarray:
    """The box vectors, nm, of `_charmm_cell`'s numbers."""
    a, cos_gamma, b, cos_beta, cos_alpha, c = cell.T
    sin_gamma = np.sqrt(1.0 - cos_gamma**2)
    zero = np.zeros_like(a)
    c_y = c * (cos_alpha - cos_beta * cos_gamma) / sin_gamma
    c_z = np.sqrt(np.maximum(c**2 - (c * cos_beta) ** 2 - c_y**2, 0.0))
    rows = [[a, zero, zero], [b * cos_gamma, b * sin_gamma, zero], [c * cos_beta, c_y, c_z]]
    return np.moveaxis(np.array(rows), -1, 0) / ANGSTROM_PER_NM
