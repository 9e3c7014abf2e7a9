"""Runs of proteins from files: those that were asked for, at their temperatures, none a benchmark unawares."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_lines import invoke
from openmm import app, unit

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.data.conformers.conformations import Conformations
from openmm_gnn.data.conformers.settings import ProteinSettings
from openmm_gnn.md.systems.peptides import Peptide, build_peptide

VILLIN = Path(app.__file__).parent / "data" / "test.pdb"
SHORT = ["--kind", "proteins", "--frames", "1", "--frame-time", "0.04", "--processes", "1", "--quiet"]


def structure(path: Path, sequence: str) -> str:
    topology, positions = build_peptide(Peptide(sequence, False, False), np.random.default_rng(1))
    with open(path, "w") as file:
        app.PDBFile.writeFile(topology, positions * unit.nanometer, file)
    return str(path)


def test_runs_take_the_structures_in_turn(tmp_path: Path) -> None:
    files = ["--structure", structure(tmp_path / "a.pdb", "GWKA"), "--structure", structure(tmp_path / "b.pdb", "SRT")]
    out = tmp_path / "out"
    options = [
        *SHORT,
        "--out",
        str(out),
        "--molecules",
        "3",
        "--force-field-family",
        "charmm36",
        "--temperatures",
        "320",
    ]
    bad = tmp_path / "bad.pdb"
    bad.write_text("HEADER nothing")
    result = invoke(["conformers", *options, *files, "--structure", str(bad), "--skip-bad"])
    assert result.exit_code == 0, result.output
    assert "3 frames of 3 proteins" in result.output and "skipped 1, the first one:" in result.output
    data = Conformations.open(out)
    data.verify()
    assert [(m.name, m.sequence) for m in data.molecules] == [("a", "GWKA"), ("b", "SRT"), ("a", "GWKA")]
    assert [m.temperatures.tolist() for m in data.molecules] == [[320]] * 3
    first, again = data.molecules[0].positions[0], data.molecules[2].positions[0]
    assert np.abs(first - again).max() > 0.01  # other velocities
    assert data.molecules[0].residue_index.tolist() == sorted(data.molecules[0].residue_index)
    assert set(data.molecules[0].residue_index) == {0, 1, 2, 3}
    assert [entry["file"] for entry in json.loads((out / "meta.json").read_text())["settings"]["inputs"]] == [
        "a.pdb",
        "b.pdb",
        "bad.pdb",
    ]
    # A file that has changed since is no way to go on.
    structure(tmp_path / "b.pdb", "SRV")
    result = invoke(["conformers", *options, *files, "--structure", str(bad), "--skip-bad"])
    assert "was made with inputs" in str(result.exception)


def test_a_benchmark_is_refused_unless_it_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="test.pdb is villin, on which encoders are tested.*--allow-held-out"):
        ProteinSettings().maker([VILLIN])
    assert ProteinSettings(allow_held_out=True).maker([VILLIN]).proteins[0].sequence.startswith("LSDEDF")
    with pytest.raises(DataError, match="all 1 structures were left out, the first one because .* is villin"):
        ProteinSettings().maker([VILLIN], skip_bad=True)
    with pytest.raises(SpecError, match="no structures were given"):
        ProteinSettings().maker([])
    result = invoke(["conformers", *SHORT, "--out", str(tmp_path), "--longest", "3"])
    assert result.exit_code == 2 and "--longest" in result.stderr
