"""DCD trajectories that survive kill -9: counting, truncating and reading whole frames.

OpenMM writes the frames; this file knows where each of them lies. A DCD holds three header records and then
frames of one constant size, so a restart keeps the first n frames by cutting the file and correcting the count
in its header. Positions are stored as given (unwrapped, so that diffusion can be measured), float32, in angstrom.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from openmm_gnn.errors import DataError
from openmm_gnn.units import ANGSTROM_PER_NM

_COUNT_OFFSET = 8
_LAST_STEP_OFFSET = 20
_HAS_BOX_OFFSET = 48
_COMMENTS_OFFSET = 92


@dataclass(frozen=True)
class DCDLayout:
    """Where the frames of a DCD file lie, in bytes."""

    num_atoms: int
    has_box: bool
    header_bytes: int
    first_step: int
    interval: int

    @property
    def frame_bytes(self) -> int:
        box_record = 56 if self.has_box else 0
        return box_record + 3 * (4 * self.num_atoms + 8)

    def whole_frames(self, file_bytes: int) -> int:
        """The number of complete frames in a file of this size."""
        return max(0, (file_bytes - self.header_bytes) // self.frame_bytes)


def dcd_layout(path: Path) -> DCDLayout:
    """Read the header of a little-endian DCD file as OpenMM writes it.

    Raises:
        DataError: if the file is too short or starts otherwise.
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
        first_step, interval = struct.unpack_from("<ii", start, 12)
        (has_box,) = struct.unpack_from("<i", start, _HAS_BOX_OFFSET)
        return DCDLayout(num_atoms, bool(has_box), file.tell(), first_step, interval)


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
        file.seek(_COUNT_OFFSET)
        file.write(struct.pack("<i", num_frames))
        file.seek(_LAST_STEP_OFFSET)
        file.write(struct.pack("<i", layout.first_step + max(0, num_frames - 1) * layout.interval))
        file.flush()
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
    record = np.dtype(
        ([("box_mark", "<i4"), ("box", "<f8", 6), ("box_end", "<i4")] if layout.has_box else [])
        + [(f"{axis}{part}", *kind) for axis in "xyz" for part, kind in _axis_record(layout.num_atoms)]
    )
    frames = np.fromfile(path, dtype=record, count=num_frames, offset=layout.header_bytes)
    if num_frames and not (frames["x_mark"] == 4 * layout.num_atoms).all():
        raise DataError(f"{path}: a frame does not start where it should, the file is damaged")
    positions = np.stack([frames["x"], frames["y"], frames["z"]], axis=-1).astype(np.float64) / ANGSTROM_PER_NM
    return positions, _box_vectors(frames["box"]) if layout.has_box else None


def _axis_record(num_atoms: int) -> list[tuple[str, tuple]]:
    return [("_mark", ("<i4",)), ("", ("<f4", num_atoms)), ("_end", ("<i4",))]


def _box_vectors(cell: np.ndarray) -> np.ndarray:
    """Box vectors in nm from CHARMM's order: a, cos gamma, b, cos beta, cos alpha, c (lengths in angstrom).

    OpenMM writes the sine of (90 degrees - angle), which is the cosine.
    """
    a, cos_gamma, b, cos_beta, cos_alpha, c = cell.T
    sin_gamma = np.sqrt(1.0 - cos_gamma**2)
    zero = np.zeros_like(a)
    c_y = c * (cos_alpha - cos_beta * cos_gamma) / sin_gamma
    c_z = np.sqrt(np.maximum(c**2 - (c * cos_beta) ** 2 - c_y**2, 0.0))
    rows = [[a, zero, zero], [b * cos_gamma, b * sin_gamma, zero], [c * cos_beta, c_y, c_z]]
    return np.moveaxis(np.array(rows), -1, 0) / ANGSTROM_PER_NM
