"""A system under a network's forces, alone or with its own bonded terms, and the forces of its teacher."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm

from openmm_gnn.forces.gamd_force import gamd_force, trained_on_nonbonded
from openmm_gnn.graph.topology_tables import real_atoms, species_table
from openmm_gnn.md.contexts import choose_platform, with_model_force
from openmm_gnn.md.simulation_system import BONDED_GROUP, NONBONDED_GROUP, LabelledForces, split_groups

if TYPE_CHECKING:
    from openmm_gnn.md.simulation_system import SimulationSystem
    from openmm_gnn.networks.force_model import ForceModel


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
        SpecError: if the System has a barostat.
    """
    force = gamd_force(model, system.topology, backend=backend)
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


def check_model_knows(system: SimulationSystem, model: ForceModel) -> None:
    """TopologyError if the topology has an element the network does not know; a cheap check before long work."""
    species_table(system.topology, model.spec.elements)


def atomic_numbers(system: SimulationSystem) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the real atoms, and their atomic numbers."""
    atoms = np.array(real_atoms(system.topology))
    elements = [atom.element for atom in system.topology.atoms() if atom.element is not None]
    return atoms, np.array([element.atomic_number for element in elements])
