"""Strands of DNA and RNA: the molecules that RDKit makes of the same letters, with their handedness and bonds."""

from __future__ import annotations

import itertools

import numpy as np
import openmm
import pytest
from openmm import app
from rdkit import Chem, rdBase
from rdkit.Chem import AllChem

from openmm_gnn.base.errors import SpecError
from openmm_gnn.md.implicit_solvent import in_implicit_solvent, with_hydrogens
from openmm_gnn.md.systems.nucleic_acids import NucleotideTorsions, Strand, build_strand, random_strands

MADE = [Strand("GATC"), Strand("GAUC", "RNA"), Strand("T"), Strand("U", "RNA")]


def smiles_of(topology: app.Topology, positions: np.ndarray, template: Chem.Mol) -> str:
    molecule, conformer = Chem.RWMol(), Chem.Conformer(len(positions))
    for atom, place in zip(topology.atoms(), positions, strict=True):
        molecule.AddAtom(Chem.Atom(atom.element.symbol))
        conformer.SetAtomPosition(atom.index, (10 * place).tolist())
    for first, second in topology.bonds():
        molecule.AddBond(first.index, second.index, Chem.BondType.SINGLE)
    molecule.AddConformer(conformer)
    with rdBase.BlockLogs():
        found = AllChem.AssignBondOrdersFromTemplate(template, molecule.GetMol())
    Chem.AssignStereochemistryFrom3D(found)
    for atom in found.GetAtoms():
        if atom.GetSymbol() == "P":  # its two oxygens are the same in water
            atom.SetChiralTag(Chem.ChiralType.CHI_UNSPECIFIED)
    return str(Chem.MolToSmiles(found))


@pytest.mark.parametrize("strand", MADE, ids=lambda strand: strand.name)
def test_a_strand_is_the_molecule_of_its_letters(strand: Strand) -> None:
    template = Chem.MolFromSequence(strand.sequence, flavor=6 if strand.acid == "DNA" else 2)
    for seed in range(3):
        topology, positions = build_strand(strand, np.random.default_rng(seed))
        assert smiles_of(topology, positions, template) == Chem.MolToSmiles(template)
        for first, second in topology.bonds():
            length = 10 * np.linalg.norm(positions[first.index] - positions[second.index])
            assert 1.2 < length < 1.65, (first, second)


def test_the_force_field_knows_the_strands() -> None:
    for strand in MADE:
        generator = np.random.default_rng(0)
        topology, _ = with_hydrogens(*build_strand(strand, generator), generator)
        system = in_implicit_solvent(topology)
        charges = next(force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
        total = sum(charges.getParticleParameters(k)[0]._value for k in range(charges.getNumParticles()))
        assert total == pytest.approx(1 - len(strand.sequence), abs=1e-4)  # one charge for each phosphate


def test_the_pucker_decides_delta() -> None:
    """Saenger, Principles of Nucleic Acid Structure (1984): about 84 degrees in C3'-endo, 144 in C2'-endo."""
    north = NucleotideTorsions(0, 0, 0, 0, 0, 0, pucker=18.0)
    south = NucleotideTorsions(0, 0, 0, 0, 0, 0, pucker=162.0)
    assert north.delta == pytest.approx(84, abs=4) and south.delta == pytest.approx(144, abs=4)
    assert sum(north.ring(k) for k in range(5)) == pytest.approx(0, abs=1e-9)


def test_strands_repeat_for_a_seed_and_none_comes_twice() -> None:
    strands = list(itertools.islice(random_strands(1, 6, seed=3), 200))
    assert strands[:30] == list(itertools.islice(random_strands(1, 6, seed=3), 30))
    assert len(set(strands)) == 200 and {strand.acid for strand in strands} == {"DNA", "RNA"}
    assert {len(strand.sequence) for strand in strands} == {1, 2, 3, 4, 5, 6}
    with pytest.raises(SpecError, match="after 8 molecules hardly another of 1 to 1 residues"):
        list(itertools.islice(random_strands(1, 1, seed=0), 9))
    with pytest.raises(SpecError, match="2 to 1 residues"):
        next(random_strands(2, 1, seed=0))
    with pytest.raises(SpecError, match="the strand is DNA of 'GAU'"):
        Strand("GAU")
