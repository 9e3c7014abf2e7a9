"""Files as others write them, damaged at random: the right features, an error in words, or a warning. Nothing silent.

The truth is the featurizer on arrays: the positions that were written, with the box that belongs to each frame.
Positions lie on a grid of 0.001 nm, which every format holds; a wrapped atom of a triclinic box is rounded to it, which
changes features by less than a hundredth, and a lost box by a tenth and more.
"""

from __future__ import annotations

import itertools
import re
import struct
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from two_residues import peptide

from openmm_gnn.base.errors import OpenMMGNNError
from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.features.trajectory_frames import check_atoms, frames_of
from openmm_gnn.networks.encoders.encoder import Encoder

CELLS = {
    "none": None,
    "bricks": np.diag([2.4, 2.1, 2.6]),
    "hexagonal": np.array([[2.4, 0, 0], [1.2, 1.2 * 3**0.5, 0], [0, 0, 2.6]]),
    "placeholder": np.eye(3) * 0.1,
    "zeros": np.zeros((3, 3)),
}
PER_FRAME = ("xtc", "trr", "dcd", "nc")
"""Formats in which every frame has a box of its own, or none."""
FORMATS = (*PER_FRAME, "charmm", "pdb", "pdb.gz", "cif", "gro", "xyz", "xyz.gz", "lammpstrj", "mdcrd")
NOT_WRITTEN = {("lammpstrj", "none"), ("lammpstrj", "zeros"), ("mdcrd", "zeros"), ("mdcrd", "hexagonal")}
"""Formats and boxes that mdtraj does not write together."""
SYMMETRIC = np.array([[2.4, 0.9, 0.6], [0.9, 2.5, -0.3], [0.6, -0.3, 2.6]])
"""Box vectors as CHARMM orients them: the matrix is its own transpose."""
SWEEP = settings(deadline=None, database=None, derandomize=True)


@pytest.fixture(scope="module")
def featurizer() -> Featurizer:
    torch.manual_seed(2)
    spec = EncoderSpec(Architecture.TORCHMD_ET, num_layers=1, cutoff=5.0, width=8, num_radial=8, num_heads=2)
    return Featurizer(Encoder(spec).requires_grad_(False), peptide()[0])


@dataclass(frozen=True)
class Written:
    """A trajectory, what is in it, and how it is damaged."""

    suffix: str
    frames: int
    cell: str
    lacking: int
    """Which frame has no box; -1: none."""
    cut: int
    """Bytes that are missing at the end."""
    seed: int

    def boxes(self) -> list[np.ndarray | None]:
        """The box that belongs to each frame."""
        box = SYMMETRIC if self.suffix == "charmm" else CELLS[self.cell]
        lost = self.suffix.startswith("xyz") or self.cell in ("placeholder", "zeros")
        lacks = self.lacking if self.suffix in PER_FRAME else -1
        return [None if (lost and self.suffix != "charmm") or k == lacks else box for k in range(self.frames)]

    def positions(self) -> np.ndarray:
        """(frames, 9, 3) nm; where there is a box, each atom is in it."""
        noise = [np.random.default_rng((self.seed, k)) for k in range(self.frames)]
        frames = np.stack([peptide()[1] + 0.01 * rng.normal(size=(9, 3)) + rng.uniform(0, 2, 3) for rng in noise])
        for frame, box in zip(frames, self.boxes(), strict=True):
            if box is not None:
                frame -= np.floor(frame @ np.linalg.inv(box)) @ box
        return frames.round(3)

    def write(self, folder: Path) -> Path:
        path = folder / f"run.{'dcd' if self.suffix == 'charmm' else self.suffix}"
        trajectory = mdtraj.Trajectory(self.positions(), peptide()[0], time=np.arange(self.frames))
        if self.suffix == "charmm":
            trajectory.unitcell_vectors = np.repeat(np.eye(3)[None] * 2, self.frames, 0)
        elif CELLS[self.cell] is not None:
            box = CELLS[self.cell]
            with np.errstate(invalid="ignore"):
                trajectory.unitcell_vectors = np.repeat(box[None], self.frames, 0)
            if self.cell == "zeros":
                trajectory.unitcell_lengths, trajectory.unitcell_angles = np.zeros((2, self.frames, 3))
            elif 0 <= self.lacking < self.frames and self.suffix in PER_FRAME:
                trajectory.unitcell_lengths[self.lacking] = trajectory.unitcell_angles[self.lacking] = 0
        trajectory.save(str(path))
        content = bytearray(path.read_bytes())
        if self.suffix == "charmm":
            content[84:88] = struct.pack("<i", 36)
            numbers = 10 * SYMMETRIC[[0, 1, 1, 2, 2, 2], [0, 0, 1, 0, 1, 2]]
            size = 56 + 3 * (8 + 4 * 9)
            for start in range(len(content) - self.frames * size, len(content), size):
                content[start + 4 : start + 52] = struct.pack("<6d", *numbers)
        if self.suffix == "gro" and self.cell == "zeros":
            content = bytearray(re.sub(rb"\n[ 0.]*nan[^\n]*", b"\n" + b"   0.00000" * 3, content))
        path.write_bytes(content[: len(content) - self.cut])
        return path


def read(path: Path, featurizer: Featurizer, chunk: int) -> tuple[np.ndarray, list[str]]:
    """Features of the frames of a file, and the warnings."""
    parts = [np.empty((0, featurizer.num_tokens, 4, featurizer.width))]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_atoms(path, featurizer.topology)
        for frames in frames_of(path, featurizer.topology, featurizer.read_atoms, chunk=chunk):
            parts.append(featurizer.features(frames.positions, frames.box_vectors, of_read_atoms=True))
    texts = [str(one.message) for one in caught if not issubclass(one.category, ResourceWarning | DeprecationWarning)]
    return np.concatenate(parts), [text for text in texts if "netCDF4" not in text]


def differs(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@settings(SWEEP, max_examples=300)
@given(
    kind=st.sampled_from(sorted(set(itertools.product(FORMATS, CELLS)) - NOT_WRITTEN)),
    written=st.builds(
        Written,
        suffix=st.just(""),
        frames=st.integers(1, 4),
        cell=st.just(""),
        lacking=st.integers(-1, 3),
        cut=st.one_of(st.just(0), st.integers(1, 40), st.integers(1, 900)),
        seed=st.integers(0, 2**16),
    ),
    chunk=st.sampled_from([1, 2, 7]),
)
def test_a_trajectory_gives_the_features_of_its_whole_frames_or_says_why_not(
    featurizer: Featurizer,
    tmp_path_factory: pytest.TempPathFactory,
    kind: tuple[str, str],
    written: Written,
    chunk: int,
) -> None:
    written = replace(written, suffix=kind[0], cell=kind[1])
    path = written.write(tmp_path_factory.mktemp("any"))
    try:
        found, said = read(path, featurizer, chunk)
    except OpenMMGNNError as error:
        assert written.cut and str(path) in str(error)
        return
    assert len(found) <= written.frames
    if len(found) < written.frames:
        fewer = replace(written, frames=len(found), cut=0).write(tmp_path_factory.mktemp("fewer")).read_bytes()
        told = any("cut short" in text for text in said)
        assert written.cut and (told or fewer.startswith(path.read_bytes())), said  # cut between two frames
    boxes, positions = written.boxes(), written.positions()
    for k, features in enumerate(found):
        expected = featurizer.features(positions[k], boxes[k])
        assert differs(features, expected) < 0.01, (k, said)
    holds_box = len(found) > (0 <= written.lacking < len(found) and written.suffix in PER_FRAME)
    if written.cell == "placeholder" and holds_box and not written.suffix.startswith(("xyz", "charmm")):
        words = ("cannot be one", "Unlikely unit cell", "stands for none")  # ours, mdtraj's, and of structures
        assert any(word in text for text in said for word in words), said
    if chunk == 1:
        np.testing.assert_allclose(found, read(path, featurizer, 100)[0], atol=1e-5)
