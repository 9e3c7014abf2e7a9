"""Molecules broken over the faces of boxes and made whole again, against the positions before, and mdtraj."""

from __future__ import annotations

import itertools

import mdtraj
import numpy as np
import openmm.app
import pytest
import torch

from openmm_gnn.base.errors import TopologyError
from openmm_gnn.features.selection import select_atoms
from openmm_gnn.features.topologies import as_mdtraj
from openmm_gnn.features.whole_molecules import WholeMolecules

BOXES = {
    "cube": np.eye(3) * 5.0,
    "bricks": np.diag([5.0, 4.4, 6.1]),
    "triclinic": np.array([[5.0, 0, 0], [2.1, 4.9, 0], [-1.7, 2.0, 4.6]]),
    "truncated octahedron": 5.5 * np.array([[1, 0, 0], [1 / 3, 8**0.5 / 3, 0], [-1 / 3, 2**0.5 / 3, 6**0.5 / 3]]),
}


def wrapped(positions: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Every atom on its own in the primary cell."""
    fractions = positions @ np.linalg.inv(box)
    return (fractions - np.floor(fractions)) @ box


def whole(molecules: WholeMolecules, positions: np.ndarray, box: np.ndarray) -> np.ndarray:
    frames = torch.from_numpy(positions[None, molecules.atoms])
    return molecules(frames, torch.from_numpy(box[None]))[0].numpy()


@pytest.fixture(scope="module")
def topology(villin: openmm.app.PDBFile) -> mdtraj.Topology:
    return as_mdtraj(villin.topology)


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
@pytest.mark.parametrize("selection", [None, "name CA", "protein and element H"])
def test_a_protein_wrapped_atom_by_atom_is_whole_again(
    topology: mdtraj.Topology, villin_positions: np.ndarray, box: np.ndarray, selection: str | None
) -> None:
    atoms = select_atoms(topology, selection)
    molecules = WholeMolecules(topology, atoms)
    for offset in ([0.0, 0.0, 0.0], [1.3, -2.2, 17.0], [2.4, 2.4, 2.4]):
        moved = villin_positions + offset
        found = whole(molecules, wrapped(moved, box), box)
        shift = found[0] - moved[atoms[0]]
        np.testing.assert_allclose(found, moved[atoms] + shift, atol=1e-11)
        np.testing.assert_allclose(shift @ np.linalg.inv(box), np.round(shift @ np.linalg.inv(box)), atol=1e-11)


def test_only_the_selected_atoms_and_those_on_the_bonds_between_them_are_read(topology: mdtraj.Topology) -> None:
    heavy = select_atoms(topology)
    np.testing.assert_array_equal(WholeMolecules(topology, heavy).atoms, heavy)
    alpha = topology.select("name CA")
    read = set(WholeMolecules(topology, alpha).atoms.tolist())
    backbone = topology.select("backbone and not name O")
    ends = {backbone[0], backbone[-1]}  # the first N and the last C lead nowhere
    assert read == set(backbone.tolist()) - ends


def test_agrees_with_mdtraj(topology: mdtraj.Topology, villin_positions: np.ndarray, villin_box: np.ndarray) -> None:
    protein = topology.select("protein")
    broken = wrapped(villin_positions + np.array([2.0, 0.3, 1.0]), villin_box)
    trajectory = mdtraj.Trajectory(broken[protein].astype(np.float32), topology.subset(protein))
    trajectory.unitcell_vectors = villin_box[None].astype(np.float32)
    expected = trajectory.make_molecules_whole().xyz[0]
    found = whole(WholeMolecules(topology, protein), broken, villin_box)
    np.testing.assert_allclose(found - found.mean(0), expected - expected.mean(0), atol=2e-6)


def test_the_extent_of_a_molecule_is_in_lengths_of_the_box(
    topology: mdtraj.Topology, villin_positions: np.ndarray
) -> None:
    molecules = WholeMolecules(topology, select_atoms(topology, "protein or water"))
    protein = villin_positions[topology.select("protein")]
    for edge in (2.0, 5.0):
        whole_frame = torch.from_numpy(villin_positions[molecules.atoms][: molecules.num_selected])
        found = molecules.extent(whole_frame, torch.eye(3, dtype=torch.float64) * edge)
        assert found == pytest.approx(np.ptp(protein, axis=0).max() / edge, rel=1e-12)


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_other_molecules_come_to_the_image_nearest_to_the_first(box: np.ndarray) -> None:
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for number in range(40):
        residue = topology.add_residue("NO", chain, resSeq=number)
        first = topology.add_atom("N", mdtraj.element.nitrogen, residue)
        topology.add_bond(first, topology.add_atom("O", mdtraj.element.oxygen, residue))
    rng = np.random.default_rng(3)
    centers = rng.uniform(0, 1, (40, 3)) @ box
    half = 0.05 * rng.normal(size=(40, 3))
    positions = np.stack([centers - half, centers + half], axis=1).reshape(80, 3)
    molecules = WholeMolecules(topology, np.arange(80))
    found = whole(molecules, wrapped(positions, box), box)
    for number in range(40):
        np.testing.assert_allclose(found[2 * number + 1] - found[2 * number], 2 * half[number], atol=1e-12)
    away = found.reshape(40, 2, 3).mean(1) - found[:2].mean(0)
    grid = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), -1).reshape(-1, 3) @ box
    nearest = np.linalg.norm((centers - centers[0])[:, None] + grid, axis=2).min(1)
    np.testing.assert_allclose(np.linalg.norm(away, axis=1), nearest, atol=1e-11)


def test_frames_with_boxes_of_their_own_are_independent(
    topology: mdtraj.Topology, villin_positions: np.ndarray
) -> None:
    molecules = WholeMolecules(topology, select_atoms(topology))
    boxes = np.stack(list(BOXES.values()))
    frames = np.stack([wrapped(villin_positions, box) for box in boxes])
    together = molecules(torch.from_numpy(frames[:, molecules.atoms]), torch.from_numpy(boxes)).numpy()
    for number, box in enumerate(boxes):
        np.testing.assert_array_equal(together[number], whole(molecules, frames[number], box))


def test_a_ligand_without_bonds_is_held_together_as_a_residue(zoo: mdtraj.Topology) -> None:
    water = zoo.select("resname HOH QQQ and not element VS")
    positions = np.zeros((zoo.n_atoms, 3))
    positions[water] = [[0.1, 0.1, 0.1], [0.05, -0.1, 0.1], [0.1, 0.1, -0.1], *np.full((3, 3), 1.0)]
    box = np.eye(3) * 3.0
    found = whole(WholeMolecules(zoo, water), wrapped(positions, box), box)
    np.testing.assert_allclose(found, positions[water], atol=1e-12)


def test_a_topology_without_any_bonds_is_refused_in_a_box_unless_it_is_atoms() -> None:
    topology = mdtraj.Topology()
    chain = topology.add_chain()
    for _ in range(2):
        residue = topology.add_residue("GLY", chain)
        for name in "NC":
            topology.add_atom(name, mdtraj.element.get_by_symbol(name), residue)
    frame, box = torch.zeros((1, 4, 3), dtype=torch.float64), torch.eye(3, dtype=torch.float64)[None]
    with pytest.raises(TopologyError, match="no bonds.*create_standard_bonds.*no box vectors"):
        WholeMolecules(topology, np.arange(4))(frame, box)
    argon = mdtraj.Topology()
    chain = argon.add_chain()
    for _ in range(4):
        argon.add_atom("AR", mdtraj.element.argon, argon.add_residue("AR", chain))
    assert WholeMolecules(argon, np.arange(4))(frame, box).shape == (1, 4, 3)


def test_rings_and_long_chains_are_followed_to_their_ends() -> None:
    """A ring of 1,000 atoms, and a chain of 1,000, far longer than the box, which is right by bonds alone."""
    for closed in (True, False):
        topology = mdtraj.Topology()
        residue = topology.add_residue("POL", topology.add_chain())
        atoms = [topology.add_atom(f"C{k}", mdtraj.element.carbon, residue) for k in range(1000)]
        for first, second in itertools.pairwise(atoms):
            topology.add_bond(first, second)
        if closed:
            topology.add_bond(atoms[0], atoms[-1])
            angles = np.arange(1000) * 2 * np.pi / 1000
            positions = 15.0 * np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1)
        else:
            positions = np.arange(1000)[:, None] * np.array([0.08, 0.05, 0.02])
        found = whole(WholeMolecules(topology, np.arange(1000)), wrapped(positions, np.eye(3)), np.eye(3))
        np.testing.assert_allclose(found - found[0], positions - positions[0], atol=1e-11)
