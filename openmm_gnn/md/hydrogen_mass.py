"""Heavier hydrogens: mass moved from an atom to the hydrogens bonded to it, so that steps can be longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openmm_gnn.base.errors import SpecError, TopologyError

if TYPE_CHECKING:
    import openmm
    from openmm import app

HYDROGEN = 1


def repartition_hydrogen_mass(system: openmm.System, topology: app.Topology, mass: float) -> None:
    """Give every bonded hydrogen this mass in dalton, in place; the atom it is bonded to gives what that takes.

    The mass of each molecule stays, and so does every average over configurations; velocities of hydrogens, and
    slightly those of molecules that turn, do not.

    Raises:
        SpecError: if the mass is not above 0, or a heavy atom would be left lighter than its hydrogens.
        TopologyError: if the topology has no bonded hydrogen.
    Source: Feenstra, Hess, Berendsen, J. Comput. Chem. 20, 786 (1999).
    """
    from openmm import unit

    if not 0 < mass < float("inf"):
        raise SpecError(f"hydrogen_mass is {mass} dalton: give a finite mass above 0, such as 3")
    masses = [system.getParticleMass(index).value_in_unit(unit.dalton) for index in range(system.getNumParticles())]
    names = {}
    for bond in topology.bonds():
        for heavy, hydrogen in ((bond[0], bond[1]), (bond[1], bond[0])):
            if hydrogen.element is None or hydrogen.element.atomic_number != HYDROGEN or masses[hydrogen.index] == 0:
                continue
            if heavy.element is None or heavy.element.atomic_number == HYDROGEN:
                continue
            masses[heavy.index] -= mass - masses[hydrogen.index]
            masses[hydrogen.index] = mass
            names[heavy.index] = f"{heavy.name} of {heavy.residue.name}{heavy.residue.id}"
    if not names:
        raise TopologyError("hydrogen_mass is given, but the topology has no bonded hydrogen: give one with its bonds")
    for index, name in names.items():
        if masses[index] < mass:
            raise SpecError(
                f"hydrogen_mass {mass} dalton would leave {masses[index]:.3f} dalton to atom {index} ({name}): "
                "give a smaller one"
            )
    for index, value in enumerate(masses):
        system.setParticleMass(index, value)
