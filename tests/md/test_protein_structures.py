"""Proteins from files: complete, without anything else, and never a benchmark unawares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_gnn.base.errors import DataError
from openmm_gnn.md.systems.peptides import Peptide, build_peptide
from openmm_gnn.md.systems.protein_structures import read_protein

VILLIN = Path(app.__file__).parent / "data" / "test.pdb"


def write(path: Path, topology: app.Topology, positions: np.ndarray) -> Path:
    with open(path, "w") as file:
        app.PDBFile.writeFile(topology, positions * unit.nanometer, file)
    return path


def with_water_and_calcium(topology: app.Topology, positions: np.ndarray) -> tuple[app.Topology, np.ndarray]:
    chain = topology.addChain()
    for name, symbols in (("HOH", "O"), ("HOH", "O"), ("CA", "Ca")):
        residue = topology.addResidue(name, chain)
        topology.addAtom(symbols.upper(), app.Element.getBySymbol(symbols), residue)
    return topology, np.concatenate([positions, 5 + np.arange(9).reshape(3, 3)])


def without(topology: app.Topology, positions: np.ndarray, *names: str) -> tuple[app.Topology, np.ndarray]:
    modeller = app.Modeller(topology, positions * unit.nanometer)
    atoms = list(modeller.topology.atoms())
    modeller.delete([atom for atom in atoms if f"{atom.name}{atom.residue.index}" in names])
    return modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer))


def test_water_and_ions_are_left_out_and_counted(tmp_path: Path) -> None:
    peptide = Peptide("GWKCHE", acetylated=False, methylated=False)
    topology, positions = build_peptide(peptide, np.random.default_rng(1))
    path = write(tmp_path / "a.pdb", *with_water_and_calcium(*build_peptide(peptide, np.random.default_rng(1))))
    protein = read_protein(path)
    assert (protein.name, protein.sequence, protein.dropped) == ("a", "GWKCHE", {"HOH": 2, "CA": 1})
    assert [atom.name for atom in protein.topology.atoms()] == [atom.name for atom in topology.atoms()]
    assert protein.topology.getNumBonds() == topology.getNumBonds()
    np.testing.assert_allclose(protein.positions, positions, atol=1e-4)
    assert protein.benchmark is None


def test_hydrogens_are_dropped_and_the_last_oxygen_is_added(tmp_path: Path) -> None:
    topology, positions = build_peptide(Peptide("GWK", False, False), np.random.default_rng(1))
    modeller = app.Modeller(topology, positions * unit.nanometer)
    modeller.addHydrogens(platform=openmm.Platform.getPlatformByName("Reference"))
    whole = np.array(modeller.positions.value_in_unit(unit.nanometer))
    last = next(atom.index for atom in modeller.topology.atoms() if atom.name == "OXT")
    protein = read_protein(write(tmp_path / "a.pdb", *without(modeller.topology, whole, "OXT2")))
    assert [atom.name for atom in protein.topology.atoms()] == [atom.name for atom in topology.atoms()]
    np.testing.assert_allclose(protein.positions[-1], whole[last], atol=0.02)


def test_missing_atoms_and_gaps_are_named(tmp_path: Path) -> None:
    built = build_peptide(Peptide("GWK", False, False), np.random.default_rng(1))
    with pytest.raises(DataError, match="lacks 2 heavy atoms: CZ2 of TRP2 in chain A, NZ of LYS3 in chain A: complete"):
        read_protein(write(tmp_path / "a.pdb", *without(*built, "CZ21", "NZ2")))
    positions = built[1].copy()
    positions[[atom.residue.index == 2 for atom in built[0].atoms()]] += 1.0
    with pytest.raises(DataError, match="has a gap between TRP2 in chain A and LYS3 in chain A"):
        read_protein(write(tmp_path / "b.pdb", built[0], positions))
    topology, positions = with_water_and_calcium(app.Topology(), np.zeros((0, 3)))
    with pytest.raises(DataError, match=r"holds no protein: it has {'HOH': 2, 'CA': 1}"):
        read_protein(write(tmp_path / "c.pdb", topology, positions))


def test_benchmarks_are_known() -> None:
    villin = read_protein(VILLIN)
    assert villin.sequence.startswith("LSDEDFKAVFG") and villin.benchmark == "villin"
