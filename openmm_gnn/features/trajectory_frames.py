"""Frames of a trajectory in any format that mdtraj reads, and the topology they belong to."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.errors import DataError

if TYPE_CHECKING:
    import mdtraj

_SEEKABLE = frozenset({".xtc", ".trr", ".dcd", ".nc", ".ncdf", ".netcdf"})
"""Formats of which mdtraj can go to a frame at once; others are read from the start."""
_TIMED = frozenset({".xtc", ".trr", ".nc", ".ncdf", ".netcdf", ".h5", ".hdf5", ".gro", ".dtr", ".stk", ".ncrst"})
"""Formats whose times mdtraj reads; for others it counts frames."""
_WHOLE_ONLY = (AttributeError, NotImplementedError, TypeError)
"""What mdtraj raises where a format cannot be read in pieces."""


_READERS = {".h5": "tables", ".hdf5": "tables", ".lh5": "tables", ".mol2": "pandas"}
"""Packages that mdtraj needs for a format, and that do not come with it: the extra `formats`."""


@dataclass(frozen=True)
class TrajectoryFrames:
    """Consecutive frames of a trajectory."""

    indices: np.ndarray
    """(frames,) counted from 0 in the file."""
    positions: np.ndarray
    """(frames, num_atoms, 3) nm, of the atoms that were asked for."""
    box_vectors: np.ndarray | None
    """(frames, 3, 3) nm, rows a, b, c; None where the file has no box."""
    times_ps: np.ndarray | None
    """(frames,) as the file has them; None where the format has none."""

    def __getitem__(self, rows: Any) -> TrajectoryFrames:
        """Some of the frames."""
        box, times = self.box_vectors, self.times_ps
        return TrajectoryFrames(
            self.indices[rows],
            self.positions[rows],
            None if box is None else box[rows],
            None if times is None else times[rows],
        )


@contextmanager
def ascii_path(path: Path) -> Iterator[str]:
    """The path of a file for readers in C that know ASCII alone: where it has other letters, that of a link to it."""
    if str(path).isascii():
        yield str(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, "file" + "".join(suffix for suffix in path.suffixes[-2:] if suffix.isascii()))
        link.symlink_to(path.resolve())
        yield str(link)


def check_reader(path: Path) -> None:
    """
    Raises:
        DataError: if the package that reads files of this kind is not installed.
    """
    module = _READERS.get(path.suffix.lower())
    if module is not None and importlib.util.find_spec(module) is None:
        raise DataError(f"reading {path} needs {module}, which is not installed: `pip install {module}`")


def read_topology(path: Path) -> mdtraj.Topology:
    """The topology of a file: of PDB and PDBx/mmCIF as OpenMM reads it, else as mdtraj does.

    Raises:
        DataError: if there is no such file, or it holds none.
    """
    import mdtraj

    from openmm_gnn.features.selection import as_mdtraj

    if not path.is_file():
        raise DataError(f"there is no file {path}: check the path of the topology")
    check_reader(path)
    try:
        if (suffix := path.suffix.lower()) in (".pdb", ".ent", ".cif", ".pdbx", ".mmcif"):
            from openmm import app

            # As a simulation reads it, so that features made live and offline are of one topology.
            reader = app.PDBFile if suffix in (".pdb", ".ent") else app.PDBxFile
            return as_mdtraj(reader(str(path)).topology)
        return mdtraj.load_topology(str(path))
    except Exception as error:  # the parsers raise whatever the text makes them stumble over
        raise DataError(f"{path} cannot be read as a topology: {error or type(error).__name__}") from error


def count_frames(path: Path) -> int | None:
    """Frames in a file, where that is known without reading it."""
    import mdtraj

    if path.suffix.lower() not in _SEEKABLE:
        return None
    try:
        with ascii_path(path) as named, mdtraj.open(named) as file:
            return len(file)
    except Exception:  # only for a progress bar: reading will say what is wrong
        return None


def check_atoms(path: Path, topology: mdtraj.Topology) -> None:
    """
    Raises:
        DataError: if the trajectory cannot be read, is empty, or has another number of atoms than the topology.
    """
    for frames in _pieces(path, topology, None, 1, 0):
        if frames.n_atoms != topology.n_atoms:
            raise DataError(_other_atoms(path, topology, f"{frames.n_atoms} atoms"))
        return
    raise DataError(f"{path} has no frames: was it written to the end?")


def frames_of(
    path: Path, topology: mdtraj.Topology, atoms: np.ndarray, first: int = 0, stride: int = 1, chunk: int = 100
) -> Iterator[TrajectoryFrames]:
    """The frames of a trajectory whose index is a multiple of `stride`, from `first` on.

    Args:
        atoms: indices of those that are wanted; in most formats no others are kept in memory.
        chunk: frames that are read at once.
    Raises:
        DataError: naming the file, if it cannot be read.
    """
    # mdtraj's own stride, after a seek, reads some formats forever or wrongly.
    start = first if path.suffix.lower() in _SEEKABLE else 0
    for frames in _pieces(path, topology, atoms, chunk, start):
        indices = np.arange(start, start + len(frames))
        start += len(frames)
        times = frames.time if path.suffix.lower() in _TIMED else None
        read = TrajectoryFrames(indices, frames.xyz, _boxes(frames), times)
        wanted = (indices >= first) & (indices % stride == 0)
        if wanted.any():
            yield read[wanted]


def _pieces(
    path: Path, topology: mdtraj.Topology, atoms: np.ndarray | None, chunk: int, skip: int
) -> Iterator[mdtraj.Trajectory]:
    import mdtraj

    if not path.exists():
        raise DataError(f"there is no file {path}: check the path of the trajectory")
    check_reader(path)
    if path.is_file() and not path.stat().st_size:
        raise DataError(f"{path} is empty: was it written to the end, or copied whole?")
    given: dict[str, Any] = {"top": topology, "atom_indices": atoms}
    try:
        if skip and skip >= (count_frames(path) or 0):
            return
        begun = False
        with ascii_path(path) as named:
            try:
                for frames in mdtraj.iterload(named, chunk=chunk, skip=skip, **given):
                    begun = True
                    yield frames
            except _WHOLE_ONLY:
                if begun:
                    raise
                yield mdtraj.load(named, **given)
    except (DataError, GeneratorExit):
        raise
    except Exception as error:  # each format has exceptions of its own
        message = str(error).strip() or type(error).__name__
        if "atoms" in message or "shape" in message:
            raise DataError(_other_atoms(path, topology, message)) from error
        raise DataError(f"{path} cannot be read by mdtraj: {message}") from error


def _boxes(frames: mdtraj.Trajectory) -> np.ndarray | None:
    """(frames, 3, 3); None where there is none, which some programs write as a box of zeros."""
    boxes = frames.unitcell_vectors
    if boxes is None or not (np.isfinite(boxes).all() and (np.abs(np.linalg.det(boxes)) > 0).all()):
        return None
    return boxes


def _other_atoms(path: Path, topology: mdtraj.Topology, found: str) -> str:
    return (
        f"{path} does not fit the topology of {topology.n_atoms} atoms ({found}): give the topology of the System that "
        "was simulated, or of the atoms that were written"
    )
