"""Public sets of small molecules, read as users download them in one pass, and put into shards.

OrbNet Denali (Christensen et al., J. Chem. Phys. 155, 204103 (2021), DOI 10.1063/5.0061990; figshare 14883867):
orbnet_denali.tar.gz with xyz_files/<mol_id>/<sample_id>.xyz in angstrom, and denali_labels.csv of
orbnet_denali_targets.tar.gz with the columns sample_id and mol_id. Either the .tar.gz as it is, or a folder with
xyz_files, unpacked, in it; the labels are not needed, as names and folders say the same. A compound is what stands
before the first underscore of mol_id.

PCQM4Mv2 (Hu et al., OGB-LSC, arXiv 2103.09430): pcqm4m-v2-train.sdf, or pcqm4m-v2-train.sdf.tar.gz as it is; one
geometry of density functional theory for each molecule of the training split, as a V2000 mol block.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from enum import Enum
from itertools import groupby, islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import locked
from openmm_gnn.base.units import ANGSTROM_PER_NM
from openmm_gnn.base.worker_processes import ProgressBar
from openmm_gnn.data.conformers.conformations import Conformations
from openmm_gnn.data.conformers.conformers import complete_directory, prepare_directory
from openmm_gnn.data.conformers.shards import Conformers, open_shard, shard_paths, write_shard

MOLECULES_PER_SHARD = 16384


class PublishedSet(str, Enum):
    """Which of them a file is."""

    ORBNET_DENALI = "orbnet-denali"
    PCQM4MV2 = "pcqm4mv2"


class Record(NamedTuple):
    """What stands for one molecule in the file: text of each conformer."""

    name: str
    texts: list[tuple[str, str]]
    """Where each stands, for errors, and what stands there."""


def records_of(kind: PublishedSet, path: Path) -> Iterator[Record]:
    """Every molecule of a file or folder, in its order, as text; never more of it in memory than one molecule.

    Raises:
        DataError: if the file is missing, of another layout, or breaks off.
    """
    if not path.exists():
        raise DataError(f"there is no file {path}: download {kind.value} first")
    try:
        yield from _denali(path) if kind is PublishedSet.ORBNET_DENALI else _pcqm(path)
    except (tarfile.TarError, zlib.error, EOFError, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read on ({error or type(error).__name__}): download it again") from error


def conformers_of(kind: PublishedSet, record: Record) -> Conformers:
    """The molecule that a record describes.

    Raises:
        DataError: naming the place in the file, if it cannot be read, is empty, not finite or of unknown elements.
    """
    parse = parse_xyz if kind is PublishedSet.ORBNET_DENALI else parse_mol_block
    frames, elements, sequence = [], None, record.name.split("_")[0]
    for place, text in record.texts:
        try:
            numbers, positions, smiles = parse(text)
        except (ValueError, IndexError, KeyError) as error:
            raise DataError(f"{place} cannot be read: {error}; mend it, or leave it out with --skip-bad") from error
        if elements is not None and not np.array_equal(elements, numbers):
            raise DataError(
                f"{place} has other atoms than {record.texts[0][0]}: leave the molecule out with --skip-bad"
            )
        elements, sequence = numbers, smiles or sequence
        frames.append(positions / ANGSTROM_PER_NM)
    assert elements is not None
    molecule = Conformers(record.name, sequence, elements, np.stack(frames))
    try:
        molecule.check()
    except DataError as error:
        raise DataError(f"{record.texts[0][0]}: {error}; mend it, or leave it out with --skip-bad") from error
    return molecule


def parse_xyz(text: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Atomic numbers (N,), positions (N, 3) in the file's unit, and no SMILES; ValueError if it is no such text."""
    from openmm.app import Element

    lines = text.splitlines()
    count = int(lines[0]) if lines else 0
    rows = [line.split() for line in lines[2 : 2 + count]]
    if len(rows) != count or any(len(row) < 4 for row in rows):
        raise ValueError(f"{count} atoms are announced, {sum(len(row) >= 4 for row in rows)} are there")
    try:
        numbers = [Element.getBySymbol(row[0]).atomic_number for row in rows]
    except KeyError as error:
        raise ValueError(f"{error} is no element") from error
    positions = np.array([[float(value) for value in row[1:4]] for row in rows]).reshape(-1, 3)
    return np.array(numbers, dtype=np.int64), positions, ""


def parse_mol_block(text: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Atomic numbers (N,), positions (N, 3) in the file's unit, and the SMILES; ValueError if it is no such text."""
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        molecule = Chem.MolFromMolBlock(text, sanitize=False, removeHs=False)
        if molecule is None or molecule.GetNumConformers() == 0:
            raise ValueError("it is no mol block")
        flat = Chem.MolFromMolBlock(text)
        smiles = "" if flat is None else Chem.MolToSmiles(flat)
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.int64)
    return numbers, np.array(molecule.GetConformer().GetPositions()), smiles


def _denali(path: Path) -> Iterator[Record]:
    """A molecule is a run of files in one folder, as they lie in the archive."""
    found = False
    for name, group in groupby(_xyz_files(path), key=lambda entry: entry[0]):
        found = True
        yield Record(name, [(place, text) for _, place, text in group])
    if not found:
        raise DataError(f"{path} holds no xyz_files/<mol_id>/<sample_id>.xyz: give orbnet_denali.tar.gz, or its folder")


def _xyz_files(path: Path) -> Iterator[tuple[str, str, str]]:
    """mol_id, place and text of each."""
    if path.is_dir():
        for folder in sorted(entry for entry in (path / "xyz_files").glob("*") if entry.is_dir()):
            for file in sorted(folder.glob("*.xyz")):
                yield folder.name, str(file), file.read_text()
        return
    for name, content in _members(path):
        parts = Path(name).parts
        if len(parts) >= 3 and parts[-3] == "xyz_files" and parts[-1].endswith(".xyz"):
            yield parts[-2], f"{path}:{name}", content.read().decode()


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each file of a .tar.gz, in one pass.

    Unpacked by gzip, not by tarfile, which takes an archive that breaks off for one that ends there.
    """
    with gzip.open(path, "rb") as unpacked:
        with tarfile.open(fileobj=unpacked, mode="r|") as archive:
            for member in archive:
                if member.isfile():
                    content = archive.extractfile(member)
                    assert content is not None
                    yield member.name, content
        while unpacked.read(1 << 20):  # to the checksum at the end
            pass


def _pcqm(path: Path) -> Iterator[Record]:
    if path.suffix == ".sdf":
        with open(path, "rb") as file:
            yield from _mol_blocks(file, str(path))
        return
    found = False
    for name, content in _members(path):
        if name.endswith(".sdf"):
            found = True
            yield from _mol_blocks(content, f"{path}:{name}")
    if found:
        return
    raise DataError(f"{path} holds no .sdf: give pcqm4m-v2-train.sdf, or its .tar.gz")


def _mol_blocks(file: IO[bytes], source: str) -> Iterator[Record]:
    """A record ends with a line of four dollar signs."""
    lines: list[str] = []
    number = 0
    for raw in file:
        line = raw.decode()
        if line.rstrip() != "$$$$":
            lines.append(line)
            continue
        yield Record(f"{number}", [(f"{source} record {number}", "".join(lines))])
        lines, number = [], number + 1
    if "".join(lines).strip():
        yield Record(f"{number}", [(f"{source} record {number}", "".join(lines))])


def import_conformers(
    kind: PublishedSet,
    source: str | Path,
    out: str | Path,
    limit: int | None = None,
    skip_bad: bool = False,
    progress: bool = True,
    molecules_per_shard: int = MOLECULES_PER_SHARD,
) -> Conformations:
    """Read a file or folder as it was downloaded into a directory of conformations.

    Called again after a kill, it passes over what is in the shards already; a shard that was deleted is made again.

    Args:
        limit: so many molecules at most.
        skip_bad: leave out, and count in meta.json, what cannot be read.
    Raises:
        DataError: if the file or a molecule in it cannot be read, or `out` was made otherwise.
    """
    if molecules_per_shard < 1 or (limit is not None and limit < 1):
        raise SpecError(f"{limit} molecules, {molecules_per_shard} in a shard: give 1 or more")
    out, source = Path(out), Path(source)
    with locked(out):
        settings: dict[str, Any] = {"kind": kind.value, "source": source.name, "limit": limit, "skip_bad": skip_bad}
        settings |= {"source_bytes": source.stat().st_size if source.is_file() else None}
        settings |= {"molecules_per_shard": molecules_per_shard}
        meta = prepare_directory(out, "import-conformers", settings, left_out={})
        there = sum(shard.end - shard.first for shard in map(open_shard, shard_paths(out)))
        if not meta["complete"] or there != meta["num_molecules"]:
            _write_missing(kind, source, out, molecules_per_shard, limit, skip_bad, progress)
            complete_directory(out, meta)
    return Conformations.open(out)


def _write_missing(
    kind: PublishedSet, source: Path, out: Path, per_shard: int, limit: int | None, skip_bad: bool, progress: bool
) -> None:
    """Write every shard that is not there, in one pass through the records of the file."""
    there = {int(shard.content["records"][0]): shard for shard in map(open_shard, shard_paths(out))}
    records = records_of(kind, source)
    passed = first = 0  # records read or passed over, and molecules among them
    with ProgressBar(None, progress) as bar:
        while limit is None or first < limit:
            begin, room = passed, per_shard if limit is None else min(per_shard, limit - first)
            if (shard := there.get(begin)) is not None:
                passed, first = int(shard.content["records"][1]), shard.end
                if sum(1 for _ in islice(records, passed - begin)) < passed - begin:
                    raise DataError("the source is shorter than what was read of it before: give the same file")
            else:
                molecules: list[Conformers] = []
                skipped: list[str] = []
                for record in records:
                    passed += 1
                    try:
                        molecules.append(conformers_of(kind, record))
                    except DataError as error:
                        if not skip_bad:
                            raise
                        skipped.append(str(error))
                    bar.update(first + len(molecules), title=f"{first + len(molecules)} molecules")
                    if len(molecules) == room or passed in there:
                        break
                if passed == begin:
                    return
                write_shard(out, first, molecules, notes={"records": [begin, passed], "skipped": skipped})
                first += len(molecules)
            bar.update(first, title=f"{first} molecules")
