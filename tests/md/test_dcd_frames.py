"""Our DCD files as mdtraj and OpenMM read and write them."""

from __future__ import annotations

import struct
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from openmm import app, unit

from openmm_gnn.base.errors import DataError
from openmm_gnn.md.dcd_frames import DCDWriter, dcd_layout, read_dcd, truncate_dcd

BOX = np.array([[2.0, 0.0, 0.0], [0.6, 1.9, 0.0], [-0.5, 0.4, 1.8]])


def frames_of(num_frames: int, num_atoms: int) -> np.ndarray:
    return np.random.default_rng(num_atoms).normal(scale=5, size=(num_frames, num_atoms, 3))


def write_dcd(path: Path, frames: np.ndarray, box: np.ndarray | None = BOX) -> None:
    writer = DCDWriter(path, frames.shape[1], box is not None, time_step_ps=0.002, interval=50)
    for frame in frames:
        writer.write(frame, box)
    writer.close()


@pytest.mark.parametrize("num_atoms", [1, 2, 33])
@pytest.mark.parametrize("box", [BOX, None], ids=["triclinic", "open"])
def test_mdtraj_reads_what_we_write(tmp_path: Path, num_atoms: int, box: np.ndarray | None) -> None:
    frames = frames_of(4, num_atoms)
    write_dcd(tmp_path / "t.dcd", frames, box)
    with mdtraj.open(str(tmp_path / "t.dcd")) as file:
        angstrom, lengths, angles = file.read()
    assert angstrom / 10 == pytest.approx(frames, abs=2e-6)
    ours, our_box = read_dcd(tmp_path / "t.dcd")
    assert ours == pytest.approx(frames, abs=2e-6)
    if box is None:
        assert our_box is None
    else:
        assert our_box == pytest.approx(np.repeat(box[None], 4, axis=0), abs=1e-12)
        assert lengths[0] / 10 == pytest.approx(np.linalg.norm(box, axis=1), rel=1e-6)
        alpha, beta, gamma = np.cos(np.radians(angles[0]))
        a, b, c = box / np.linalg.norm(box, axis=1, keepdims=True)
        assert (alpha, beta, gamma) == pytest.approx((b @ c, a @ c, a @ b), abs=1e-6)


def test_file_is_the_one_that_openmm_writes(tmp_path: Path) -> None:
    """Byte for byte but for titles, the first step, and the last digit of sines and cosines."""
    frames = frames_of(3, 7)
    write_dcd(tmp_path / "ours.dcd", frames)
    topology = app.Topology()
    topology.setPeriodicBoxVectors(BOX * unit.nanometer)
    chain = topology.addChain()
    for _ in range(7):
        topology.addAtom("Ar", app.element.argon, topology.addResidue("AR", chain))
    with open(tmp_path / "theirs.dcd", "w+b") as file:
        openmm_file = app.DCDFile(file, topology, 0.002, firstStep=50, interval=50)
        for frame in frames:
            openmm_file.writeModel(frame * unit.nanometer, periodicBoxVectors=BOX * unit.nanometer)
    ours, theirs = (tmp_path / "ours.dcd").read_bytes(), (tmp_path / "theirs.dcd").read_bytes()
    assert len(ours) == len(theirs)
    assert ours[:92] == theirs[:92]
    for mine, other in zip(read_dcd(tmp_path / "ours.dcd"), read_dcd(tmp_path / "theirs.dcd"), strict=True):
        assert mine == pytest.approx(other, abs=1e-6)


def test_truncation_keeps_whole_frames_and_corrects_the_count(tmp_path: Path) -> None:
    path, frames = tmp_path / "t.dcd", frames_of(6, 5)
    write_dcd(path, frames)
    with open(path, "ab") as file:
        file.write(b"half of a frame")
    truncate_dcd(path, 4)
    assert struct.unpack_from("<i", path.read_bytes(), 8) == (4,)
    assert path.stat().st_size == dcd_layout(path).header_bytes + 4 * dcd_layout(path).frame_bytes
    write_dcd(path, frames[4:])
    assert mdtraj.open(str(path)).read()[0] / 10 == pytest.approx(frames, abs=2e-6)


def test_half_a_frame_at_the_end_is_not_read(tmp_path: Path) -> None:
    path, frames = tmp_path / "t.dcd", frames_of(3, 5)
    write_dcd(path, frames)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    assert len(read_dcd(path)[0]) == 2


def test_damage_is_an_error_that_says_so(tmp_path: Path) -> None:
    path, frames = tmp_path / "t.dcd", frames_of(3, 5)
    write_dcd(path, frames)
    with pytest.raises(DataError, match="holds 3 whole frames, the checkpoint was written after 4"):
        truncate_dcd(path, 4)
    with pytest.raises(DataError, match="not its trajectory"):
        DCDWriter(path, 6, True, 0.002, 50)
    damaged = bytearray(path.read_bytes())
    del damaged[dcd_layout(path).header_bytes + 3]
    path.write_bytes(bytes(damaged) + b"\0")
    with pytest.raises(DataError, match="damaged"):
        read_dcd(path)
    path.write_bytes(b"no DCD at all")
    with pytest.raises(DataError, match="header is missing"):
        read_dcd(path)
