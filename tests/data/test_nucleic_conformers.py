"""Frames of DNA and RNA strands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_lines import invoke

from openmm_gnn.base.errors import SpecError
from openmm_gnn.data.conformers.conformations import Conformations
from openmm_gnn.data.conformers.settings import NucleicAcidSettings

SHORT = ["--frames", "1", "--frame-time", "0.04", "--processes", "1", "--quiet"]


def test_frames_are_strands_that_hold_together(tmp_path: Path) -> None:
    options = ["conformers", "--kind", "nucleic-acids", "--molecules", "4", "--longest", "2", *SHORT]
    result = invoke([*options, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "12 frames of 4 nucleic acids" in result.output
    data = Conformations.open(tmp_path).verify()
    assert len({molecule.sequence for molecule in data.molecules}) == 4
    for molecule in data.molecules:
        acid, sequence = molecule.name.split()
        assert (molecule.atomic_numbers == 15).sum() == len(sequence) - 1
        assert set(molecule.residue_index) == set(range(len(sequence)))
        heavy = molecule.atomic_numbers != 1
        distances = np.linalg.norm(molecule.positions[:, :, None] - molecule.positions[:, None], axis=-1)
        nearest = np.sort(distances[:, heavy][:, :, heavy], axis=2)[:, :, 1]
        assert (nearest > 0.11).all() and (nearest < 0.19).all(), acid  # a bond of every heavy atom


def test_a_force_field_without_nucleic_acids_is_refused() -> None:
    with pytest.raises(SpecError, match="nucleic acids have no force field charmm36 here"):
        NucleicAcidSettings(force_field="charmm36")  # type: ignore[arg-type]
