"""The forces of a network and of its teacher for a system, and checks of what forces of an isolated system must be.

They must have no net force and no net torque, and must be the gradient of an energy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.statistics import Estimate
from openmm_gnn.forces.gamd_force import gamd_force, trained_on_nonbonded
from openmm_gnn.graph.topology_tables import real_atoms, species_table
from openmm_gnn.md.contexts import choose_platform, with_model_force
from openmm_gnn.md.simulation_system import BONDED_GROUP, NONBONDED_GROUP, LabelledForces, split_groups

if TYPE_CHECKING:
    from openmm import app

    from openmm_gnn.md.simulation_system import SimulationSystem
    from openmm_gnn.networks.force_model import ForceModel

ForceFunction = Callable[[np.ndarray], np.ndarray]
"""Positions (num_atoms, 3), nm -> forces (num_atoms, 3), kJ/mol/nm."""


def learned_forces(model: ForceModel) -> LabelledForces:
    """The forces of its teacher that a network was trained on, by the bundle's metadata; all, if it does not say."""
    return LabelledForces.NONBONDED if trained_on_nonbonded(model) else LabelledForces.ALL


class NetworkForces:
    """The forces of a network for one topology, as a function of positions; those of virtual sites are zero.

    Args:
        box: (3, 3), nm, for calls without a box; None: open space.
    Raises:
        TopologyError: if the topology has an element the network does not know.
    """

    def __init__(self, model: ForceModel, topology: Any, box: np.ndarray | None) -> None:
        from openmm_gnn.forces.modules.openmm_module import script_module

        self._module = script_module(model, topology)
        self._box = box

    def __call__(self, positions: np.ndarray, box: np.ndarray | None = None) -> np.ndarray:
        """(num_particles, 3) nm -> (num_particles, 3) kJ/mol/nm."""
        import torch

        box = self._box if box is None else box
        vectors = None if box is None else torch.from_numpy(np.array(box, dtype=np.float64))
        _, forces = self._module(torch.from_numpy(np.array(positions, dtype=np.float64)), vectors)
        return forces.detach().cpu().numpy()


class Teacher:
    """A System's own energy and forces.

    Args:
        part: the forces that `forces` returns; the energy is always the total.
    """

    def __init__(self, system: SimulationSystem, part: LabelledForces, platform: str = "auto") -> None:
        grouped = copy.deepcopy(system.system)
        split_groups(grouped)
        self._groups = {NONBONDED_GROUP} if part is LabelledForces.NONBONDED else {BONDED_GROUP, NONBONDED_GROUP}
        self._context = openmm.Context(
            grouped, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName(choose_platform(platform))
        )

    def energy(self, positions: np.ndarray, box: np.ndarray | None = None) -> float:
        """Potential energy, kJ/mol; in this box, or the System's."""
        self._set_positions(positions, box)
        return float(self._context.getState(energy=True).getPotentialEnergy()._value)

    def forces(self, positions: np.ndarray, box: np.ndarray | None = None) -> np.ndarray:
        """(num_particles, 3), kJ/mol/nm; in this box, or the System's."""
        self._set_positions(positions, box)
        state = self._context.getState(forces=True, groups=self._groups)
        return np.array(state.getForces(asNumpy=True)._value)

    def _set_positions(self, positions: np.ndarray, box: np.ndarray | None) -> None:
        if box is not None:
            self._context.setPeriodicBoxVectors(*np.asarray(box, dtype=np.float64))
        self._context.setPositions(np.asarray(positions, dtype=np.float64))
        self._context.computeVirtualSites()


def network_system(
    system: SimulationSystem,
    model: ForceModel,
    part: LabelledForces,
    backend: str = "auto",
    box: np.ndarray | None = None,
) -> openmm.System:
    """A copy of a System with a network in place of the forces it has learned; constraints stay.

    Args:
        box: (3, 3), nm, in place of the System's.
    Raises:
        TopologyError: if the topology has an element the network does not know.
    """
    force = gamd_force(model, system.topology, backend=backend, periodic=system.system)
    replaced = with_model_force(system.system, force, keep_bonded=part is LabelledForces.NONBONDED)
    if box is not None:
        replaced.setDefaultPeriodicBoxVectors(*np.asarray(box, dtype=np.float64))
    return replaced


@dataclass(frozen=True)
class ReferenceFrame:
    """Positions with the teacher's forces on them."""

    positions: np.ndarray
    """(num_particles, 3), nm."""
    box: np.ndarray | None
    """(3, 3), nm."""
    forces: np.ndarray
    """(num_particles, 3), kJ/mol/nm."""


def check_teacher(system: SimulationSystem, model: ForceModel) -> None:
    """Whether a System can validate a network; cheap, before long work.

    Raises:
        TopologyError: if the topology has an element the network does not know.
        SpecError: if the System has a barostat.
    """
    species_table(system.topology, model.spec.elements)
    for force in system.system.getForces():
        if "Barostat" in type(force).__name__:
            raise SpecError(
                f"{system.name} has a {type(force).__name__}, and a network is validated at constant volume: give a "
                "System, or data labelled with one, that has none"
            )


def atomic_numbers(system: SimulationSystem) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the real atoms, and their atomic numbers."""
    atoms = np.array(real_atoms(system.topology))
    elements = [atom.element for atom in system.topology.atoms() if atom.element is not None]
    return atoms, np.array([element.atomic_number for element in elements])


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
    from openmm import app

    from openmm_gnn.analysis.observables import molecules_of

    of_atom = molecules_of(mdtraj.Topology.from_openmm(topology), "all").of_atom
    positions = np.array(positions, dtype=np.float64)
    first = np.unique(of_atom, return_index=True)[1]
    relative = positions[first] - positions[first[0]]
    if box is not None:
        shift = np.rint(relative @ np.linalg.inv(box)) @ box
        positions, relative = positions - shift[of_atom], relative - shift
    inside = np.isin(of_atom, np.argsort(np.linalg.norm(relative, axis=1))[:num_molecules])
    part = app.Modeller(topology, positions)
    part.delete([atom for atom in topology.atoms() if not inside[atom.index]])
    part.topology.setPeriodicBoxVectors(None)
    return part.topology, positions[inside]
