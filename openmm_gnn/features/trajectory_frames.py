"""Frames of a trajectory in any format that mdtraj reads, and the topology they belong to."""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.boxes import box_words, can_be_box
from openmm_gnn.base.errors import DataError
from openmm_gnn.features.covalent_bonds import check_bond_lengths
from openmm_gnn.features.cut_trajectories import RECTANGULAR, WholeFrames, trajectory_suffix, whole_frames
from openmm_gnn.md.dcd_frames import dcd_cells, foreign_box_vectors
from openmm_gnn.md.systems.structure_files import STRUCTURE_SUFFIXES, read_models

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
    """(frames, 3, 3) nm, rows a, b, c; None where these frames have no box."""
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
    """Refuse a file whose reader is not installed.

    Raises:
        DataError: if the package that reads files of this kind is not installed.
    """
    module = _READERS.get(path.suffix.lower())
    if module is not None and importlib.util.find_spec(module) is None:
        raise DataError(
            f"reading {path} needs {module}, which is not installed: `pip install {module}`, or the extra `formats`"
        )


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


def check_atoms(path: Path, topology: mdtraj.Topology, atoms: np.ndarray | None = None, periodic: bool = True) -> None:
    """Refuse a trajectory that does not belong to the topology.

    Args:
        atoms: indices of those whose bonds must be bonds in the first frame; None: all.
        periodic: whether molecules may be broken at the box.
    Raises:
        DataError: if the trajectory cannot be read, is empty or cut short in its first frame, or its atoms are not
            those of the topology: another number of them, or bonds that are none.
    """
    chosen = np.arange(topology.n_atoms) if atoms is None else np.sort(atoms)
    with _readable(path, topology) as whole:
        for frames in _pieces(path, whole, topology, None, 1, 0):
            if frames.n_atoms != topology.n_atoms:
                raise DataError(_other_atoms(path, topology, f"{frames.n_atoms} atoms"))
            one = np.arange(1)
            box, has_box = _Boxes(path, topology.n_atoms).of(frames[:1], one, one)
            vectors = box[0] if periodic and has_box[0] else None
            check_bond_lengths(f"frame 0 of {path}", topology, chosen, frames.xyz[0][chosen], vectors)
            return
    raise DataError(f"{path} has no frames: was it written to the end?")


def frames_of(
    path: Path,
    topology: mdtraj.Topology,
    atoms: np.ndarray,
    first: int = 0,
    stride: int = 1,
    chunk: int = 100,
    periodic: bool = True,
) -> Iterator[TrajectoryFrames]:
    """The whole frames of a trajectory whose index is a multiple of `stride`, from `first` on.

    Whether a frame has a periodic box is decided for each by itself: those with one and those without come apart. What
    is left out (a frame that the file ends in) or passed over (a box that cannot be one) is warned of in the end.

    Args:
        atoms: indices of those that are wanted; in most formats no others are kept in memory.
        chunk: frames that are read at once.
        periodic: False: no frame has a box.
    Raises:
        DataError: naming the file, if it cannot be read.
    """
    # mdtraj's own stride, after a seek, reads some formats forever or wrongly.
    start = first if path.suffix.lower() in _SEEKABLE else 0
    with _readable(path, topology) as whole:
        boxes = _Boxes(path, topology.n_atoms)
        for frames in _pieces(path, whole, topology, atoms, chunk, start):
            indices = np.arange(start, start + len(frames))
            start += len(frames)
            wanted = np.flatnonzero((indices >= first) & (indices % stride == 0))
            times = frames.time if path.suffix.lower() in _TIMED else None
            box, has_box = boxes.of(frames, indices, wanted) if periodic else (None, np.zeros(len(frames), bool))
            read = TrajectoryFrames(indices, frames.xyz, box, times)
            for rows in np.split(wanted, 1 + np.flatnonzero(np.diff(has_box[wanted]))):
                if len(rows):
                    part = read[rows]
                    yield part if has_box[rows[0]] else replace(part, box_vectors=None)
        boxes.warn()
        if whole.left_out:
            used = f"its {whole.frames} whole frames are used"
            warnings.warn(f"{path} is cut short: {used}, left out: {whole.left_out}", stacklevel=2)


class _Boxes:
    """The periodic boxes of a trajectory's frames, and what was odd about them."""

    def __init__(self, path: Path, num_atoms: int) -> None:
        self._path, self._num_atoms = path, num_atoms
        self._cells = dcd_cells(path) if path.suffix.lower() == ".dcd" else None
        self._with = 0
        self._without: list[int] = []
        self._refused: list[tuple[int, str]] = []

    def of(self, frames: mdtraj.Trajectory, indices: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(frames, 3, 3) nm, rows a, b, c, and (frames,) whether a frame has one; counts the `wanted` rows."""
        none = np.zeros((len(frames), 3, 3))
        if self._cells is not None:
            box = foreign_box_vectors(self._cells[0][indices], self._cells[1])
            given = self._cells[0][indices].any(axis=1)
        else:
            with warnings.catch_warnings(), np.errstate(invalid="ignore"):
                warnings.simplefilter("ignore")  # of mdtraj for boxes of zeros
                box = none if frames.unitcell_vectors is None else frames.unitcell_vectors
            given = none.any(axis=(1, 2)) if frames.unitcell_lengths is None else frames.unitcell_lengths.any(axis=1)
        has_box = can_be_box(box, self._num_atoms)
        for row in wanted:
            self._with += int(has_box[row])
            if not has_box[row] and given[row]:
                self._refused.append((int(indices[row]), box_words(box[row])))
            elif not has_box[row]:
                self._without.append(int(indices[row]))
        return box, has_box

    def warn(self) -> None:
        """Say which frames have no box though the file or other frames have one."""
        count = self._with + len(self._without) + len(self._refused)
        if self._refused:
            index, words = self._refused[0]
            warnings.warn(
                f"{self._path}: the box of {len(self._refused)} of {count} frames cannot be one of {self._num_atoms} "
                f"atoms (frame {index}: {words}): these frames are taken without a periodic box",
                stacklevel=3,
            )
        if self._with and trajectory_suffix(self._path) in RECTANGULAR:
            warnings.warn(
                f"{self._path}: this format has no angles of the box, which are taken for 90 degrees: if they are not, "
                "convert the trajectory to one that has them, such as NetCDF",
                stacklevel=3,
            )
        if self._without and (self._with or self._refused):
            warnings.warn(
                f"{self._path}: {len(self._without)} of {count} frames have no box, the first is frame "
                f"{self._without[0]}: these are taken without one",
                stacklevel=3,
            )


@contextmanager
def _readable(path: Path, topology: mdtraj.Topology) -> Iterator[WholeFrames]:
    if not path.exists():
        raise DataError(f"there is no file {path}: check the path of the trajectory")
    check_reader(path)
    if path.is_file() and not path.stat().st_size:
        raise DataError(f"{path} is empty: was it written to the end, or copied whole?")
    with whole_frames(path, topology.n_atoms) as whole:
        yield whole


def _pieces(
    path: Path, whole: WholeFrames, topology: mdtraj.Topology, atoms: np.ndarray | None, chunk: int, skip: int
) -> Iterator[mdtraj.Trajectory]:
    import mdtraj

    if path.suffix.lower() in STRUCTURE_SUFFIXES:
        yield _models(whole.path, topology, atoms)[skip:]
        return
    given: dict[str, Any] = {"top": topology, "atom_indices": atoms}
    try:
        if whole.left_out and whole.path == path and path.suffix.lower() != ".dcd":
            yield from _first_frames(path, whole.frames or 0, topology, atoms, chunk, skip)
            return
        if skip and skip >= (count_frames(whole.path) or 0):
            return
        begun = False
        with ascii_path(whole.path) as named:
            try:
                for frames in mdtraj.iterload(named, chunk=chunk, skip=skip, **given):
                    begun = True
                    yield frames
            except _WHOLE_ONLY:
                if begun:
                    raise
                every = mdtraj.load(named, top=topology)  # of some atoms alone it cannot read these
                yield every if atoms is None else every.atom_slice(atoms)
    except (DataError, GeneratorExit):
        raise
    except Exception as error:  # each format has exceptions of its own
        message = str(error).strip() or type(error).__name__
        if "atoms" in message or "shape" in message:
            raise DataError(_other_atoms(path, topology, message)) from error
        raise DataError(f"{path} cannot be read by mdtraj: {message}") from error


def _first_frames(
    path: Path, count: int, topology: mdtraj.Topology, atoms: np.ndarray | None, chunk: int, skip: int
) -> Iterator[mdtraj.Trajectory]:
    """Frames `skip` to `count` of a file in which mdtraj cannot seek, as what follows is no frame."""
    import mdtraj

    with ascii_path(path) as named, mdtraj.open(named) as file:
        start = 0
        while start < count:
            stop = min(start + chunk, count)
            frames = file.read_as_traj(topology, n_frames=stop - start, atom_indices=atoms)
            if stop > skip:
                yield frames[max(0, skip - start) :]
            start = stop


def _models(path: Path, topology: mdtraj.Topology, atoms: np.ndarray | None) -> mdtraj.Trajectory:
    """The models of a structure file, of the atoms that its topology has: alternate locations are left out in both."""
    import mdtraj

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* atoms have ")  # said when the topology was read
        structure = read_models(path)
    positions = np.stack(structure.frames)
    if positions.shape[1] != topology.n_atoms:
        raise DataError(_other_atoms(path, topology, f"{positions.shape[1]} atoms"))
    frames = mdtraj.Trajectory(positions, topology)
    if structure.box_vectors is not None:
        frames.unitcell_vectors = np.broadcast_to(structure.box_vectors, (len(positions), 3, 3))
    return frames if atoms is None else frames.atom_slice(atoms)


def _other_atoms(path: Path, topology: mdtraj.Topology, found: str) -> str:
    return (
        f"{path} does not fit the topology of {topology.n_atoms} atoms ({found}): give the topology of the System that "
        "was simulated, or of the atoms that were written"
    )
