"""Tokens of hand-made topologies, counted by hand."""

from __future__ import annotations

import json

import mdtraj
import numpy as np
import pytest

from openmm_gnn.base.errors import DataError, SpecError, TopologyError
from openmm_gnn.features.selection import select_atoms
from openmm_gnn.features.token_table import Coordinates, TokenTable, atom_tokens, group_tokens, residue_tokens


def test_tokens_are_residues_also_caps_nucleotides_ligands_and_equal_numbers_of_two_chains(
    zoo: mdtraj.Topology,
) -> None:
    table = residue_tokens(zoo, select_atoms(zoo))
    expected = ["A:ACE1", "A:ALA2", "A:NME3", "B:ACE1", "B:ALA2", "B:NME3", "D:DA51", "D:DT2", "X:LIG900", "X:AR903"]
    assert list(table.labels) == expected
    assert table.num_tokens == 10
    assert table.atoms[0] == (0, 2, 3)  # without the hydrogen
    assert table.atoms[1] == (4, 5, 6, 7, 8)
    assert sorted(sum(table.atoms, ())) == select_atoms(zoo).tolist()


def test_anchors_are_alpha_carbons_sugar_carbons_or_centroids_and_never_a_calcium(zoo: mdtraj.Topology) -> None:
    table = residue_tokens(zoo, zoo.select("not water and not resname QQQ"))
    kinds = dict(zip(table.labels, [kind.value for kind in table.anchors], strict=True))
    assert kinds == {
        **{f"{chain}:{residue}": kind for chain in "AB" for residue, kind in
           (("ACE1", "centroid"), ("ALA2", "CA"), ("NME3", "centroid"))},
        **{"D:DA51": "C1'", "D:DT2": "C1'", "X:LIG900": "centroid"},
        **{"X:CA901": "atom", "X:CL902": "atom", "X:AR903": "atom"},
    }  # fmt: skip
    for kind, index in zip(table.anchors, table.anchor_atoms, strict=True):
        assert index == -1 if kind.value == "centroid" else kind.value in (zoo.atom(index).name, "atom")


def test_a_nucleotide_without_its_sugar_selected_is_anchored_at_phosphorus(zoo: mdtraj.Topology) -> None:
    table = residue_tokens(zoo, zoo.select("element P"))
    assert dict(zip(table.labels, table.anchors, strict=True)) == {"D:DT2": "P", "X:LIG900": "atom"}


def test_wanted_alpha_carbons_that_are_missing_are_named(zoo: mdtraj.Topology) -> None:
    with pytest.raises(TopologyError, match="4 of 6 tokens have no alpha carbon .* the first is A:ACE1"):
        residue_tokens(zoo, zoo.select("chainid 0 1"), Coordinates.CA)
    table = residue_tokens(zoo, zoo.select("resname ALA"), Coordinates.CA)
    assert table.anchor_atoms == tuple(zoo.select("resname ALA and name CA"))
    with pytest.raises(TopologyError, match="1 of 1 tokens .* A:ALA2"):
        residue_tokens(zoo, zoo.select("chainid 0 and name CB"), Coordinates.CA)


def test_centroids_for_all_when_wanted(zoo: mdtraj.Topology) -> None:
    table = residue_tokens(zoo, select_atoms(zoo), Coordinates.CENTROID)
    assert set(table.anchors) == {"centroid"} and set(table.anchor_atoms) == {-1}


def test_a_token_per_atom(zoo: mdtraj.Topology) -> None:
    table = atom_tokens(zoo, zoo.select("resname ALA and name CA CB"))
    assert table.labels == ("A:ALA2.CA", "A:ALA2.CB", "B:ALA2.CA", "B:ALA2.CB")
    assert table.anchor_atoms == tuple(index for (index,) in table.atoms)


def test_given_groups_may_overlap_and_leave_atoms_out(zoo: mdtraj.Topology) -> None:
    table = group_tokens(zoo, select_atoms(zoo), [[4, 5, 6], [6, 7, 8], [2, 4]])
    assert table.atoms == ((4, 5, 6), (6, 7, 8), (2, 4))
    assert table.labels == ("group0", "group1", "group2")
    assert table.anchors == ("CA", "centroid", "centroid")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([], "empty list"),
        ([[4], []], "group 1 of the tokens is \\[\\]"),
        ([[4, 5, 4]], "group 0"),
        ([[4, 1]], r"the atom 1 \(HH31 of ACE1\), which is not selected"),
        ([[4, 4000]], "the atom 4000: the topology has"),
    ],
)
def test_groups_that_cannot_be_are_refused(zoo: mdtraj.Topology, groups: list[list[int]], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        group_tokens(zoo, select_atoms(zoo), groups)


def test_labels_that_come_again_are_numbered() -> None:
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(3):
        topology.add_atom("C1", mdtraj.element.carbon, topology.add_residue("LIG", chain, resSeq=9999))
    assert residue_tokens(topology, np.arange(3)).labels == ("0:LIG9999", "0:LIG9999#2", "0:LIG9999#3")


def test_a_table_survives_json(zoo: mdtraj.Topology) -> None:
    table = residue_tokens(zoo, select_atoms(zoo))
    assert TokenTable.from_json(json.loads(json.dumps(table.to_json()))) == table


@pytest.mark.parametrize(
    "change",
    [{"labels": ["A"]}, {"atoms": [[1], []]}, {"anchors": ["nose", "CA"]}, {"labels": None}, {"anchor_atoms": "xy"}],
)
def test_a_damaged_table_is_refused(change: dict[str, object]) -> None:
    good = {"labels": ["A", "B"], "atoms": [[1], [2]], "anchors": ["CA", "CA"], "anchor_atoms": [1, 2]}
    assert TokenTable.from_json(good).num_tokens == 2
    with pytest.raises(DataError, match="a token table"):
        TokenTable.from_json({**good, **change})
    with pytest.raises(DataError, match="without \\['atoms'\\]"):
        TokenTable.from_json({name: value for name, value in good.items() if name != "atoms"})
