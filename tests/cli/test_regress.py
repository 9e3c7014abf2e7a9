"""regress and predict as a user types them: labels in, a table for molecules never seen out."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import openmm.app
import pytest
from command_lines import invoke
from labelled_peptides import write_labelled_peptides

from openmm_gnn.data.conformers.conformations import Conformations
from openmm_gnn.md.systems.peptides import Peptide, build_peptide
from openmm_gnn.networks.weights import load_property_model

SMALL = "--encoder peptide-et --steps 4 --batch-size 2 --validate-every 2 --hold-out 2 --threads 1 --quiet"
MAKE = "conformers --molecules 4 --longest 2 --frames 2 --frame-time 0.1 --temperatures 300 --processes 1 --quiet"


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled_peptides(tmp_path_factory.mktemp("labels") / "peptides.xyz", ("A", "G"), 1)


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """Heavy atoms of a peptide that is in no label."""
    topology, positions = build_peptide(Peptide("SV"), np.random.default_rng(0))
    with open(tmp_path / "stranger.pdb", "w") as file:
        openmm.app.PDBFile.writeFile(topology, positions * openmm.unit.nanometer, file)
    return tmp_path / "stranger.pdb"


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def run(*command: object) -> str:
    result = invoke([str(part) for part in command])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


@pytest.mark.parametrize(
    ("name", "target", "columns"),
    [
        ("solvation", "molecule", ["frame", "solvation"]),
        ("charge_dipole", "vector", ["frame", "charge_dipole_x", "charge_dipole_y", "charge_dipole_z"]),
        ("bonded_charges", "atom", ["frame", "atom", "atomic_number", "bonded_charges"]),
    ],
)
def test_what_is_learned_is_predicted_for_a_molecule_never_seen(
    labels: Path, stranger: Path, tmp_path: Path, name: str, target: str, columns: list[str]
) -> None:
    out = tmp_path / "run"
    said = run("regress", labels, "--property", name, "--target", target, "--out", out, "--unit", "au", *SMALL.split())
    assert "1 frames held out" in said and "by their elements alone" in said
    model = load_property_model(out / "model.safetensors")
    assert model.spec.unit == "au" and model.spec.metadata["encoder"]["frozen"] is True
    table = tmp_path / "table.csv"
    said = run("predict", out / "model.safetensors", stranger, labels, "--out", table, "--threads", 1)
    rows = rows_of(table)
    assert list(rows[0]) == columns
    assert f"{len(rows)} rows of {name}, au, for 3 frames" in said
    if target == "atom":
        assert {row["atomic_number"] for row in rows} == {"6", "7", "8"}
        hydrogens = [row["atom"] for row in rows if row["frame"].startswith("frame 0 of")]
        assert hydrogens[:3] == ["0", "4", "5"]  # the methyl's hydrogens between them are not seen
    else:
        assert len(rows) == 3
    assert all(np.isfinite(float(row[columns[-1]])) for row in rows)


def test_a_table_labels_conformations(tmp_path: Path) -> None:
    run(*MAKE.split(), "--out", tmp_path / "peptides")
    molecules = Conformations.open(tmp_path / "peptides").molecules
    worth = {molecule.name: float((np.asarray(molecule.atomic_numbers) != 1).sum()) for molecule in molecules}
    lines = ["molecule,frame,heavy", *(f"{name},{frame},{count}" for name, count in worth.items() for frame in (0, 1))]
    (tmp_path / "heavy.csv").write_text("\n".join(lines))
    command = ["regress", tmp_path / "heavy.csv", "--conformations", tmp_path / "peptides", "--property", "heavy"]
    run(*command, "--out", tmp_path / "run", *SMALL.split())
    run("predict", tmp_path / "run/model.safetensors", tmp_path / "peptides", "--out", tmp_path / "table.csv")
    held_out = load_property_model(tmp_path / "run/model.safetensors").spec.metadata["labels"]["validation_molecules"]
    learned = {molecule.name for molecule in molecules if molecule.sequence not in held_out}
    rows = [row for row in rows_of(tmp_path / "table.csv") if row["frame"].split(",")[0] in learned]
    assert len(rows) == 2 * len(learned) == 4
    for row in rows:  # elements say all of two molecules, a perfect fit that four steps do not spoil
        assert float(row["heavy"]) == pytest.approx(worth[row["frame"].split(",")[0]], abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--property", "solution"], "has no property 'solution'"),
        (["--property", "solvation", "--target", "atom"], "expected (22,)"),
        (["--property", "solvation", "--hydrogens"], "--new-elements"),
        (["--property", "solvation", "--hold-out", "9"], "both need some"),
    ],
)
def test_wrong_options_are_refused_before_training(
    labels: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    command = ["regress", str(labels), *SMALL.split(), "--out", str(tmp_path / "run"), *options]
    result = invoke(command)
    assert result.exit_code != 0
    assert message in str(result.exception)
    assert not (tmp_path / "run").exists()
