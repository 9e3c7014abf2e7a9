"""Trajectory files that end in the middle of a frame, as a killed program leaves them: which frames are whole.

mdtraj raises for the last frame of some formats, leaves it out of others without a word, and reads the rest of a number
as a number where a text ends in one. So whole frames are counted before it reads: from the sizes in the headers of
binary frames, and from the lines of texts.
"""

from __future__ import annotations

import gzip
import itertools
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from openmm_gnn.base.errors import DataError
from openmm_gnn.md.dcd_frames import dcd_layout

_HEADER_LINES = {".xyz": 2, ".gro": 3, ".lammpstrj": 9}
"""Lines of a frame besides one for each atom."""
_COUNT_LINE = {".xyz": 0, ".gro": 1, ".lammpstrj": 3}
"""The line of the first frame that says the number of atoms."""
RECTANGULAR = (".mdcrd", ".crd")
"""Formats that hold the lengths of a box, but no angles, which are taken for right ones."""
_NETCDF = (".nc", ".ncdf", ".netcdf")


@dataclass(frozen=True)
class WholeFrames:
    """What of a trajectory can be read."""

    path: Path
    """A file of whole frames: the trajectory itself, or what stands in for it."""
    frames: int | None
    """The frames to read of it; None: all that mdtraj finds."""
    left_out: str = ""
    """What follows the whole frames, in words; empty: nothing."""


@contextmanager
def whole_frames(path: Path, num_atoms: int) -> Iterator[WholeFrames]:
    """The whole frames of a trajectory.

    Args:
        num_atoms: atoms of a frame.
    Raises:
        DataError: if the file is cut short in its first frame.
    """
    suffix = trajectory_suffix(path)
    with tempfile.TemporaryDirectory() as folder:
        stand_in = Path(folder) / f"whole{suffix}"
        try:
            if suffix in (".xtc", ".trr"):
                found = _sized_frames(path, _xtc_frame if suffix == ".xtc" else _trr_frame)
            elif suffix == ".dcd":
                found = _dcd_frames(path)
            elif suffix in _NETCDF:
                found = _netcdf_frames(path, stand_in)
            elif suffix in (*_HEADER_LINES, *RECTANGULAR, ".pdb", ".cif"):
                found = _text_frames(path, suffix, num_atoms, stand_in)
            else:
                found = WholeFrames(path, None)
        except (OSError, struct.error, ValueError, IndexError):
            found = WholeFrames(path, None)  # not of this format: mdtraj says what is wrong
        if found.frames == 0 and found.left_out:
            raise DataError(
                f"{path} is cut short in its first frame: there is no whole one in it ({found.left_out} left)"
            )
        yield found


def trajectory_suffix(path: Path) -> str:
    """The ending of a file's name that says its format, without that of a compression."""
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return plain.suffix.lower()


def _sized_frames(path: Path, size_of_frame: Callable[[FileIO], int]) -> WholeFrames:
    """Whole frames of a file of frames that say their size."""
    size, start, count = os.path.getsize(path), 0, 0
    with open(path, "rb", buffering=0) as file:  # no more than the headers is read
        while start < size:
            file.seek(start)
            try:
                frame_bytes = size_of_frame(file)
            except (struct.error, ValueError):
                break
            if start + frame_bytes > size:
                break
            start, count = start + frame_bytes, count + 1
    rest = size - start
    if not rest:
        return WholeFrames(path, count)
    return WholeFrames(path, count, _left_out(-(-rest * max(count, 1) // max(start, rest)), f"{rest} bytes"))


def _xtc_frame(file: FileIO) -> int:
    """Bytes of the frame of an XTC file that begins here."""
    head = file.read(92)
    magic, num_atoms = struct.unpack_from(">2i", head)
    if magic not in (1995, 2023):
        raise ValueError
    if num_atoms <= 9:
        return 56 + 12 * num_atoms
    if magic == 1995:
        (packed,) = struct.unpack_from(">i", head, 88)
        return 92 + -(-packed // 4) * 4
    (packed,) = struct.unpack(">q", head[88:92] + file.read(4))
    return 96 + -(-packed // 4) * 4


def _trr_frame(file: FileIO) -> int:
    """Bytes of the frame of a TRR file that begins here."""
    head = file.read(76)
    magic, _, name_bytes = struct.unpack_from(">3i", head)
    if magic != 1993 or name_bytes != 12:
        raise ValueError
    *sizes, num_atoms, _, _ = struct.unpack_from(">13i", head, 24)
    double = sizes[2] == 72 or 24 * num_atoms in sizes[7:10]  # the box; positions, velocities and forces
    return 76 + (16 if double else 8) + sum(sizes)


def _dcd_frames(path: Path) -> WholeFrames:
    try:
        layout = dcd_layout(path)
    except DataError:
        return WholeFrames(path, None)
    size = os.path.getsize(path)
    count = layout.whole_frames(size)
    rest = size - layout.header_bytes - count * layout.frame_bytes
    missing = max(layout.promised_frames - count, int(rest > 0))
    promised = f"its header promises {layout.promised_frames}"
    return WholeFrames(path, count, _left_out(missing, f"{rest} bytes" if rest else promised))


def _netcdf_frames(path: Path, stand_in: Path) -> WholeFrames:
    """Whole frames of a NetCDF 3 file; where records are missing, a copy whose header says how many there are."""
    with open(path, "rb") as file:
        head = file.read(8)
    (promised,) = struct.unpack(">4xi", head)
    if head[:3] != b"CDF" or promised < 1 or _holds_its_records(path):
        return WholeFrames(path, None)
    shutil.copyfile(path, stand_in)
    low, high = 0, promised - 1
    while low < high:
        middle = (low + high + 1) // 2
        _promise(stand_in, middle)
        low, high = (middle, high) if _holds_its_records(stand_in) else (low, middle - 1)
    _promise(stand_in, low)
    return WholeFrames(stand_in, low, _left_out(promised - low, f"its header promises {promised}"))


def _holds_its_records(path: Path) -> bool:
    """Whether a NetCDF 3 file is as long as its header says; nothing of the records is read."""
    from scipy.io import netcdf_file

    try:
        with netcdf_file(str(path), "r", mmap=True):
            return True
    except ValueError:
        return False


def _promise(path: Path, records: int) -> None:
    with open(path, "r+b") as file:
        file.seek(4)
        file.write(struct.pack(">i", records))


def _text_frames(path: Path, suffix: str, num_atoms: int, stand_in: Path) -> WholeFrames:
    """Whole frames of a text; where it ends in the middle of one, a copy without that."""
    count_lines = _whole_models if suffix in (".pdb", ".cif") else _whole_lines
    whole_lines, count, rest = count_lines(_lines(path), suffix, num_atoms)
    if not rest and (path.suffix.lower() != ".gz" or _unpacks(path)):
        return WholeFrames(path, None)
    with open(stand_in, "wb") as copy:
        copy.writelines(itertools.islice(_lines(path), whole_lines))
    frames = -(-rest * max(count, 1) // max(whole_lines, rest, 1))
    return WholeFrames(
        stand_in, count, _left_out(frames, f"{rest} lines; one without an end counts as cut") or "nothing"
    )


def _left_out(frames: int, what: str) -> str:
    return f"{frames} frame{'s' * (frames > 1)} ({what})" if frames else ""


def _unpacks(path: Path) -> bool:
    try:
        with gzip.open(path) as file:
            while file.read(1 << 20):
                pass
    except (EOFError, zlib.error):
        return False
    return True


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a text, unpacked where it is compressed; what is left of a broken compression too."""
    if path.suffix.lower() != ".gz":
        with open(path, "rb") as file:
            yield from file
        return
    unpacker, rest = zlib.decompressobj(wbits=31), b""
    with open(path, "rb") as file:
        while packed := file.read(1 << 20):
            *lines, rest = (rest + unpacker.decompress(packed)).split(b"\n")
            yield from (line + b"\n" for line in lines)
    if rest:
        yield rest


def _whole_lines(lines: Iterable[bytes], suffix: str, num_atoms: int) -> tuple[int, int, int]:
    """Lines of the whole frames of a text of frames of as many lines each, the frames, and the lines that follow."""
    title = 0 if suffix in _HEADER_LINES else 1
    per_frame = -(-3 * num_atoms // 10)
    first: list[bytes] = []
    total = ended = 0
    for number, line in enumerate(lines, 1):
        if number <= max(4, per_frame + 2):
            first.append(line)
        if line.strip():
            total, ended = number, number if line.endswith(b"\n") else number - 1
    if not title:
        per_frame = _HEADER_LINES[suffix] + int(first[_COUNT_LINE[suffix]])
    elif num_atoms > 1 and len(first) > per_frame + 1:
        after = first[per_frame + 1]  # three lengths of a box, which may be cut
        per_frame += len(after.split()) == 3 or (len(after.split()) < 3 and not after.endswith(b"\n"))
    count = (ended - title) // per_frame
    whole_lines = title + count * per_frame
    return whole_lines, count, total - whole_lines


def _whole_models(lines: Iterable[bytes], suffix: str, num_atoms: int) -> tuple[int, int, int]:
    """As `_whole_lines`, of a PDB or PDBx/mmCIF file of models; a last one that is shorter than the first is cut."""
    models: list[list[int]] = []  # the lines before each, and its atoms
    columns: list[bytes] = []
    name: bytes | None = None
    number, cut = 0, False
    for number, line in enumerate(lines, 1):
        if line.startswith((b"ATOM", b"HETATM")):
            cut = not line.endswith(b"\n")
            if suffix == ".cif" and b"_atom_site.pdbx_PDB_model_num" in columns and not cut:
                found = line.split()[columns.index(b"_atom_site.pdbx_PDB_model_num")]
                if found != name:
                    name = found
                    models.append([number - 1, 0])
            elif not models:
                models.append([0, 0])
            models[-1][1] += not cut
        elif line.startswith(b"MODEL ") and suffix == ".pdb":
            models.append([number - 1, 0])
        elif line.startswith(b"_atom_site."):
            columns.append(line.strip())
    if len(models) > 1 and models[-1][1] < models[0][1]:
        return models[-1][0], len(models) - 1, number - models[-1][0]
    return (0, 0, number) if cut else (number, len(models), 0)
