"""Frames of every format that mdtraj writes without further packages, against what was written."""

from __future__ import annotations

from pathlib import Path

import mdtraj
import numpy as np
import openmm.app
import pytest

from openmm_gnn.base.errors import DataError
from openmm_gnn.features.topologies import read_topology, topology_hash
from openmm_gnn.features.trajectory_frames import check_atoms, count_frames, frames_of

FORMATS = (
    *("xtc", "trr", "dcd", "nc", "pdb", "pdb.gz", "xyz", "lammpstrj", "mdcrd", "gro", "dtr", "cif"),
    *("ncrst", "rst7"),
)
TIMED = ("xtc", "trr", "nc", "gro", "dtr", "ncrst")


@pytest.fixture(scope="module")
def trajectory(villin: openmm.app.PDBFile, villin_positions: np.ndarray) -> mdtraj.Trajectory:
    """11 frames of five residues in a box."""
    topology = mdtraj.Topology.from_openmm(villin.topology)
    atoms = topology.select("protein and resid 3 to 7")
    steps = 0.01 * np.random.default_rng(0).normal(size=(11, 1, 3)).cumsum(0)
    made = mdtraj.Trajectory(villin_positions[atoms] + steps, topology.subset(atoms), time=10.0 + 2.0 * np.arange(11))
    made.unitcell_vectors = np.repeat(np.diag([4.9, 4.6, 3.9])[None], 11, 0)
    return made


def saved(trajectory: mdtraj.Trajectory, path: Path) -> mdtraj.Trajectory:
    """Write a file, and what is in it: restart files hold one frame."""
    written = trajectory[0] if path.suffix in (".ncrst", ".rst7") else trajectory
    written.save(str(path))
    return written


@pytest.mark.filterwarnings("ignore:Warning. The 'netCDF4' Python package:UserWarning")
@pytest.mark.parametrize("suffix", FORMATS)
def test_frames_are_those_of_the_file(trajectory: mdtraj.Trajectory, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"some.{suffix}"
    written = saved(trajectory, path)
    atoms = np.array([1, 5, 7])
    check_atoms(path, trajectory.topology)
    for first, stride, chunk in ((0, 3, 4), (4, 2, 3), (10, 1, 100), (11, 1, 5)):
        parts = list(frames_of(path, trajectory.topology, atoms, first, stride, chunk))
        expected = [index for index in range(len(written)) if index >= first and index % stride == 0]
        assert [int(index) for part in parts for index in part.indices] == expected
        for part in parts:
            np.testing.assert_allclose(part.positions, written.xyz[part.indices][:, atoms], atol=2e-3)
            assert (part.times_ps is not None) == (suffix in TIMED)
            if part.times_ps is not None:
                np.testing.assert_allclose(part.times_ps, written.time[part.indices])
            assert (part.box_vectors is None) == (suffix == "xyz")
            if part.box_vectors is not None:
                np.testing.assert_allclose(part.box_vectors[0], np.diag([4.9, 4.6, 3.9]), atol=2e-3)
    assert count_frames(path) in (None, len(written))


def test_a_box_of_zeros_is_no_box(trajectory: mdtraj.Trajectory, tmp_path: Path) -> None:
    open_system = mdtraj.Trajectory(trajectory.xyz, trajectory.topology)
    open_system.save_xtc(str(tmp_path / "open.xtc"))
    (frames,) = frames_of(tmp_path / "open.xtc", trajectory.topology, np.arange(4))
    assert frames.box_vectors is None


@pytest.mark.parametrize("suffix", ["xtc", "dcd", "pdb", "xyz"])
def test_a_file_of_another_system_is_refused(trajectory: mdtraj.Trajectory, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"other.{suffix}"
    trajectory.atom_slice(np.arange(30)).save(str(path))
    with pytest.raises(DataError, match=rf"other.{suffix} does not fit the topology of {trajectory.n_atoms} atoms"):
        check_atoms(path, trajectory.topology)


@pytest.mark.filterwarnings("ignore:Warning. The 'netCDF4' Python package:UserWarning")
@pytest.mark.parametrize("suffix", ["xtc", "dcd", "nc", "sdf", "pdb"])
def test_what_is_no_trajectory_is_refused_by_name(trajectory: mdtraj.Trajectory, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"nonsense.{suffix}"
    with pytest.raises(DataError, match="there is no file"):
        check_atoms(path, trajectory.topology)
    path.write_bytes(b"this is no trajectory at all\n" * 40)
    with pytest.raises(DataError, match=f"nonsense.{suffix}"):
        check_atoms(path, trajectory.topology)


def test_a_topology_is_read_as_a_simulation_reads_it(
    trajectory: mdtraj.Trajectory, villin: openmm.app.PDBFile, tmp_path: Path
) -> None:
    path = Path(openmm.app.__file__).parent / "data" / "test.pdb"
    assert topology_hash(read_topology(path)) == topology_hash(mdtraj.Topology.from_openmm(villin.topology))
    trajectory[0].save_gro(str(tmp_path / "some.gro"))
    assert read_topology(tmp_path / "some.gro").n_atoms == trajectory.n_atoms
    for name, message in (("none.pdb", "there is no file"), ("some.gro.txt", "cannot be read as a topology")):
        (tmp_path / "some.gro.txt").write_text("nothing")
        with pytest.raises(DataError, match=message):
            read_topology(tmp_path / name)


def test_some_atoms_of_a_tinker_archive(tmp_path: Path) -> None:
    """Which mdtraj reads as a whole only."""
    places = np.random.default_rng(3).normal(0, 3.0, (2, 4, 3)).round(4)
    path, rows = tmp_path / "x.arc", ["C 1 2", "C 1 1 3", "O 2 2 4", "H 3 3"]
    text = [
        "4  methanal\n"
        + "".join(
            f"{k + 1} {name[0]} {x:.4f} {y:.4f} {z:.4f} {name[2:]}\n"
            for k, (name, (x, y, z)) in enumerate(zip(rows, frame, strict=True))
        )
        for frame in places
    ]
    path.write_text("".join(text))
    topology = mdtraj.Topology()
    residue = topology.add_residue("MOL", topology.add_chain())
    for row in rows:
        topology.add_atom(row[0], mdtraj.element.get_by_symbol(row[0]), residue)
    for atoms in (np.arange(4), np.array([0, 2])):
        (frames,) = frames_of(path, topology, atoms)
        np.testing.assert_allclose(frames.positions, places[:, atoms] / 10, atol=1e-6)
