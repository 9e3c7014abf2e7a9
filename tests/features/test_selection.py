"""Selections against mdtraj's own, hand-made topologies, and what must be refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import openmm.app
import pytest

from openmm_gnn.base.errors import SpecError, TopologyError
from openmm_gnn.features.selection import check_elements, select_atoms
from openmm_gnn.features.topologies import as_mdtraj, topology_hash

VILLIN = Path(openmm.app.__file__).parent / "data" / "test.pdb"


def names(topology: mdtraj.Topology, atoms: np.ndarray) -> list[str]:
    return [f"{topology.atom(int(index)).residue.name}.{topology.atom(int(index)).name}" for index in atoms]


def test_default_is_the_heavy_atoms_of_the_protein_in_a_solvated_protein(villin: openmm.app.PDBFile) -> None:
    topology = mdtraj.Topology.from_openmm(villin.topology)
    expected = topology.select("protein and not element H")
    assert len(expected) == 289
    np.testing.assert_array_equal(select_atoms(as_mdtraj(villin.topology)), expected)


def test_default_leaves_out_hydrogen_water_of_any_name_and_monatomic_ions_only(zoo: mdtraj.Topology) -> None:
    residues = {name.split(".")[0] for name in names(zoo, select_atoms(zoo))}
    assert residues == {"ACE", "ALA", "NME", "DA5", "DT", "LIG", "AR"}
    assert all(zoo.atom(int(index)).element.number > 1 for index in select_atoms(zoo))


def test_a_metal_that_is_bonded_is_no_ion() -> None:
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    zinc = topology.add_atom("ZN", mdtraj.element.zinc, topology.add_residue("ZN", chain))
    sulfur = topology.add_atom("SG", mdtraj.element.sulfur, topology.add_residue("CYM", chain))
    assert select_atoms(topology).tolist() == [1]
    topology.add_bond(zinc, sulfur)
    assert select_atoms(topology).tolist() == [0, 1]


def test_a_selection_is_mdtrajs_and_may_hold_ions_and_hydrogens(zoo: mdtraj.Topology) -> None:
    for text in ("resname CA LIG", "element H and protein", "water and not element VS", "chainid 1 and name CA"):
        np.testing.assert_array_equal(select_atoms(zoo, text), zoo.select(text))


@pytest.mark.parametrize("text", ["protein and", "(protein", "", "protein protein", "resid < 'A'", "nonsense"])
def test_a_selection_that_cannot_be_read_is_refused_with_its_text(zoo: mdtraj.Topology, text: str) -> None:
    with pytest.raises(SpecError, match="the selection") as error:
        select_atoms(zoo, text)
    assert repr(text) in str(error.value)


def test_a_selection_of_nothing_names_the_residues_there_are(zoo: mdtraj.Topology) -> None:
    with pytest.raises(SpecError, match=r"'resname HEM' matches none of the \d+ atoms: the residues are ACE, ALA"):
        select_atoms(zoo, "resname HEM")


def test_water_alone_has_no_default_and_the_error_says_what_to_give() -> None:
    topology = openmm.app.Topology()
    residue = topology.addResidue("HOH", topology.addChain())
    topology.addAtom("O", openmm.app.element.oxygen, residue)
    with pytest.raises(SpecError, match='selection="water and element O"'):
        select_atoms(as_mdtraj(topology))


def test_virtual_sites_are_refused_by_name_with_the_remedy(zoo: mdtraj.Topology) -> None:
    with pytest.raises(TopologyError, match=r"'water' takes 1 virtual sites .* \(M of HOH904\)") as error:
        select_atoms(zoo, "water")
    remedy = str(error.value).split("write '")[1].rstrip("'")
    assert names(zoo, select_atoms(zoo, remedy))[:3] == ["HOH.O", "HOH.H1", "HOH.H2"]


def test_unknown_elements_are_named_with_the_list_of_the_encoder(zoo: mdtraj.Topology) -> None:
    atoms = select_atoms(zoo, "not element VS")
    check_elements(zoo, atoms, range(1, 101))
    with pytest.raises(TopologyError) as error:
        check_elements(zoo, atoms, [1, 6, 7, 8, 15])
    for piece in ("Ca (1 atoms", "(CA of CA901)", "Cl", "Ar", "atomic numbers 1, 6-8, 15", "not element Ca and"):
        assert piece in str(error.value)


def test_the_hash_is_the_same_from_openmm_and_mdtraj_and_tells_topologies_apart(
    villin: openmm.app.PDBFile, zoo: mdtraj.Topology
) -> None:
    from_mdtraj = mdtraj.load_topology(str(VILLIN))
    protein = from_mdtraj.select("protein")  # mdtraj takes this file's chloride for carbon
    own = topology_hash(as_mdtraj(villin.topology).subset(protein))
    assert own == topology_hash(from_mdtraj.subset(protein))
    before = topology_hash(zoo)
    assert before == topology_hash(zoo.copy()) != own
    zoo.atom(1).name = "HX"
    assert topology_hash(zoo) == before
    zoo.atom(0).element = mdtraj.element.sulfur
    assert topology_hash(zoo) != before


@pytest.mark.parametrize("wrong", [None, "villin.pdb", 3])
def test_what_is_no_topology_is_refused(wrong: Any) -> None:
    with pytest.raises(TopologyError, match="is no topology"):
        as_mdtraj(wrong)
