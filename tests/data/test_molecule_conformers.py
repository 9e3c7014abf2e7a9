"""Drug-like molecules: what their names say, forces that are the gradient, bad lines named or skipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from command_lines import invoke
from rdkit.Chem import rdMolDescriptors

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.data.conformers.conformations import Conformations
from openmm_gnn.data.conformers.settings import MoleculeSettings
from openmm_gnn.data.conformers.small_molecules import (
    DRUGS,
    MMFF94,
    canonical,
    embedded,
    langevin,
    molecule_of,
    read_smiles,
)

SHORT = ["--kind", "molecules", "--frames", "2", "--frame-time", "0.02", "--processes", "1", "--quiet"]
FORMULAS = {
    **{"aspirin": "C9H8O4", "caffeine": "C8H10N4O2", "diazepam": "C16H13ClN2O", "morphine": "C17H19NO3"},
    **{"warfarin": "C19H16O4", "imatinib": "C29H31N7O", "sildenafil": "C22H30N6O4S", "cholesterol": "C27H46O"},
    **{"cyclophosphamide": "C7H15Cl2N2O2P", "halothane": "C2HBrClF3", "bisoprolol": "C18H31NO4"},
}


def test_drugs_are_what_they_are_called() -> None:
    lines = read_smiles([DRUGS])
    molecules = {line.name: molecule_of(line) for line in lines}
    assert len(molecules) == len(lines) > 200
    assert len({canonical(molecule) for molecule in molecules.values()}) == len(lines)
    found = {name: rdMolDescriptors.CalcMolFormula(molecules[name]) for name in FORMULAS}
    assert found == FORMULAS
    elements = {atom.GetSymbol() for molecule in molecules.values() for atom in molecule.GetAtoms()}
    assert elements == {"H", "C", "N", "O", "F", "P", "S", "Cl", "Br"}


def test_forces_are_the_gradient_wherever_the_atoms_go() -> None:
    molecule = molecule_of(read_smiles([DRUGS])[0])
    embedded(molecule, 1, seed=3)
    start = molecule.GetConformer().GetPositions()
    atoms = Atoms(numbers=[atom.GetAtomicNum() for atom in molecule.GetAtoms()], positions=start)
    calculator = MMFF94(molecule)
    assert np.abs(calculator.get_forces(atoms)).max() < 1e-2  # eV/angstrom; it was minimised
    for seed in range(2):
        atoms.positions = start + np.random.default_rng(seed).normal(scale=0.05, size=start.shape)
        forces = calculator.get_forces(atoms)
        for atom, axis in ((0, 0), (5, 1), (20, 2)):
            energies = []
            for step in (-1e-4, 1e-4):
                atoms.positions[atom, axis] += step
                energies.append(calculator.get_potential_energy(atoms))
                atoms.positions[atom, axis] -= step
            assert forces[atom, axis] == pytest.approx((energies[0] - energies[1]) / 2e-4, abs=1e-4)


def test_dynamics_have_the_temperature() -> None:
    molecule = molecule_of(read_smiles([DRUGS])[0])
    embedded(molecule, 1, seed=3)
    run = langevin(molecule, 0, 450.0, (1000, 5), 0.0005, 20.0, np.random.default_rng(0))
    frames = np.stack([next(run) for _ in range(400)])
    # Velocities half a step apart from finite differences would need every step: the bonds tell the temperature too.
    bond = np.linalg.norm(frames[:, 0] - frames[:, 1], axis=1)  # C-C of the methyl group, about 650 kcal/mol/angstrom^2
    assert np.std(bond) == pytest.approx(np.sqrt(units.kB * 450.0 / (650 * units.kcal / units.mol)), rel=0.4)
    assert bond.mean() == pytest.approx(1.5, abs=0.03)


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_frames_are_of_the_molecules_of_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.smi", "# remark", "OCC\tethanol", "", "c1ccccc1 benzene ring", "CN", "CCO again")
    out = tmp_path / "out"
    result = invoke(["conformers", *SHORT, "--smiles", str(file), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "24 frames of 4 molecules" in result.output
    data = Conformations.open(out).verify()
    assert [molecule.name for molecule in data.molecules] == ["ethanol", "benzene ring", "mine 5", "again"]
    assert [molecule.sequence for molecule in data.molecules] == ["CCO", "c1ccccc1", "CN", "CCO"]
    benzene = data.molecules[1]
    assert benzene.temperatures.tolist() == [600, 600, 450, 450, 300, 300]
    carbons = benzene.positions[:, benzene.atomic_numbers == 6]
    ring = np.linalg.norm(carbons - np.roll(carbons, 1, axis=1), axis=-1)
    assert np.abs(ring - 0.139).max() < 0.02
    training = data.split(4).training
    assert {molecule.name for molecule in training} == {"benzene ring", "mine 5"}  # ethanol is ethanol
    again = MoleculeSettings(frames=2, interval_ps=0.02).maker([file]).conformers(1)
    assert bytes.fromhex(benzene.sha256) == again.digest


@pytest.mark.parametrize(
    ("smiles", "message"),
    [
        ("CCX thing", "bad.smi line 2: 'CCX' is no SMILES"),
        ("[Na+].[Cl-] salt", "bad.smi line 2: salt is of 2 parts"),
        ("[Fe] iron", r"bad.smi line 2: MMFF94 has no parameters for iron \(\[Fe\]\)"),
    ],
)
def test_lines_that_cannot_be_run_are_named(tmp_path: Path, smiles: str, message: str) -> None:
    file = write(tmp_path / "bad.smi", "CO methanol", smiles)
    with pytest.raises(DataError, match=message):
        MoleculeSettings().maker([file]).check(2, skip_bad=False)


def test_lines_that_cannot_be_run_are_skipped_when_asked(tmp_path: Path) -> None:
    file = write(tmp_path / "bad.smi", "CO methanol", "CCX thing", "[Na+].[Cl-] salt")
    options = ["conformers", *SHORT, "--smiles", str(file), "--out", str(tmp_path / "out")]
    assert isinstance(invoke(options).exception, DataError)
    result = invoke([*options, "--skip-bad"])
    assert "6 frames of 1 molecules" in result.output and "skipped 2, the first one:" in result.output
    data = Conformations.open(tmp_path / "out")
    assert [molecule.name for molecule in data.molecules] == ["methanol"] and data.meta["skipped"]["count"] == 2


def test_files_without_enough_molecules_are_said(tmp_path: Path) -> None:
    file = write(tmp_path / "few.smi", "CO", "C")
    with pytest.raises(SpecError, match="3 molecules are asked for and 2 are given"):
        MoleculeSettings().maker([file]).check(3, skip_bad=False)
    with pytest.raises(DataError, match="there is no molecule in"):
        read_smiles([write(tmp_path / "none.smi", "# nothing")])
    with pytest.raises(DataError, match="nowhere.smi cannot be read"):
        read_smiles([tmp_path / "nowhere.smi"])
