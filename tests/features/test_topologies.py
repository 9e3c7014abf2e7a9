"""Topologies as files have them: elements, residues and bonds are right or refused, and the same ones are the same."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from pathlib import Path

import mdtraj
import numpy as np
import pytest
from openmm import app, unit

from openmm_gnn.base.elements import element_of
from openmm_gnn.base.errors import DataError, SpecError, TopologyError
from openmm_gnn.features.covalent_bonds import check_bond_lengths, warn_of_open_chains
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.features.residue_windows import residue_segments
from openmm_gnn.features.selection import select_atoms
from openmm_gnn.features.token_table import residue_tokens
from openmm_gnn.features.topologies import as_mdtraj, in_file_order, read_topology, topology_hash
from openmm_gnn.features.trajectory_frames import check_atoms, frames_of
from openmm_gnn.md.simulation_system import SimulationSystem
from openmm_gnn.md.systems.structure_files import read_models, read_structure
from openmm_gnn.md.systems.systems import load_system


@pytest.fixture(scope="module")
def chignolin() -> SimulationSystem:
    return load_system("chignolin")


def write_pdb(
    path: Path,
    system: SimulationSystem,
    order: list[int] | None = None,
    rename: dict[int, str] | None = None,
    elements: bool = True,
) -> Path:
    """A PDB by hand, in angstrom: atoms in any order, residues by other names, with or without element columns."""
    atoms = list(system.topology.atoms())
    lines = []
    for serial, index in enumerate(order or range(len(atoms)), 1):
        atom = atoms[index]
        name = f" {atom.name:<3}" if len(atom.name) < 4 else atom.name
        residue = (rename or {}).get(atom.residue.index, atom.residue.name)
        x, y, z = 10 * system.positions[index]
        symbol = atom.element.symbol if elements else ""
        lines.append(
            f"ATOM  {serial:5d} {name} {residue:>3} A{int(atom.residue.id):4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00"
            f"          {symbol:>2}"
        )
    path.write_text("\n".join([*lines, "END", ""]))
    return path


def line(
    serial: int, field: str, residue: str, number: int, place: tuple[float, float, float], symbol: str = ""
) -> str:
    """A HETATM line; `field` is the name in its four columns."""
    x, y, z = place
    atom = f"HETATM{serial:5d} {field:4} {residue:>3} A{number:4d}"
    return f"{atom}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          {symbol:>2}"


def bonds_of(topology: mdtraj.Topology) -> set[tuple[int, int]]:
    return {tuple(sorted((a.index, b.index))) for a, b in topology.bonds}


# ---- elements --------------------------------------------------------------------------------------------------------

HAEM_AND_METALS = {
    ("HEM", "FE"): "Fe",
    ("HEM", "NA"): "N",
    ("HEM", "NB"): "N",
    ("HEM", "C1A"): "C",
    ("LIG", "CU"): "Cu",
    ("LIG", "C1"): "C",
    ("LIG", "O1"): "O",
    ("LG2", "MN"): "Mn",
    ("LG2", "SE"): "Se",
    ("LG3", "BR1"): "Br",
    ("LG3", "C1"): "C",
    ("LG4", "NI"): "Ni",
    ("LG4", "S1"): "S",
}


def test_metals_halogens_and_selenium_of_a_pdb_without_elements_are_what_they_are(tmp_path: Path) -> None:
    path, lines = tmp_path / "x.pdb", []
    for serial, (residue, name) in enumerate(HAEM_AND_METALS, 1):
        number = ["HEM", "LIG", "LG2", "LG3", "LG4"].index(residue) + 1
        field = f"{name:<4}" if name in ("FE", "CU", "MN", "SE", "NI") else f" {name:<3}"
        lines.append(line(serial, field, residue, number, (2.0 * serial, 0, 0)))
    path.write_text("\n".join(lines))
    with pytest.warns(UserWarning, match="13 atoms have no element; by the names .* 1 Fe"):
        topology = read_topology(path)
    assert {(a.residue.name, a.name): a.element.symbol for a in topology.atoms} == HAEM_AND_METALS


IONS = {
    **{("NA", "NA"): "Na", ("NA", "NA+"): "Na", ("CL", "CL"): "Cl", ("K", "K"): "K", ("CA", "CA"): "Ca"},
    **{("SOD", "SOD"): "Na", ("POT", "POT"): "K", ("CLA", "CLA"): "Cl", ("CAL", "CAL"): "Ca", ("ZN", "ZN"): "Zn"},
    **{("LIG", "CL1"): "Cl", ("LIG", "BR1"): "Br", ("LIG", "F1"): "F", ("MG", "MG"): "Mg", ("FE", "FE"): "Fe"},
    **{("ALA", "CA"): "C", ("SOL", "OW"): "O", ("SOL", "MW"): "VS", ("MSE", "SE"): "Se", ("TYR", "1HB"): "H"},
}


@pytest.mark.filterwarnings("ignore:.*has no elements")
def test_ions_and_ligands_of_a_gro_file_are_what_they_are(tmp_path: Path) -> None:
    rows = [f"{k:5d}{r:<5}{n:>5}{k:5d}{0.5 * k:8.3f}{0:8.3f}{0:8.3f}" for k, (r, n) in enumerate(IONS, 1)]
    (tmp_path / "x.gro").write_text("\n".join(["t", str(len(rows)), *rows, "  20.0  20.0  20.0", ""]))
    topology = read_topology(tmp_path / "x.gro")
    assert [atom.element.symbol for atom in topology.atoms] == list(IONS.values())


def test_what_names_leave_open_is_refused_by_name_and_taken_from_the_user(tmp_path: Path) -> None:
    assert element_of("UNK", "CD", ["CD", "C1", "O1"]) is None and element_of("ALA", "BB", ["BB"]) is None
    places = [(0, 0, 0), (1.4, 0, 0), (2.5, 0, 0)]
    rows = [line(k, f"{n:<4}", "UNK", 1, p) for k, (n, p) in enumerate(zip(("CD", "C1", "O1"), places, strict=True), 1)]
    (tmp_path / "x.pdb").write_text("\n".join(rows))
    with (
        pytest.warns(UserWarning),
        pytest.raises(TopologyError, match=r'1 atoms .* 0 \(CD of UNK1\)\. .*"UNK:CD=SYMBOL"'),
    ):
        read_topology(tmp_path / "x.pdb")
    with pytest.raises(DataError, match="does not say the element of 1 atoms, the first is atom 0 .CD of UNK1"):
        read_structure(tmp_path / "x.pdb")
    with pytest.warns(UserWarning):
        topology = read_topology(tmp_path / "x.pdb", ["UNK:CD=cd"])
    assert [atom.element.symbol for atom in topology.atoms] == ["Cd", "C", "O"]
    with pytest.raises(SpecError, match="CD=Xy, which names no element"):
        read_topology(tmp_path / "x.pdb", {"CD": "Xy"})


def test_a_live_topology_with_a_guessed_or_unknown_element_is_refused(tmp_path: Path) -> None:
    topology = app.Topology()
    chain = topology.addChain()
    topology.addAtom("FE", app.element.fluorine, topology.addResidue("HEM", chain))
    with pytest.raises(TopologyError, match=r"0 \(FE of HEM1\): F, where Fe is meant"):
        as_mdtraj(topology)
    assert as_mdtraj(topology, {"FE": "Fe"}).atom(0).element.symbol == "Fe"
    topology.addAtom("MN", None, topology.addResidue("LIG", chain))
    with pytest.raises(TopologyError, match=r"1 atoms are unknown: 1 \(MN of LIG2\)"):
        as_mdtraj(topology, {"FE": "Fe"})
    water = topology.addResidue("HOH", chain)
    topology.addAtom("O", app.element.oxygen, water)
    topology.addAtom("M", None, water)
    known = as_mdtraj(topology, {"FE": "Fe", "LIG:MN": "Mn"})
    assert [atom.element.symbol for atom in known.atoms] == ["Fe", "Mn", "O", "VS"]


def test_a_protein_without_element_columns_is_the_same_protein(chignolin: SimulationSystem, tmp_path: Path) -> None:
    bare = write_pdb(tmp_path / "bare.pdb", chignolin, elements=False)
    with pytest.warns(UserWarning, match="166 atoms have no element"):
        assert topology_hash(read_topology(bare)) == topology_hash(as_mdtraj(chignolin.topology))


# ---- residues and bonds ----------------------------------------------------------------------------------------------


def test_atoms_of_a_residue_that_stand_apart_are_one_token_and_bonded(
    chignolin: SimulationSystem, tmp_path: Path
) -> None:
    """As D. E. Shaw Research writes proteins: heavy atoms residue by residue, then all hydrogens and OXT."""
    atoms = list(chignolin.topology.atoms())
    heavy = [a.index for a in atoms if a.element.symbol != "H" and a.name != "OXT"]
    order = heavy + [index for index in range(len(atoms)) if index not in set(heavy)]
    topology = read_topology(write_pdb(tmp_path / "x.pdb", chignolin, order))
    expected = as_mdtraj(chignolin.topology)
    place = {index: row for row, index in enumerate(order)}
    assert topology.n_residues == 10
    assert [topology.atom(place[a.index]).residue.index for a in expected.atoms] == [
        a.residue.index for a in expected.atoms
    ]
    assert bonds_of(topology) == {tuple(sorted((place[i], place[j]))) for i, j in bonds_of(expected)}
    assert residue_tokens(topology, select_atoms(topology)).num_tokens == 10


@pytest.mark.parametrize("rename", [{}, {4: "LIG"}], ids=["known", "bonded by geometry"])
def test_atoms_that_stand_apart_keep_their_places(
    chignolin: SimulationSystem, tmp_path: Path, rename: dict[int, str]
) -> None:
    """Whatever is added to the topology, its atoms are those of the file's lines, and of trajectories."""
    atoms = list(chignolin.topology.atoms())
    heavy = [a.index for a in atoms if a.element.symbol != "H"]
    order = heavy + [index for index in range(len(atoms)) if index not in set(heavy)]
    path = write_pdb(tmp_path / "x.pdb", chignolin, order, rename=rename)
    topology = read_topology(path)
    lines = [line for line in path.read_text().splitlines() if line.startswith(("ATOM", "HETATM"))]
    for again in (topology, as_mdtraj(topology, {"XX:X": "C", "CA": "C"})):
        assert [atom.name for atom in in_file_order(again)] == [line[12:16].strip() for line in lines]
        place = {index: row for row, index in enumerate(order)}
        bonds = bonds_of(as_mdtraj(chignolin.topology))
        assert bonds_of(again) == {tuple(sorted((place[i], place[j]))) for i, j in bonds}
    alike, positions = as_mdtraj(chignolin.topology), chignolin.positions
    expected = Featurizer("biomolecule-et-small", alike).features(positions)
    found = Featurizer("biomolecule-et-small", topology).features(positions[order])
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())  # float32, sums in another order


@pytest.mark.parametrize("name", ["MSE", "SEP", "HSD", "ASH", "CYX", "LIG", "DAL"])
def test_a_residue_that_the_reader_does_not_know_is_bonded_by_its_geometry(
    chignolin: SimulationSystem, tmp_path: Path, name: str
) -> None:
    topology = read_topology(write_pdb(tmp_path / "x.pdb", chignolin, rename={4: name}))
    assert bonds_of(topology) == bonds_of(as_mdtraj(chignolin.topology))
    assert residue_segments(topology).tolist() == [0] * 10
    warn_of_open_chains(topology, np.arange(topology.n_atoms))


def test_a_chain_that_no_bond_joins_is_said(chignolin: SimulationSystem) -> None:
    topology = as_mdtraj(chignolin.topology)
    cut = topology.copy()
    cut._bonds = [bond for bond in cut._bonds if {bond[0].residue.index, bond[1].residue.index} != {4, 5}]
    with pytest.warns(UserWarning, match="no bond joins GLU5 and THR6: windows of residues end there"):
        warn_of_open_chains(cut, np.arange(cut.n_atoms))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_open_chains(topology, np.arange(topology.n_atoms))


def test_a_ligand_whose_atoms_have_equal_names_keeps_them_all(tmp_path: Path) -> None:
    places = [(0, 0, 0), (1.5, 0, 0), (2.2, 1.2, 0), (2.2, -1.2, 0)]
    rows = [line(k, f" {n:<3}", "UNL", 1, p, n) for k, (n, p) in enumerate(zip("CCOO", places, strict=True), 1)]
    (tmp_path / "x.pdb").write_text("\n".join([*rows, "END"]))
    with pytest.warns(UserWarning, match="2 atoms have the name of another in their residue"):
        topology = read_topology(tmp_path / "x.pdb")
    assert [atom.element.symbol for atom in topology.atoms] == ["C", "C", "O", "O"]
    assert topology.n_residues == 1 and bonds_of(topology) == {(0, 1), (1, 2), (1, 3)}
    (frames,) = frames_of(tmp_path / "x.pdb", topology, np.arange(4))
    np.testing.assert_allclose(frames.positions[0], np.array(places) / 10, atol=1e-6)


def test_alternate_locations_are_left_out_of_topology_and_frames_alike(tmp_path: Path) -> None:
    rows = [
        line(1, " N  ", "ALA", 1, (0, 0, 0), "N"),
        line(2, " CA ", "ALA", 1, (1.46, 0, 0), "C"),
        line(3, " CB ", "ALA", 1, (2.0, 1.4, 0), "C"),
        line(4, " CB ", "ALA", 1, (2.0, -1.4, 0), "C"),
    ]
    rows[2], rows[3] = rows[2][:16] + "A" + rows[2][17:], rows[3][:16] + "B" + rows[3][17:]
    (tmp_path / "x.pdb").write_text("\n".join([*rows, "END"]))
    topology = read_topology(tmp_path / "x.pdb")
    check_atoms(tmp_path / "x.pdb", topology)
    (frames,) = frames_of(tmp_path / "x.pdb", topology, np.arange(3))
    live = app.PDBFile(str(tmp_path / "x.pdb")).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    np.testing.assert_allclose(frames.positions[0], live, atol=1e-6)


def test_models_without_numbers_are_read_and_boxes_that_differ_are_said(tmp_path: Path) -> None:
    atom = line(1, " C  ", "LIG", 1, (0, 0, 0), "C")
    cells = [f"CRYST1{edge:9.3f}{edge:9.3f}{edge:9.3f}  90.00  90.00  90.00 P 1           1" for edge in (30, 40)]
    (tmp_path / "x.pdb").write_text("\n".join([cells[0], "MODEL", atom, "ENDMDL", cells[1], "MODEL", atom, "ENDMDL"]))
    with pytest.warns(UserWarning, match="2 different boxes, of which the last one is taken"):
        assert len(read_models(tmp_path / "x.pdb").frames) == 2


# ---- the same topology -----------------------------------------------------------------------------------------------


def test_no_hydrogen_of_a_water_is_dropped_for_its_name(tmp_path: Path) -> None:
    """As Open Babel writes water; OpenMM's reader leaves out atoms whose name their residue has already."""
    places = [(" O  ", "O", (0, 0, 0)), (" H  ", "H", (0.96, 0, 0)), (" H  ", "H", (-0.24, 0.93, 0))]
    text = [line(k, name, "HOH", 0, place, symbol) for k, (name, symbol, place) in enumerate(places, 1)]
    (tmp_path / "x.pdb").write_text("\n".join([*text, "END"]))
    with pytest.warns(UserWarning, match="1 atoms have the name of another in their residue"):
        topology = read_topology(tmp_path / "x.pdb")
    assert [atom.element.symbol for atom in topology.atoms] == ["O", "H", "H"]
    assert bonds_of(topology) == {(0, 1), (0, 2)}


def test_atoms_without_elements_are_counted_in_the_first_model(tmp_path: Path) -> None:
    model = ["MODEL        1", line(1, " C  ", "LIG", 1, (0, 0, 0)), line(2, " O  ", "LIG", 1, (1.2, 0, 0)), "ENDMDL"]
    (tmp_path / "x.pdb").write_text("\n".join([*model, *model, *model, "END"]))
    with pytest.warns(UserWarning, match=r"2 atoms have no element; by the names .* they are 1 C, 1 O$"):
        assert len(read_models(tmp_path / "x.pdb").frames) == 3


def test_names_numbers_and_chains_do_not_make_another_topology_but_atoms_residues_and_bonds_do(
    chignolin: SimulationSystem,
) -> None:
    topology = as_mdtraj(chignolin.topology)
    same = topology.copy()
    for residue in same.residues:
        residue.name, residue.resSeq = "HSE", residue.resSeq + 100
        residue.chain.chain_id = "Q"
    assert topology_hash(same) == topology_hash(topology)
    other = topology.copy()
    other.atom(0).element = mdtraj.element.sulfur
    fewer = topology.copy()
    fewer._bonds = fewer._bonds[1:]
    assert len({topology_hash(one) for one in (topology, other, fewer)}) == 3


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy])
def test_a_copied_topology_is_the_same(
    chignolin: SimulationSystem, copied: Callable[[app.Topology], app.Topology]
) -> None:
    assert bonds_of(as_mdtraj(copied(chignolin.topology))) == bonds_of(as_mdtraj(chignolin.topology))


def test_the_solute_is_the_same_with_and_without_its_water() -> None:
    peptide = load_system("alanine-dipeptide")
    modeller = app.Modeller(peptide.topology, peptide.positions * unit.nanometer)
    modeller.addSolvent(app.ForceField("amber14-all.xml", "amber14/tip3p.xml"), numAdded=5)
    alone, solvated = as_mdtraj(peptide.topology), as_mdtraj(modeller.topology)
    assert topology_hash(alone, select_atoms(alone)) == topology_hash(solvated, select_atoms(solvated))


def test_a_frame_whose_atoms_are_in_another_order_is_refused(chignolin: SimulationSystem, tmp_path: Path) -> None:
    topology = as_mdtraj(chignolin.topology)
    positions = np.float32(chignolin.positions)
    atoms = np.arange(topology.n_atoms)
    box = np.eye(3) * 3.0
    check_bond_lengths("frame 0", topology, atoms, positions % 3.0, box)  # wrapped atom by atom
    with pytest.raises(DataError, match="bonds are too long, the first is .* nm between atoms"):
        check_bond_lengths("frame 0", topology, atoms, positions[::-1], None)
    swapped = mdtraj.Trajectory(positions[None, ::-1], topology)
    swapped.save_xtc(str(tmp_path / "x.xtc"))
    with pytest.raises(DataError, match="frame 0 of .*x.xtc does not belong to the topology"):
        check_atoms(tmp_path / "x.xtc", topology)


def test_a_pdb_that_openmm_wrote_is_the_topology_that_it_was_written_from(chignolin: SimulationSystem) -> None:
    text = io.StringIO()
    app.PDBFile.writeFile(chignolin.topology, chignolin.positions * unit.nanometer, text)
    again = app.PDBFile(io.StringIO(text.getvalue())).topology
    assert topology_hash(as_mdtraj(again)) == topology_hash(as_mdtraj(chignolin.topology))
