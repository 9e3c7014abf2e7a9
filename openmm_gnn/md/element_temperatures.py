"""The temperature of each element: do the atoms of light and heavy elements share the energy as they should?

A constraint ties the velocities of its atoms, so a degree of freedom is shared between them. In equilibrium the kinetic
energy of an atom is kT/2 times the trace of its block of P = 1 - M^-1/2 J^T (J M^-1 J^T)^-1 J M^-1/2, which projects
mass-weighted velocities on those that the constraints with gradients J allow. The oxygen of a rigid water molecule has
2.77 of its 6 degrees of freedom, not 3. Keeping the centre of mass at rest takes 3 m_i / M from atom i.
Velocities are projected in the same way first: OpenMM's Langevin integrator adds its noise after the constraints and
takes out but half of what they forbid, which makes hydrogens of rigid water 5 % too hot at 50/ps and 2 fs.
Source: Tuckerman, Statistical Mechanics: Theory and Molecular Simulation (2010), section 1.9.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import openmm
from openmm import app

from openmm_gnn.base.units import kinetic_temperature
from openmm_gnn.md.simulation_system import masses_of


@dataclass(frozen=True)
class _Clusters:
    """Groups of atoms tied by constraints, all with the same numbers of atoms and constraints."""

    atoms: np.ndarray
    """(clusters, n) atom indices."""
    constraints: np.ndarray
    """(clusters, m, 2) positions within a cluster."""


class ElementTemperatures:
    """Kinetic temperature per element of a System with constraints; virtual sites and frozen atoms have none.

    Args:
        system: masses, constraints, and whether the centre of mass is held at rest.
        topology: names the elements.
    """

    def __init__(self, system: openmm.System, topology: app.Topology) -> None:
        self._masses = masses_of(system)
        names = ["" if atom.element is None else atom.element.symbol for atom in topology.atoms()]
        present = [name for name, mass in zip(names, self._masses, strict=True) if name and mass > 0]
        self.elements = tuple(dict.fromkeys(present))
        """Symbols in the order of the topology."""
        index_of = {name: index for index, name in enumerate(self.elements)}
        self._element = np.array([index_of.get(name, -1) for name in names])
        self._element[self._masses == 0] = -1
        self._clusters = _clusters(system)
        self._center_at_rest = any(isinstance(force, openmm.CMMotionRemover) for force in system.getForces())

    def of_state(self, state: openmm.State) -> np.ndarray:
        """(elements,) K, from positions and velocities of a State that is not wrapped into the box."""
        return self(state.getPositions(asNumpy=True)._value, state.getVelocities(asNumpy=True)._value)

    def __call__(self, positions: np.ndarray, velocities: np.ndarray) -> np.ndarray:
        """Temperatures.

        Args:
            positions: (num_particles, 3), nm, constrained groups whole.
            velocities: (num_particles, 3), nm/ps.
        Returns:
            (elements,) K; NaN for an element without a degree of freedom.
        """
        weighted = np.sqrt(self._masses)[:, None] * np.asarray(velocities, dtype=np.float64)
        freedom = np.where(self._masses > 0, 3.0, 0.0)
        for clusters in self._clusters:
            directions, inverse = _forbidden(np.asarray(positions), self._masses, clusters)
            freedom[clusters.atoms] -= _traces(directions, inverse)
            weighted[clusters.atoms] -= _components(directions, inverse, weighted[clusters.atoms])
        kinetic = self._sums(0.5 * np.square(weighted).sum(axis=1))
        freedom = self._sums(self._less_center(freedom))
        return np.where(freedom > 1e-6, kinetic_temperature(kinetic, np.maximum(freedom, 1e-6)), np.nan)

    def degrees_of_freedom(self, positions: np.ndarray) -> np.ndarray:
        """(elements,) effective degrees of freedom; their sum is the number of all."""
        return self._sums(self.atom_degrees_of_freedom(positions))

    def atom_degrees_of_freedom(self, positions: np.ndarray) -> np.ndarray:
        """(num_particles,) effective degrees of freedom of each particle."""
        freedom = np.where(self._masses > 0, 3.0, 0.0)
        for clusters in self._clusters:
            freedom[clusters.atoms] -= _traces(*_forbidden(np.asarray(positions), self._masses, clusters))
        return self._less_center(freedom)

    def _less_center(self, freedom: np.ndarray) -> np.ndarray:
        return freedom - 3 * self._masses / self._masses.sum() if self._center_at_rest else freedom

    def _sums(self, values: np.ndarray) -> np.ndarray:
        known = self._element >= 0
        return np.bincount(self._element[known], weights=values[known], minlength=len(self.elements))


def _forbidden(positions: np.ndarray, masses: np.ndarray, clusters: _Clusters) -> tuple[np.ndarray, np.ndarray]:
    """The directions of mass-weighted velocity that constraints forbid.

    Returns:
        directions: (clusters, m, 3 n), J M^-1/2.
        inverse: (clusters, m, m), of J M^-1 J^T.
    """
    count, num_atoms = clusters.atoms.shape
    num_constraints = clusters.constraints.shape[1]
    where = positions[clusters.atoms]
    first, second = clusters.constraints[..., 0], clusters.constraints[..., 1]
    cluster, constraint = np.arange(count)[:, None], np.arange(num_constraints)[None, :]
    along = where[cluster, second] - where[cluster, first]
    along /= np.linalg.norm(along, axis=-1, keepdims=True)
    gradients = np.zeros((count, num_constraints, num_atoms, 3))
    gradients[cluster, constraint, second] = along
    gradients[cluster, constraint, first] = -along
    of_atoms = masses[clusters.atoms]
    root = np.where(of_atoms > 0, 1 / np.sqrt(np.where(of_atoms > 0, of_atoms, 1.0)), 0.0)  # a frozen atom stays
    directions = (gradients * root[:, None, :, None]).reshape(count, num_constraints, 3 * num_atoms)
    # The pseudo-inverse counts a constraint that follows from the others once.
    return directions, np.linalg.pinv(directions @ np.swapaxes(directions, 1, 2), rcond=1e-10, hermitian=True)


def _traces(directions: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """(clusters, n) trace of each atom's block of the projector on the forbidden directions."""
    diagonal = (directions * (inverse @ directions)).sum(axis=1)
    return diagonal.reshape(len(diagonal), -1, 3).sum(axis=2)


def _components(directions: np.ndarray, inverse: np.ndarray, weighted: np.ndarray) -> np.ndarray:
    """The forbidden part of mass-weighted velocities (clusters, n, 3)."""
    column = weighted.reshape(len(weighted), -1, 1)
    return (np.swapaxes(directions, 1, 2) @ (inverse @ (directions @ column))).reshape(weighted.shape)


def _clusters(system: openmm.System) -> list[_Clusters]:
    """Connected groups of constrained atoms, those of the same shape together."""
    parent: dict[int, int] = {}

    def root(atom: int) -> int:
        while parent.setdefault(atom, atom) != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    pairs = [tuple(system.getConstraintParameters(index)[:2]) for index in range(system.getNumConstraints())]
    for first, second in pairs:
        parent[root(first)] = root(second)
    members: dict[int, list[int]] = defaultdict(list)
    for atom in sorted(parent):
        members[root(atom)].append(atom)
    place = {atom: position for atoms in members.values() for position, atom in enumerate(atoms)}
    tied: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for first, second in pairs:
        tied[root(first)].append((place[first], place[second]))
    shapes: dict[tuple[int, int], list[int]] = defaultdict(list)
    for name, atoms in members.items():
        shapes[len(atoms), len(tied[name])].append(name)
    return [
        _Clusters(np.array([members[name] for name in names]), np.array([tied[name] for name in names]))
        for names in shapes.values()
    ]
