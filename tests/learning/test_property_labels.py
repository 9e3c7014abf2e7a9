"""Labels from files: what is read, and what is wrong with them in words."""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.specs.encoder import Target
from openmm_gnn.learning.properties.property_labels import read_labels
from openmm_gnn.learning.properties.property_sets import read_structures
from openmm_gnn.learning.settings import LearnedProperty


def water(**info: object) -> ase.Atoms:
    atoms = ase.Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    atoms.info.update(info)
    atoms.arrays["shift"] = np.array([-0.8, 0.4, 0.4])
    return atoms


def written(path: Path, *frames: ase.Atoms) -> Path:
    ase.io.write(path, list(frames), format="extxyz")
    return path


def test_each_kind_of_label_is_read_as_it_stands_and_positions_in_nm(tmp_path: Path) -> None:
    path = written(tmp_path / "water.xyz", water(gap=7.5, dipole_moment=np.array([0.1, 0.2, 0.3])))
    (frame,) = read_labels(path, LearnedProperty("gap"))
    assert frame.label == 7.5 and frame.group == "H2O" and frame.box_vectors is None
    np.testing.assert_allclose(frame.positions[1], [0.096, 0, 0])
    (frame,) = read_labels(path, LearnedProperty("dipole_moment", Target.VECTOR))
    np.testing.assert_array_equal(frame.label, [0.1, 0.2, 0.3])
    (frame,) = read_labels(path, LearnedProperty("shift", Target.ATOM))
    np.testing.assert_array_equal(frame.label, [-0.8, 0.4, 0.4])


def test_results_of_a_calculator_are_labels_too(tmp_path: Path) -> None:
    (tmp_path / "one.xyz").write_text('1\nProperties=species:S:1:pos:R:3 energy=-3.25 pbc="F F F"\nO 0 0 0\n')
    (frame,) = read_labels(tmp_path / "one.xyz", LearnedProperty("energy"))
    assert frame.label == -3.25


def test_a_periodic_frame_keeps_its_box_in_nm(tmp_path: Path) -> None:
    atoms = water(gap=1.0)
    atoms.set_cell([10.0, 12.0, 14.0])
    atoms.set_pbc(True)
    (frame,) = read_labels(written(tmp_path / "box.xyz", atoms), LearnedProperty("gap"))
    assert frame.box_vectors is not None
    np.testing.assert_allclose(np.diag(frame.box_vectors), [1.0, 1.2, 1.4])


@pytest.mark.parametrize(
    ("frames", "name", "target", "message"),
    [
        (
            [water(gap=1.0), water(gp=1.0)],
            "gap",
            Target.MOLECULE,
            r"frame 1 of .* has no property 'gap': it has .*'gp'",
        ),
        ([water(gap=float("nan"))], "gap", Target.MOLECULE, "gap of frame 0 .* is not finite"),
        ([water(gap=1.0)], "gap", Target.ATOM, "expected .* one number of each atom: choose another target"),
        ([water()], "shift", Target.MOLECULE, "has shape .3,., expected .., one number"),
        ([water(gap="wide")], "gap", Target.MOLECULE, "is 'wide', no number"),
    ],
)
def test_a_bad_label_is_named_with_its_frame(
    frames: list[ase.Atoms], name: str, target: Target, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read_labels(written(tmp_path / "bad.xyz", *frames), LearnedProperty(name, target))


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        read_labels(tmp_path / "none.xyz", LearnedProperty("gap"))
    (tmp_path / "cut.xyz").write_text("3\nProperties=species:S:1:pos:R:3 gap=1\nO 0 0 0\n")
    with pytest.raises(DataError, match=r"frame 0 of .* cannot be read"):
        read_labels(tmp_path / "cut.xyz", LearnedProperty("gap"))
    (tmp_path / "empty.xyz").write_text("")
    with pytest.raises(DataError, match="holds no frame|cannot be read"):
        read_labels(tmp_path / "empty.xyz", LearnedProperty("gap"))
    (tmp_path / "nan.xyz").write_text("1\nProperties=species:S:1:pos:R:3 gap=1\nO 0 nan 0\n")
    with pytest.raises(DataError, match=r"position of atom 0 of frame 0 .* is not finite"):
        read_labels(tmp_path / "nan.xyz", LearnedProperty("gap"))
    (tmp_path / "gap.csv").write_text("molecule,gap\nA,1\n")
    with pytest.raises(DataError, match="--conformations"):
        read_labels(tmp_path / "gap.csv", LearnedProperty("gap"))
    with pytest.raises(DataError, match="neither a directory of conformations nor a file"):
        read_structures(tmp_path / "gap.csv")
    path = written(tmp_path / "water.xyz", water(gap=1.0))
    with pytest.raises(DataError, match="has no 'who', which distinguishes molecules"):
        read_labels(path, LearnedProperty("gap", group_key="who"))
