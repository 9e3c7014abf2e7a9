"""Labels from elsewhere: ASE writes the files and knows the units."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase import units as ase_units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.neighborlist import primitive_neighbor_list
from command_lines import invoke
from label_directories import write_labels

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.data.labels.external_labels import ExternalFile, read_external
from openmm_gnn.data.labels.imported_labels import ImportedLabels, import_labels
from openmm_gnn.data.labels.settings import ImportSettings
from openmm_gnn.learning.training.data_sets import frame_dataset, open_all, select_seeds
from openmm_gnn.md.systems.fluids import argon, water_topology
from openmm_gnn.networks.weights import load_model

ANGSTROM_IN_NM = ase_units.Angstrom / ase_units.nm
EV_IN_KJ_MOL = ase_units.mol / ase_units.kJ
FORCE = EV_IN_KJ_MOL / ANGSTROM_IN_NM
BOHR_IN_NM = ase_units.Bohr / ase_units.nm
FORCE_ATOMIC = ase_units.Hartree / ase_units.Bohr * FORCE
UNIT_TOLERANCE = 1e-8
"""ASE's constants are of CODATA 2014, ours of 2018 and 2019."""


def frames(count: int = 6, seed: int = 0) -> list[ase.Atoms]:
    """Water of two sizes in boxes that change, every third frame argon and neon in open space."""
    generator = np.random.default_rng(seed)
    made = []
    for index in range(count):
        kinds = "ArNe" if index % 3 == 2 else "OH2" * (2 + index % 2)
        atoms = ase.Atoms(kinds)
        atoms.positions = generator.uniform(0, 5, (len(atoms), 3))
        if index % 3 != 2:
            atoms.cell = np.diag([6.0, 7.0, 8.0]) + generator.normal(scale=0.3, size=(3, 3))
            atoms.pbc = True
        forces = generator.normal(size=(len(atoms), 3))
        atoms.calc = SinglePointCalculator(atoms, energy=float(index), forces=forces)
        made.append(atoms)
    return made


def renamed(atoms: ase.Atoms, name: str) -> ase.Atoms:
    """The same frame with its forces in a column of this name."""
    again = atoms.copy()
    again.arrays[name] = atoms.calc.results["forces"]
    return again


def write(path: Path, images: list[ase.Atoms]) -> Path:
    ase.io.write(path, images, format="extxyz")
    return path


@pytest.mark.parametrize("name", ["forces", "force", "REF_forces", "my_forces"])
def test_extended_xyz_arrives_in_nm_and_kj_mol(tmp_path: Path, name: str) -> None:
    given = frames()
    images = given if name == "forces" else [renamed(atoms, name) for atoms in given]
    read = read_external(write(tmp_path / "a.xyz", images), force_key=name if name == "my_forces" else None).frames
    assert len(read) == 6
    for frame, atoms in zip(read, given, strict=True):
        np.testing.assert_array_equal(frame.atomic_numbers, atoms.numbers)
        np.testing.assert_allclose(frame.positions, atoms.positions * ANGSTROM_IN_NM, atol=1e-8)
        expected = atoms.calc.results["forces"] * FORCE
        np.testing.assert_allclose(frame.forces, expected, rtol=UNIT_TOLERANCE, atol=1e-7 * FORCE)
        if atoms.pbc.all():
            np.testing.assert_allclose(frame.box_vectors, atoms.cell.array * ANGSTROM_IN_NM, rtol=1e-7)
        else:
            assert frame.box_vectors is None
        if name == "forces":
            assert frame.energy == pytest.approx(atoms.get_potential_energy() * EV_IN_KJ_MOL, rel=UNIT_TOLERANCE)
        else:
            assert np.isnan(frame.energy)


def test_forces_on_atoms_that_ase_holds_fixed_are_read_too(tmp_path: Path) -> None:
    atoms = frames(1)[0]
    atoms.set_constraint(FixAtoms([0]))
    path = tmp_path / "a.extxyz"
    ase.io.write(path, atoms, format="extxyz", write_results=False, columns=["symbols", "positions", "move_mask"])
    lines = path.read_text().splitlines()
    forces = atoms.calc.results["forces"]
    lines[1] = lines[1].replace("pos:R:3", "pos:R:3:forces:R:3")
    for row, force in enumerate(forces):
        symbol, x, y, z, *mask = lines[2 + row].split()
        lines[2 + row] = " ".join([symbol, x, y, z, *map(repr, force.tolist()), *mask])
    path.write_text("\n".join(lines) + "\n")
    assert ase.io.read(path).constraints
    (frame,) = read_external(path).frames
    np.testing.assert_allclose(frame.forces, forces * FORCE, rtol=UNIT_TOLERANCE)
    assert np.abs(frame.forces[0]).min() > 0


def slab() -> ase.Atoms:
    atoms = frames(1)[0]
    atoms.pbc = (True, True, False)
    return atoms


def broken(row: int, value: float) -> ase.Atoms:
    atoms = frames(1)[0]
    atoms.calc.results["forces"][row] = value
    return atoms


def two_columns() -> ase.Atoms:
    atoms = renamed(frames(1)[0], "REF_forces")
    atoms.arrays["dft_forces"] = 2 * atoms.arrays["REF_forces"]
    return atoms


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (ase.Atoms("Ar", positions=[[0, 0, 0]]), r"frame 0 of .*a.xyz has no forces under any of .*--force-key"),
        (slab(), r"periodic along 2 of 3 directions: give a slab a cell"),
        (broken(3, np.nan), r"force of atom 3 of frame 0 of .* is not finite"),
        (two_columns(), r"\['REF_forces', 'dft_forces'\]: choose one with --force-key"),
        ("1\nProperties=species:S:1:pos:R:3:forces:R:3\nX 0 0 0 1 1 1\n", "atom 0 of frame 0 .* is of no element"),
        ("hello", "frame 0 of .* cannot be read as extended XYZ"),
        ("3\nProperties=species:S:1:pos:R:3:forces:R:3\nH 0 0 0 1 1 1\n", "Frame has 1 atoms, expected 3"),
        ("", "holds no frame"),
    ],
)
def test_incomplete_frames_are_refused_in_words(tmp_path: Path, image: ase.Atoms | str, message: str) -> None:
    path = tmp_path / "a.xyz"
    if isinstance(image, str):
        path.write_text(image)
    else:
        ase.io.write(path, image, format="extxyz")
    with pytest.raises(DataError, match=message):
        read_external(path)


def test_a_number_that_is_cut_at_the_end_of_a_file_is_no_label(tmp_path: Path) -> None:
    """Without its last two digits and the end of the line, a force is another number, which reads as well."""
    path = write(tmp_path / "a.xyz", frames(2))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match="ends in the middle of a line"):
        read_external(path)


def test_files_of_no_known_kind_and_wrong_names_are_refused_in_words(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", frames(1))
    (tmp_path / "a.traj").write_text("")
    (tmp_path / "a.npz").write_text("no archive")
    for arguments, message in (
        ((tmp_path / "none.xyz",), "there is no file"),
        ((tmp_path / "a.traj",), r"ends in '.traj': give extended XYZ"),
        ((tmp_path / "a.npz",), "cannot be read as .npz"),
        ((tmp_path / "a.npz", "forces"), "is no extended XYZ file"),
        ((path, "f"), r"there is no 'f', the file has .*'forces'"),
        ((path, None, "e"), r"there is no 'e', the file has .*'energy'"),
    ):
        with pytest.raises(DataError, match=message):
            read_external(*arguments)


# ---- the processed RPBE layout ---------------------------------------------------------------------------------------


def rpbe(counts: list[int], one_is_oxygen: bool = True) -> dict[str, list[np.ndarray]]:
    """Frames of `counts` molecules O, H, H in atomic units."""
    generator = np.random.default_rng(3)
    kind = [1, 0, 0] if one_is_oxygen else [0, 1, 1]
    return {
        "pos": [generator.uniform(0, 20, (3 * n, 3)) for n in counts],
        "force": [generator.normal(scale=0.02, size=(3 * n, 3)) for n in counts],
        "box": [generator.uniform(18, 22, 3) for _ in counts],
        "atom_type": [np.array(kind * n) for n in counts],
        "train_idx": [np.array([0, 2])],
        "test_idx": [np.array([1])],
    }


def assert_is_water(read: ExternalFile, content: dict[str, list[np.ndarray]]) -> None:
    assert len(read.frames) == len(content["pos"])
    for index, frame in enumerate(read.frames):
        np.testing.assert_array_equal(frame.atomic_numbers.reshape(-1, 3), [[8, 1, 1]] * (len(frame.positions) // 3))
        np.testing.assert_allclose(frame.positions, content["pos"][index] * BOHR_IN_NM, rtol=UNIT_TOLERANCE)
        np.testing.assert_allclose(frame.forces, content["force"][index] * FORCE_ATOMIC, rtol=UNIT_TOLERANCE)
        box = np.diag(content["box"][index]) * BOHR_IN_NM
        np.testing.assert_allclose(frame.box_vectors, box, rtol=UNIT_TOLERANCE, atol=1e-12)
    assert [part.tolist() for part in read.published_split or ()] == [[0, 2], [1]]


@pytest.mark.parametrize("kinds", ["one is oxygen", "one is hydrogen", "atomic numbers", "one row for all"])
def test_processed_rpbe_arrives_in_nm_and_kj_mol(tmp_path: Path, kinds: str) -> None:
    content = rpbe([5, 5, 5], one_is_oxygen=kinds != "one is hydrogen")
    arrays = {name: np.stack(values) for name, values in content.items()}
    arrays["train_idx"], arrays["test_idx"] = arrays["train_idx"][0], arrays["test_idx"][0]
    if kinds == "atomic numbers":
        arrays["atom_type"] = np.array([[8, 1, 1] * 5] * 3)
    if kinds == "one row for all":
        arrays["atom_type"] = arrays["atom_type"][0]
    np.savez(tmp_path / "rpbe.npz", **arrays)
    assert_is_water(read_external(tmp_path / "rpbe.npz"), content)


def test_pickled_arrays_are_refused_and_the_conversion_that_is_told_works(tmp_path: Path) -> None:
    content = rpbe([4, 6, 5])
    arrays: dict[str, np.ndarray] = {}
    for name, values in content.items():
        arrays[name] = np.empty(len(values), dtype=object)
        arrays[name][:] = values
    arrays["train_idx"], arrays["test_idx"] = content["train_idx"][0], content["test_idx"][0]
    np.savez(tmp_path / "rpbe.npz", **arrays)
    with pytest.raises(DataError, match="pickled Python objects") as refused:
        read_external(tmp_path / "rpbe.npz")
    told = str(refused.value).split('python -c "')[1].split('"\n')[0]
    subprocess.run([sys.executable, "-c", told], cwd=tmp_path, check=True)
    assert_is_water(read_external(tmp_path / "converted.npz"), content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"force": None}, "has no array 'force'"),
        ({"pos": np.zeros((3, 15, 2))}, r"pos of .* has shape \(3, 15, 2\)"),
        ({"box": np.ones((2, 3))}, "does not fit together: 3 frames of 45 atoms"),
        ({"atom_type": np.arange(45)}, r"atom_type of .* has the values \[0, 1, 2"),
        ({"atom_type": np.array([1, 0] * 22 + [1])}, "in the ratio of water"),
    ],
)
def test_other_layouts_are_refused_in_words(tmp_path: Path, change: dict[str, np.ndarray | None], message: str) -> None:
    arrays = {name: np.stack(values) for name, values in rpbe([5, 5, 5]).items()} | change
    np.savez(tmp_path / "rpbe.npz", **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(DataError, match=message):
        read_external(tmp_path / "rpbe.npz")


# ---- the imported directory ------------------------------------------------------------------------------------------


@pytest.fixture
def imported(tmp_path: Path) -> tuple[ImportedLabels, ExternalFile]:
    file = read_external(write(tmp_path / "a.xyz", frames(23)))
    return import_labels([file], tmp_path / "data", ImportSettings(blocks=4, gap=1)), file


def test_blocks_are_consecutive_and_frames_of_two_seeds_are_never_neighbours(
    imported: tuple[ImportedLabels, ExternalFile],
) -> None:
    data, file = imported
    assert data.seeds == [1, 2, 3, 4]
    of_seed = {seed: np.sort(data.frames["frame_of_file"][data.frames["seed"] == seed]) for seed in data.seeds}
    for seed, indices in of_seed.items():
        assert (np.diff(indices) == 1).all()
        if seed > 1:
            assert indices[0] - of_seed[seed - 1][-1] == 2  # the gap
    assert of_seed[1][0] == 0 and of_seed[4][-1] == len(file.frames) - 1 and len(data.frames) == 20


def test_every_imported_frame_comes_back_as_it_was_read(imported: tuple[ImportedLabels, ExternalFile]) -> None:
    data, file = imported
    found = 0
    for topology, block in data.select(data.seeds):
        numbers = [atom.element.atomic_number for atom in topology.atoms()]
        for k in range(len(block)):
            (frame,) = (f for f in file.frames if f.energy == block.energies[k])
            assert numbers == frame.atomic_numbers.tolist()
            np.testing.assert_array_equal(block.positions[k], frame.positions)
            np.testing.assert_array_equal(block.forces[k], frame.forces.astype(np.float32))
            assert block.periodic == (frame.box_vectors is not None)
            if frame.box_vectors is not None:
                np.testing.assert_array_equal(block.box_vectors[k], frame.box_vectors)
            found += 1
    assert found == len(data.frames)


def test_pairs_of_imported_frames_are_those_that_ase_finds(imported: tuple[ImportedLabels, ExternalFile]) -> None:
    """In changing oblique boxes and in open space alike; the cutoff is wider than half of the boxes."""
    model = load_model("gamd-argon")
    data, file = imported
    spec = model.spec.__class__(model.spec.neighbors, (1, 8, 10, 18), width=4, num_layers=1, num_radial=4)
    found = []
    for batch in frame_dataset(spec, select_seeds(open_all([data.path]), data.seeds)):
        found.append((len(batch.species), batch.pairs.size(1), round(float(batch.distances.double().sum()), 3)))
    expected = []
    for index in data.frames["frame_of_file"]:
        frame = file.frames[index]
        periodic = frame.box_vectors is not None
        cell = frame.box_vectors if periodic else np.eye(3) * 100
        distances = primitive_neighbor_list("d", (periodic,) * 3, cell, frame.positions, spec.neighbors.cutoff)
        expected.append((len(frame.positions), len(distances) // 2, round(float(distances.sum() / 2), 3)))
    assert sorted(found) == sorted(expected)


def test_several_files_are_a_trajectory_each(tmp_path: Path) -> None:
    files = [read_external(write(tmp_path / f"{k}.xyz", frames(3, seed=k))) for k in range(3)]
    data = import_labels(files, tmp_path / "data")
    assert data.seeds == [1, 2, 3]
    np.testing.assert_array_equal(data.frames["file"], data.frames["seed"] - 1)
    assert [entry["file"] for entry in data.meta["seeds"]] == ["0.xyz", "1.xyz", "2.xyz"]


def test_a_published_split_that_overlaps_and_imports_of_another_version_are_refused(tmp_path: Path) -> None:
    arrays = {name: np.stack(values) for name, values in rpbe([5, 5, 5]).items()}
    np.savez(tmp_path / "rpbe.npz", **arrays | {"train_idx": np.array([0, 1]), "test_idx": np.array([1])})
    file = read_external(tmp_path / "rpbe.npz")
    with pytest.raises(DataError, match="overlap, .* outside its 3 frames: cut it into --blocks"):
        import_labels([file], tmp_path / "split", ImportSettings(published_split=True))
    data = import_labels([file], tmp_path / "data", ImportSettings(blocks=1))
    meta = data.path / "meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"version": 99}))
    with pytest.raises(DataError, match="version 99: expected .*, as `openmm-gnn import-labels` of this"):
        ImportedLabels.open(data.path)


def test_the_published_split_is_seed_1_and_2(tmp_path: Path) -> None:
    arrays = {name: np.stack(values) for name, values in rpbe([5, 5, 5]).items()}
    np.savez(tmp_path / "rpbe.npz", **arrays | {"train_idx": np.array([0, 2]), "test_idx": np.array([1])})
    data = import_labels(
        [read_external(tmp_path / "rpbe.npz")], tmp_path / "data", ImportSettings(published_split=True)
    )
    assert dict(zip(data.frames["frame_of_file"].tolist(), data.frames["seed"].tolist(), strict=True)) == {
        0: 1,
        2: 1,
        1: 2,
    }


def test_a_topology_gives_bonds_and_must_fit(tmp_path: Path) -> None:
    water = [atoms for atoms in frames(4) if len(atoms) == 6]
    file = read_external(write(tmp_path / "a.xyz", water))
    topology = water_topology(2, 1.0)
    data = import_labels([file], tmp_path / "data", ImportSettings(blocks=1), topology=topology)
    ((loaded, _),) = data.select([1])
    assert {(a.index, b.index) for a, b in loaded.bonds()} == {(0, 1), (0, 2), (3, 4), (3, 5)}
    with pytest.raises(DataError, match="frame 0 of .* has 4 of element 1, 2 of element 8, not the 9 atoms"):
        import_labels([file], tmp_path / "other", ImportSettings(blocks=1), topology=water_topology(3, 1.0))


def test_what_cannot_be_imported_is_refused_in_words(tmp_path: Path) -> None:
    file = read_external(write(tmp_path / "a.xyz", frames(3)))
    with pytest.raises(SpecError, match="3 frames, too few for 4 blocks"):
        import_labels([file], tmp_path / "data", ImportSettings(blocks=4))
    with pytest.raises(SpecError, match="blocks"):
        import_labels([file], tmp_path / "data", ImportSettings(blocks=0))
    with pytest.raises(DataError, match="names no frames for training and test"):
        import_labels([file], tmp_path / "data", ImportSettings(published_split=True))
    data = import_labels([file], tmp_path / "data", ImportSettings(blocks=1))
    with pytest.raises(DataError, match="not empty: give a new directory"):
        import_labels([file], tmp_path / "data", ImportSettings(blocks=1))
    with pytest.raises(DataError, match=r"no seed 2: it has the seeds \[1\]"):
        data.select([2])
    np.save(tmp_path / "data" / "atoms.npy", np.asarray(data.atoms[:-1]))
    with pytest.raises(DataError, match="do not fit together"):
        ImportedLabels.open(tmp_path / "data")
    meta = json.loads((tmp_path / "data" / "meta.json").read_text()) | {"version": 9}
    (tmp_path / "data" / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match="version 9: expected"):
        ImportedLabels.open(tmp_path / "data")
    with pytest.raises(DataError, match="is a file: make a directory of it"):
        open_all([tmp_path / "a.xyz"])


def test_the_commands_import_train_and_evaluate_frames_of_any_size_beside_labelled_runs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xyz", frames(12))
    out, run = str(tmp_path / "data"), str(tmp_path / "run")
    result = invoke(["import-labels", str(path), "--out", out, "--blocks", "3"])
    assert result.exit_code == 0, result.output
    assert "12 frames of 3 compositions" in result.output and "3: 4 frames of a.xyz" in result.output
    small = "--width 8 --layers 1 --radial 8 --cutoff 0.5 --steps 4 --batch-size 3 --validate-every 2 --quiet"
    options = ["--out", run, "--train-seeds", "1", "--validation-seeds", "2", *small.split()]
    labelled = write_labels(tmp_path / "argon", argon(120), [1, 2])
    result = invoke(["train", out, str(labelled), *options])
    assert result.exit_code == 0, result.output
    bundle = tmp_path / "run" / "model.safetensors"
    assert load_model(bundle).spec.elements == (1, 8, 10, 18)
    assert load_model(bundle).spec.metadata["data"][0]["files"] == ["a.xyz"]
    result = invoke(["evaluate", str(bundle), out, "--seeds", "3", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["num_frames"] == 4
    forces = np.concatenate([atoms.calc.results["forces"] for atoms in frames(12)[8:]])
    expected = 1000 * np.linalg.norm(forces, axis=1).mean()
    assert json.loads(result.stdout)["mean_force"] == pytest.approx(expected, rel=1e-5)
