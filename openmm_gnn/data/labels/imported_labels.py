"""Labels that come from elsewhere, as a directory that training reads like one written by `label`.

    meta.json     where the frames come from, which of them are which seed, what their forces are
    frames.npy    one record per frame: its seed, its composition, where its atoms begin, box, energy
    atoms.npy     position and force of every atom of every frame, frame after frame
    elements.npy, bonds.npy   the compositions: atomic numbers one behind the other, and bonds from a topology file

Frames may differ in box, in number and in kinds of atoms. Those of one seed are held out together. A file is one
trajectory; cut into blocks of consecutive frames, each block counts as a seed of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import command_line
from openmm_gnn.data.description import DataKind
from openmm_gnn.data.labels.external_labels import ExternalFile, ExternalFrame
from openmm_gnn.data.labels.settings import ImportSettings

if TYPE_CHECKING:
    from openmm import app

IMPORTED = DataKind("openmm_gnn imported labels", 1, "openmm-gnn import-labels")
UNITS = {"box_vectors": "nm, rows a, b, c", "energy": "kJ/mol", "position": "nm", "force": "kJ/mol/nm"}
FRAME_FIELDS = np.dtype(
    [
        ("seed", "<i8"),
        ("composition", "<i8"),
        ("first_atom", "<i8"),
        ("num_atoms", "<i8"),
        ("file", "<i8"),
        ("frame_of_file", "<i8"),
        ("periodic", "?"),
        ("box_vectors", "<f8", (3, 3)),
        ("energy", "<f8"),
    ]
)
ATOM_FIELDS = np.dtype([("position", "<f8", 3), ("force", "<f4", 3)])
BLOCKS_OF_ONE_FILE = 10


@dataclass(frozen=True)
class ImportedBlock:
    """Consecutive frames of one seed and one composition; its arrays are views of read-only memory maps."""

    path: Path
    """The directory."""
    seed: int
    positions: np.ndarray
    """(num_frames, num_atoms, 3) float64, nm."""
    forces: np.ndarray
    """(num_frames, num_atoms, 3) float32, kJ/mol/nm."""
    box_vectors: np.ndarray
    """(num_frames, 3, 3), rows a, b, c, nm; zero in open space."""
    energies: np.ndarray
    """(num_frames,), kJ/mol; NaN where the file gave none."""
    periodic: bool

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True)
class ImportedLabels:
    """A directory of imported labels."""

    path: Path
    meta: dict[str, Any]
    frames: np.ndarray
    """(num_frames,) of `FRAME_FIELDS`, sorted by seed and composition."""
    atoms: np.ndarray
    """(num_atoms_of_all_frames,) of `ATOM_FIELDS`."""
    compositions: list[np.ndarray]
    """Atomic numbers, (num_atoms,) each."""
    bonds: np.ndarray
    """(num_bonds, 2); empty where no topology was given."""

    @classmethod
    def open(cls, path: str | Path) -> ImportedLabels:
        """Open a directory that `import_labels` has written.

        Raises:
            DataError: if it is no such directory, damaged, or of another version.
        """
        path = Path(path)
        meta = IMPORTED.read(path)
        try:
            frames = np.load(path / "frames.npy", allow_pickle=False)
            atoms = np.load(path / "atoms.npy", mmap_mode="r", allow_pickle=False)
            numbers = np.load(path / "elements.npy", allow_pickle=False)
            bonds = np.load(path / "bonds.npy", allow_pickle=False)
            counts = meta["atoms_of_compositions"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} cannot be read as imported labels ({error}): import them again") from error
        whole = len(frames) and int(frames["first_atom"][-1] + frames["num_atoms"][-1]) == len(atoms)
        if frames.dtype != FRAME_FIELDS or atoms.dtype != ATOM_FIELDS or not whole or sum(counts) != len(numbers):
            raise DataError(f"the files of {path} do not fit together: import the labels again")
        return cls(path, meta, frames, atoms, np.split(numbers, np.cumsum(counts)[:-1]), bonds)

    @property
    def seeds(self) -> list[int]:
        """Every seed once, ascending."""
        return np.unique(self.frames["seed"]).tolist()

    @property
    def summary(self) -> str:
        """The numbers of frames and compositions, and a line for each seed."""
        kinds = f"{len(self.compositions)} composition{'s' if len(self.compositions) > 1 else ''}"
        said = f"{len(self.frames)} frames of {kinds} in {self.path}, seeds {self.seeds[0]}-{self.seeds[-1]}:"
        rows = (f"  {row['seed']}: {row['num_frames']} frames of {row['file']}" for row in self.meta["seeds"])
        return "\n".join([said, *rows])

    @cached_property
    def topologies(self) -> list[app.Topology]:
        """One for each composition: elements, and bonds where a topology was given."""
        return [_topology(numbers, self.bonds) for numbers in self.compositions]

    def select(self, seeds: Iterable[int]) -> list[tuple[app.Topology, ImportedBlock]]:
        """The frames of these seeds, a block for each composition that they have.

        Raises:
            DataError: if a seed has no frames.
        """
        chosen = []
        for seed in seeds:
            if seed not in self.seeds:
                raise DataError(f"{self.path} has no seed {seed}: it has the seeds {self.seeds}")
            of_seed = self.frames[self.frames["seed"] == seed]
            kinds = np.stack([of_seed["composition"], of_seed["periodic"]])
            borders = np.flatnonzero((np.diff(kinds, axis=1) != 0).any(axis=0)) + 1
            for part in np.split(of_seed, borders):
                chosen.append((self.topologies[int(part["composition"][0])], self._block(seed, part)))
        return chosen

    def _block(self, seed: int, part: np.ndarray) -> ImportedBlock:
        first, count = int(part["first_atom"][0]), int(part["num_atoms"][0])
        atoms = self.atoms[first : first + len(part) * count].reshape(len(part), count)
        return ImportedBlock(
            path=self.path,
            seed=seed,
            positions=atoms["position"],
            forces=atoms["force"],
            box_vectors=part["box_vectors"],
            energies=part["energy"],
            periodic=bool(part["periodic"][0]),
        )


def import_labels(
    files: Sequence[ExternalFile],
    out: str | Path,
    settings: ImportSettings | None = None,
    topology: app.Topology | None = None,
    topology_name: str | None = None,
) -> ImportedLabels:
    """Write the frames of these files into a new directory.

    Args:
        topology: gives bonds; every frame must have exactly its elements.
    Raises:
        SpecError: if a file has too few frames for its blocks.
        DataError: if the directory exists, or a frame does not fit the topology.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} exists and is not empty: give a new directory")
    settings = settings or ImportSettings()
    seeds = _published_seeds(files) if settings.published_split else _block_seeds(files, settings.blocks, settings.gap)
    bonds = _bonds(files, topology, topology_name)
    compositions: dict[bytes, int] = {}
    rows = []
    for which, (file, of_file) in enumerate(zip(files, seeds, strict=True)):
        for index, (frame, seed) in enumerate(zip(file.frames, of_file, strict=True)):
            composition = compositions.setdefault(frame.atomic_numbers.tobytes(), len(compositions))
            if seed:
                rows.append((int(seed), composition, frame.box_vectors is not None, which, index, frame))
    rows.sort(key=lambda row: row[:5])
    frames = np.zeros(len(rows), dtype=FRAME_FIELDS)
    atoms = np.zeros(sum(len(row[-1].positions) for row in rows), dtype=ATOM_FIELDS)
    start = 0
    for record, (seed, composition, periodic, which, index, frame) in zip(frames, rows, strict=True):
        count = len(frame.positions)
        box = np.zeros((3, 3)) if frame.box_vectors is None else frame.box_vectors
        values = (seed, composition, start, count, which, index, periodic, box, frame.energy)
        for name, value in zip(FRAME_FIELDS.names or (), values, strict=True):
            record[name] = value
        atoms["position"][start : start + count] = frame.positions
        atoms["force"][start : start + count] = frame.forces
        start += count
    numbers = [np.frombuffer(key, dtype=np.int64) for key in compositions]
    out.mkdir(parents=True, exist_ok=True)
    for name, array in (("frames", frames), ("atoms", atoms), ("elements", np.concatenate(numbers)), ("bonds", bonds)):
        np.save(out / f"{name}.npy", array, allow_pickle=False)
    meta = {
        "kind": IMPORTED.name,
        "version": IMPORTED.version,
        "written_by": f"openmm_gnn {version('openmm-gnn')}",
        "command": command_line(),
        "settings": {
            "forces": settings.forces.value,
            "files": [file.path.name for file in files],
            "split": "published" if settings.published_split else "blocks",
            "gap": settings.gap,
        },
        "topology": topology_name or ("given" if topology is not None else None),
        "seeds": _seed_table(frames, files),
        "atoms_of_compositions": [len(n) for n in numbers],
        "units": UNITS,
    }
    IMPORTED.write(out, meta)  # last: it makes the rest count
    return ImportedLabels.open(out)


def _block_seeds(files: Sequence[ExternalFile], blocks: int | None, gap: int) -> list[np.ndarray]:
    """The seed of every frame of every file; 0 for frames that are left out."""
    number = (BLOCKS_OF_ONE_FILE if len(files) == 1 else 1) if blocks is None else blocks
    seeds = []
    for which, file in enumerate(files):
        parts = np.array_split(np.arange(len(file.frames)), number)
        if len(parts[-1]) <= (gap if number > 1 else 0):
            raise SpecError(
                f"{file.path} has {len(file.frames)} frames, too few for {number} blocks with a gap of {gap}: give "
                "fewer --blocks"
            )
        of_file = np.zeros(len(file.frames), dtype=np.int64)
        for block, part in enumerate(parts):
            of_file[part[gap if block else 0 :]] = which * number + block + 1
        seeds.append(of_file)
    return seeds


def _published_seeds(files: Sequence[ExternalFile]) -> list[np.ndarray]:
    seeds = []
    for file in files:
        if file.published_split is None:
            raise DataError(f"{file.path} names no frames for training and test: cut it into --blocks")
        train, test = file.published_split
        of_file = np.zeros(len(file.frames), dtype=np.int64)
        both = np.concatenate([train, test])
        if not np.isin(both, np.arange(len(of_file))).all() or not 0 < len(both) == len(np.unique(both)):
            raise DataError(
                f"train_idx and test_idx of {file.path} overlap, are empty or lie outside its {len(of_file)} frames: "
                "cut it into --blocks in place of the published split"
            )
        of_file[train], of_file[test] = 1, 2
        seeds.append(of_file)
    return seeds


def _bonds(files: Sequence[ExternalFile], topology: app.Topology | None, name: str | None) -> np.ndarray:
    if topology is None:
        return np.zeros((0, 2), dtype=np.int64)
    expected = np.array([0 if a.element is None else a.element.atomic_number for a in topology.atoms()])
    for file in files:
        for index, frame in enumerate(file.frames):
            if not np.array_equal(frame.atomic_numbers, expected):
                raise DataError(
                    f"frame {index} of {file.path} has {_formula(frame)}, not the {len(expected)} atoms of "
                    f"{name or 'the topology'} in its order: import without a topology, or frames of one topology"
                )
    return np.array([(a.index, b.index) for a, b in topology.bonds()], dtype=np.int64).reshape(-1, 2)


def _formula(frame: ExternalFrame) -> str:
    numbers, counts = np.unique(frame.atomic_numbers, return_counts=True)
    return ", ".join(f"{c} of element {n}" for n, c in zip(numbers.tolist(), counts.tolist(), strict=True))


def _seed_table(frames: np.ndarray, files: Sequence[ExternalFile]) -> list[dict[str, Any]]:
    """What each seed is, for readers of meta.json."""
    table = []
    for seed in np.unique(frames["seed"]).tolist():
        of_seed = frames[frames["seed"] == seed]
        for which in np.unique(of_seed["file"]).tolist():
            part = of_seed[of_seed["file"] == which]["frame_of_file"]
            entry = {"seed": seed, "file": files[which].path.name, "num_frames": len(part)}
            table.append({**entry, "first_frame": int(part.min()), "last_frame": int(part.max())})
    return table


def _topology(atomic_numbers: np.ndarray, bonds: np.ndarray) -> app.Topology:
    from openmm import app

    topology = app.Topology()
    residue = topology.addResidue("ALL", topology.addChain())
    elements = {number: app.Element.getByAtomicNumber(number) for number in np.unique(atomic_numbers).tolist()}
    atoms = [
        topology.addAtom(f"{elements[number].symbol}{index + 1}", elements[number], residue)
        for index, number in enumerate(atomic_numbers.tolist())
    ]
    for first, second in bonds.tolist():
        topology.addBond(atoms[first], atoms[second])
    return topology
