"""The store of molecules: what is read is what was written, in any process; damage is named, skipped when asked."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import resource
import sys
from pathlib import Path

import numpy as np
import pytest

from openmm_gnn.base.errors import DataError
from openmm_gnn.data.conformers.conformations import Conformations, Molecules, join_conformations
from openmm_gnn.data.conformers.conformers import complete_directory, prepare_directory
from openmm_gnn.data.conformers.shards import Conformers, write_shard


def random_molecule(number: int, frames: int | None = None, sequence: str | None = None) -> Conformers:
    rng = np.random.default_rng(number)
    atoms = int(rng.integers(1, 9))
    frames = frames or int(rng.integers(1, 4))
    return Conformers(
        name=f"molecule {number}",
        sequence=sequence or f"S{number}",
        atomic_numbers=rng.choice([1, 6, 7, 8, 35], atoms),
        positions=rng.normal(size=(frames, atoms, 3)),
        temperatures=None if number % 2 else np.full(frames, 300.0),
        residue_index=np.arange(atoms) // 3,
    )


def write_set(out: Path, molecules: list[Conformers], per_shard: int, **settings: object) -> Conformations:
    out.mkdir(exist_ok=True)
    meta = prepare_directory(out, "conformers", dict(settings))
    for first in range(0, len(molecules), per_shard):
        write_shard(out, first, molecules[first : first + per_shard])
    complete_directory(out, meta)
    return Conformations.open(out)


@pytest.fixture
def data(tmp_path: Path) -> Conformations:
    return write_set(tmp_path / "data", [random_molecule(k) for k in range(20)], per_shard=7)


def test_what_is_read_is_what_was_written(data: Conformations) -> None:
    assert len(data.molecules) == 20 and [len(shard) for shard in data.molecules.shards] == [7, 7, 6]
    for k in np.random.default_rng(0).permutation(20):
        written, read = random_molecule(int(k)), data.molecules[int(k)]
        assert (read.name, read.sequence) == (written.name, written.sequence)
        assert read.atomic_numbers.dtype == np.int64 and read.positions.dtype == np.float32
        np.testing.assert_array_equal(read.atomic_numbers, written.atomic_numbers)
        np.testing.assert_array_equal(read.positions, written.positions.astype(np.float32))
        np.testing.assert_array_equal(read.residue_index, written.residue_index)
        assert read.num_frames == len(written.positions) == len(read.temperatures)
        assert np.isnan(read.temperatures).all() == (k % 2 == 1)
    assert data.num_frames == sum(len(random_molecule(k).positions) for k in range(20))
    assert data.molecules[-1].name == "molecule 19"
    with pytest.raises(ValueError, match="read-only"):
        data.molecules[0].positions[0, 0, 0] = 1.0
    with pytest.raises(IndexError):
        data.molecules[20]
    assert data.verify() is data


def test_the_checksum_does_not_depend_on_the_shards(data: Conformations, tmp_path: Path) -> None:
    molecules = [random_molecule(k) for k in range(20)]
    assert write_set(tmp_path / "other", molecules, per_shard=3).sha256 == data.sha256
    molecules[4].positions[0, 0, 0] += 1e-3
    assert write_set(tmp_path / "moved", molecules, per_shard=3).sha256 != data.sha256


def test_slices_and_columns_agree_with_the_molecules(data: Conformations) -> None:
    part = data.molecules[3:17:4]
    assert isinstance(part, Molecules) and [m.name for m in part] == [f"molecule {k}" for k in (3, 7, 11, 15)]
    assert part.column("num_atoms").tolist() == [len(m.atomic_numbers) for m in part]
    assert part.column("num_heavy").tolist() == [int((m.atomic_numbers != 1).sum()) for m in part]
    assert part.elements() == tuple(sorted({int(number) for m in part for number in m.atomic_numbers}))
    assert data.molecules.elements() == (1, 6, 7, 8, 35)
    assert data.molecules.elements(hydrogens=False) == (6, 7, 8, 35)


def names_and_sums(molecules: Molecules) -> list[tuple[str, float]]:
    return [(m.name, float(m.positions.sum())) for m in molecules]


@pytest.mark.slow
def test_other_processes_read_the_same(data: Conformations) -> None:
    expected = names_and_sums(data.molecules)
    sent = pickle.dumps(data.molecules)
    assert len(sent) < 10_000  # paths, not what they hold
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(names_and_sums, [data.molecules, data.molecules[:5]]) == [expected, expected[:5]]


def test_many_shards_hold_no_file_open(tmp_path: Path) -> None:
    data = write_set(tmp_path / "many", [random_molecule(k) for k in range(30)], per_shard=1)
    before = len(os.listdir("/proc/self/fd"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 8, limits[1]))
    try:
        held = [molecule.positions for molecule in data.molecules]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(held) == 30 and len(os.listdir("/proc/self/fd")) == before


def test_no_sequence_is_in_training_and_validation_both(tmp_path: Path) -> None:
    molecules = [random_molecule(k, sequence=f"S{k % 8}") for k in range(30)]
    training, validation = write_set(tmp_path / "data", molecules, per_shard=4).split(10)
    assert [m.name for m in validation] == ["molecule 9", "molecule 19", "molecule 29"]
    assert {m.sequence for m in training} == {f"S{k}" for k in range(8)} - {"S1", "S3", "S5"}
    with pytest.raises(DataError, match="leave 0 for training|for validation: both need some"):
        write_set(tmp_path / "other", molecules[:5], per_shard=4).split(7)


def test_directories_are_joined(data: Conformations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/make", "other"])
    other = write_set(tmp_path / "other", [random_molecule(k) for k in range(50, 55)], per_shard=2, seed=2)
    joined = join_conformations([data.path, other.path])
    assert names_and_sums(joined.molecules) == names_and_sums(data.molecules) + names_and_sums(other.molecules)
    assert joined.meta["commands"] == [*data.meta["commands"], "make other"]
    assert [part["sha256"] for part in joined.meta["parts"]] == [data.sha256, other.sha256]
    assert joined.meta["num_molecules"] == 25 and joined.sha256 not in (data.sha256, other.sha256)
    assert join_conformations([data.path]).meta == data.meta
    with pytest.raises(DataError, match="give one or more, each once"):
        join_conformations([data.path, data.path])
    with pytest.raises(DataError, match="give one or more"):
        join_conformations([])


def spoil(file: Path, content: bytes | None = None) -> None:
    before = file.read_bytes()
    file.unlink()  # a map of the old file stays whole
    file.write_bytes(before[:-4] + b"oops" if content is None else content)


def test_a_damaged_molecule_is_named_and_skipped_when_asked(data: Conformations) -> None:
    spoil(data.molecules.shards[1].path / "positions.npy")
    opened = Conformations.open(data.path)
    with pytest.raises(DataError, match=r"shards/000000007/positions.npy is damaged: molecule 13 is not what was wri"):
        opened.verify()
    left = opened.verify(skip_bad=True)
    assert [m.name for m in left.molecules] == [f"molecule {k}" for k in range(20) if k != 13]
    assert len(left.skipped) == 1 and "molecule 13" in left.skipped[0]
    assert left.sha256 != data.sha256 and left.verify(skip_bad=True).skipped == left.skipped


def test_positions_that_are_not_finite_are_named(data: Conformations) -> None:
    """Written by somebody else, with the right checksums."""
    import hashlib

    shard = data.molecules.shards[0]
    positions = np.load(shard.path / "positions.npy")
    positions[0, 0] = np.nan
    np.save(shard.path / "positions.npy", positions)
    sums = {**shard.content["sha256"]}
    sums["positions.npy"] = hashlib.sha256((shard.path / "positions.npy").read_bytes()).hexdigest()
    (shard.path / "shard.json").write_text(json.dumps({**shard.content, "sha256": sums}))
    with pytest.raises(DataError, match="molecule 0 has positions that are not finite"):
        Conformations.open(data.path).verify()
    assert len(Conformations.open(data.path).verify(skip_bad=True).molecules) == 19


@pytest.mark.parametrize("name", ["positions.npy", "index.npy", "atomic_numbers.npy", "names.json"])
def test_a_file_that_is_cut_or_gone_is_named(data: Conformations, name: str) -> None:
    file = data.molecules.shards[2].path / name
    spoil(file, file.read_bytes()[:-5])
    opened = Conformations.open(data.path)
    with pytest.raises(DataError, match=rf"{name} cannot be read .*: delete .*000000014 and give the command"):
        _ = [(m.name, m.positions, m.atomic_numbers) for m in opened.molecules]
    with pytest.raises(DataError, match=rf"{name} is missing or damaged"):
        Conformations.open(data.path).verify()
    file.unlink()
    left = Conformations.open(data.path).verify(skip_bad=True)
    assert len(left.molecules) == 14 and len(left.skipped) == 6


def test_an_unreadable_shard_is_named_and_skipped_when_asked(data: Conformations) -> None:
    spoil(data.molecules.shards[0].path / "shard.json", b"{")
    with pytest.raises(DataError, match="000000000/shard.json cannot be read"):
        Conformations.open(data.path)
    left = Conformations.open(data.path, skip_bad=True)
    assert len(left.molecules) == 13 and left.molecules[0].name == "molecule 7" and len(left.skipped) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"atomic_numbers": np.zeros(0, int), "positions": np.zeros((1, 0, 3))},
            "it has 0 atoms and 1 frames",
        ),
        ({"positions": np.zeros((0, 2, 3))}, "X is empty: it has 2 atoms and 0 frames"),
        ({"atomic_numbers": np.array([6, 119])}, "unknown element: atom 1 has the atomic number 119"),
        ({"atomic_numbers": np.array([0, 6])}, "unknown element: atom 0 has the atomic number 0"),
        ({"positions": np.array([[[0, 0, 0], [0, np.nan, 0]]])}, "not finite: nan for y of atom 1 in frame 0"),
        ({"positions": np.zeros((1, 3, 3))}, r"positions of shape \(1, 3, 3\) for 2 atoms"),
        ({"temperatures": np.zeros(3)}, "has 3 temperatures, expected 1"),
    ],
)
def test_molecules_that_make_no_sense_are_not_written(
    tmp_path: Path, changes: dict[str, np.ndarray], message: str
) -> None:
    fields = {"atomic_numbers": np.array([6, 8]), "positions": np.zeros((1, 2, 3)), **changes}
    with pytest.raises(DataError, match=message):
        write_shard(tmp_path, 0, [Conformers("X", "X", **fields)])
    assert not list(tmp_path.glob("shards/*"))


def test_what_is_no_directory_of_conformations_is_said(data: Conformations, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no meta.json"):
        Conformations.open(tmp_path / "nowhere")
    (data.path / "meta.json").write_text(json.dumps({**data.meta, "version": 1}))
    with pytest.raises(DataError, match="version 1: expected 'openmm_gnn conformations', version 2"):
        Conformations.open(data.path)
    (data.path / "meta.json").write_text("{")
    with pytest.raises(DataError, match="meta.json is damaged"):
        Conformations.open(data.path)
