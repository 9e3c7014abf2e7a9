"""Checks of what forces of an isolated system must be: without net force and torque, and the gradient of an energy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.base.statistics import Estimate

if TYPE_CHECKING:
    from openmm import app

ForceFunction = Callable[[np.ndarray], np.ndarray]
"""Positions (num_atoms, 3), nm -> forces (num_atoms, 3), kJ/mol/nm."""


def relative_net_force(forces: np.ndarray) -> float:
    """|sum of forces| per atom, relative to the mean norm of a force."""
    forces = np.asarray(forces, dtype=np.float64)
    return float(np.linalg.norm(forces.sum(axis=0)) / np.linalg.norm(forces, axis=1).sum())


def relative_net_torque(positions: np.ndarray, forces: np.ndarray) -> float:
    """|sum of r x F| about the centre, relative to the sum of |r| |F|; of atoms in open space."""
    relative = np.asarray(positions, dtype=np.float64) - np.mean(positions, axis=0)
    torque = np.linalg.norm(np.cross(relative, forces).sum(axis=0))
    return float(torque / (np.linalg.norm(relative, axis=1) * np.linalg.norm(forces, axis=1)).sum())


def relative_difference(values: np.ndarray, reference: np.ndarray) -> float:
    """Root mean square of the difference over that of the reference."""
    return float(np.linalg.norm(values - reference) / np.linalg.norm(reference))


def jacobian_asymmetry(
    forces: ForceFunction,
    positions: np.ndarray,
    num_probes: int = 16,
    step_nm: float = 2e-4,
    seed: int = 0,
    report: Callable[[int], None] = lambda _: None,
) -> Estimate:
    """||J - J^T|| / ||J|| (Frobenius) of J = dF/dx: 0 for the gradient of an energy, 2 for a pure rotation.

    With Gaussian probes v_1 .. v_m the mean of |J v_k|^2 is ||J||^2, and that of (v_k J v_l - v_l J v_k)^2 over pairs
    k < l is ||J - J^T||^2: m products with J give m (m - 1) / 2 samples. A product is a central difference of the
    forces in which every atom moves by about `step_nm`.
    Source: Hutchinson, Commun. Stat. Simul. Comput. 19, 433 (1990), doi 10.1080/03610919008812866; the quantity is that
    of Bigi, Langer, Ceriotti, arXiv 2412.11569 (2024).

    Args:
        positions: (num_atoms, 3), nm.
        report: called with the number of probes done.
    Returns:
        The value, and its standard error by leaving out one probe after the other (the jackknife).
    """
    positions = np.asarray(positions, dtype=np.float64)
    probes = np.random.default_rng(seed).normal(size=(num_probes, *positions.shape))
    products = np.empty_like(probes)
    for index, probe in enumerate(probes):
        ahead, behind = (np.asarray(forces(positions + sign * step_nm * probe), dtype=np.float64) for sign in (1, -1))
        products[index] = (ahead - behind) / (2 * step_nm)
        report(index + 1)
    flat, images = probes.reshape(num_probes, -1), products.reshape(num_probes, -1)
    between = flat @ images.T
    antisymmetric = np.square(between - between.T)
    squares = np.square(images).sum(axis=1)
    return _jackknife(antisymmetric, squares)


def _jackknife(antisymmetric: np.ndarray, squares: np.ndarray) -> Estimate:
    """The root of the ratio of both means, and its error; the diagonal of the first is zero."""
    count = len(squares)
    pairs, total = antisymmetric.sum() / 2, squares.sum()
    value = np.sqrt(pairs / (count * (count - 1) / 2) / (total / count))
    left_pairs = (pairs - antisymmetric.sum(axis=1)) / ((count - 1) * (count - 2) / 2)
    left = np.sqrt(left_pairs / ((total - squares) / (count - 1)))
    error = np.sqrt((count - 1) / count * np.square(left - left.mean()).sum())
    return Estimate(float(value), float(error))


def random_rotation(seed: int) -> np.ndarray:
    """A random proper rotation, (3, 3)."""
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return turn * np.sign(np.linalg.det(turn))


def droplet(
    topology: app.Topology, positions: np.ndarray, box: np.ndarray | None, num_molecules: int = 40
) -> tuple[app.Topology, np.ndarray]:
    """The molecules nearest to the first one, in open space, where a torque can be measured.

    Args:
        positions: (num_particles, 3), nm, molecules whole.
        box: (3, 3), nm; None: open space already.
    Returns:
        Topology without a box, and positions (particles kept, 3).
    """
    import mdtraj

    from openmm_gnn.analysis.molecules import molecules_of

    of_atom = molecules_of(mdtraj.Topology.from_openmm(topology), "all").of_atom
    positions = np.array(positions, dtype=np.float64)
    first = np.unique(of_atom, return_index=True)[1]
    relative = positions[first] - positions[first[0]]
    if box is not None:
        shift = np.rint(relative @ np.linalg.inv(box)) @ box
        positions, relative = positions - shift[of_atom], relative - shift
    kept = set(np.argsort(np.linalg.norm(relative, axis=1))[:num_molecules].tolist())
    atoms = [atom for atom in topology.atoms() if of_atom[atom.index] in kept]
    return _part_of(topology, atoms), positions[[atom.index for atom in atoms]]


def _part_of(topology: app.Topology, atoms: list) -> app.Topology:
    """A topology of some atoms, with their residues and the bonds between them."""
    from openmm import app

    part = app.Topology()
    chain, residues, copies = part.addChain(), {}, {}
    for atom in atoms:
        if atom.residue not in residues:
            residues[atom.residue] = part.addResidue(atom.residue.name, chain)
        copies[atom] = part.addAtom(atom.name, atom.element, residues[atom.residue])
    for bond in topology.bonds():
        if bond[0] in copies and bond[1] in copies:
            part.addBond(copies[bond[0]], copies[bond[1]])
    return part
