"""Which forces of an accelerated System act how often, and force groups that keep them apart."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

from openmm_gnn.base.errors import SpecError
from openmm_gnn.forces.gamd_force import has_bonded_terms
from openmm_gnn.md.multiple_time_steps import NUM_GROUPS
from openmm_gnn.md.simulation_system import ForcePart, part_of

if TYPE_CHECKING:
    import openmm

PLUGIN_FORCES = ("Force", "PythonForce", "TorchForce")
"""Classes of forces that machine-learned potentials are; "Force" is that of a plugin, read from a System."""
_METADYNAMICS = re.compile(r"table\(")
"""The energy of the force that OpenMM's Metadynamics makes."""


class Level(Enum):
    """How often a force acts."""

    EXPENSIVE = "expensive"
    """Once in an outer step, less the network."""
    INNER = "inner"
    """As often as the network."""
    BONDED = "bonded"
    """In each bonded substep."""
    NONE = "none"
    """What has no forces, such as a barostat."""


def levels_of(system: openmm.System, expensive: Sequence[openmm.Force | str | int] | None) -> list[Level]:
    """The level of each force of a System.

    Args:
        expensive: Forces of this System, their names, or force groups; None: all but the bonded ones.
    Raises:
        SpecError: if there is no such force, or none of them has a force.
    """
    forces = list(system.getForces())
    named = None if expensive is None else {index for one in expensive for index in _indices(forces, one)}
    levels = []
    for index, force in enumerate(forces):
        part = part_of(force)
        if part is ForcePart.NO_FORCE or (part is ForcePart.BONDED and not has_bonded_terms(force)):
            levels.append(Level.NONE)
        elif index in named if named is not None else part is ForcePart.NONBONDED:
            levels.append(Level.EXPENSIVE)
        else:
            levels.append(Level.BONDED if part is ForcePart.BONDED else Level.INNER)
        if type(force).__name__ == "CustomCVForce" and _METADYNAMICS.match(force.getEnergyFunction()):
            raise SpecError(
                "the System has the bias of an openmm.app.Metadynamics, which would go on changing this System and not "
                "the accelerated one: make the Metadynamics afterwards, with the System that `accelerate` returns"
            )
    if Level.EXPENSIVE not in levels and expensive is not None:
        raise SpecError(
            f"expensive is {list(expensive)}, none of which has a force: name those that the network learned"
        )
    if Level.EXPENSIVE not in levels:
        raise SpecError(
            "the System has bonded forces at most: nothing in it is expensive enough to accelerate, run it as it is"
        )
    if expensive is None:
        _question(forces, levels)
    return levels


def _indices(forces: Sequence[openmm.Force], one: openmm.Force | str | int) -> list[int]:
    if isinstance(one, str):
        found = [index for index, force in enumerate(forces) if one in (force.getName(), type(force).__name__)]
    elif hasattr(one, "this"):
        found = [index for index, force in enumerate(forces) if int(force.this) == int(one.this)]
    else:
        found = [index for index, force in enumerate(forces) if one in groups_of(force)]
    if not found:
        known = ", ".join(f"{force.getName()} (group {force.getForceGroup()})" for force in forces)
        raise SpecError(f"expensive has {one!r}, which is no force of the System: it has {known}")
    return found


def _question(forces: Sequence[openmm.Force], levels: Sequence[Level]) -> None:
    """Warn where a network would stand for a machine-learned potential and a force field together."""
    names = [force.getName() for force, level in zip(forces, levels, strict=True) if level is Level.EXPENSIVE]
    plugins = [
        force.getName()
        for force, level in zip(forces, levels, strict=True)
        if level is Level.EXPENSIVE and type(force).__name__ in PLUGIN_FORCES
    ]
    if plugins and len(plugins) < len(names):
        warnings.warn(
            f"the network stands for {' and '.join(names)} together, on all atoms: if it was trained on "
            f"{' and '.join(plugins)} alone, give expensive={plugins} and the atoms of that",
            stacklevel=4,
        )


def separate(
    system: openmm.System, levels: Sequence[Level]
) -> tuple[dict[int, frozenset[int]], dict[Level, list[int]]]:
    """Move forces out of groups that they share with those of another level, in place; expensive ones stay.

    Returns:
        for each force group where its forces are now, and the groups of each level in ascending order.
    """
    groups: dict[int, set[int]] = {}
    owner: dict[int, Level] = {}
    for level in (Level.EXPENSIVE, Level.BONDED, Level.INNER):
        moved: dict[int, int] = {}
        for force in [force for force, own in zip(system.getForces(), levels, strict=True) if own is level]:
            places = [(force.getForceGroup, force.setForceGroup)]
            if hasattr(force, "getReciprocalSpaceForceGroup"):
                places.append((force.getReciprocalSpaceForceGroup, force.setReciprocalSpaceForceGroup))
            for get, put in places:
                if (before := get()) < 0:
                    continue  # reciprocal space in the group of the force
                if before not in moved:
                    shared = owner.get(before, level) is not level
                    moved[before] = free_groups(system, 1, lowest=True)[0] if shared else before
                    owner[moved[before]] = level
                put(moved[before])
                groups.setdefault(before, set()).add(moved[before])
    found = {level: sorted(group for group, own in owner.items() if own is level) for level in Level}
    return {group: frozenset(now) for group, now in sorted(groups.items())}, found


def groups_of(force: openmm.Force) -> set[int]:
    """The group of a force, and that of its reciprocal space where it has another."""
    reciprocal = force.getReciprocalSpaceForceGroup() if hasattr(force, "getReciprocalSpaceForceGroup") else -1
    return {force.getForceGroup()} | ({reciprocal} if reciprocal >= 0 else set())


def free_groups(system: openmm.System, count: int, lowest: bool = False) -> list[int]:
    """Force groups that no force is in, in ascending order: the highest, or the lowest.

    Raises:
        SpecError: if there are too few.
    """
    taken = set().union(*(groups_of(force) for force in system.getForces()))
    free = [group for group in range(NUM_GROUPS) if group not in taken]
    if len(free) < count:
        raise SpecError(
            f"the forces of the System are in {len(taken)} of OpenMM's {NUM_GROUPS} force groups, and too few are "
            "left for bonded forces and network: put several forces into one"
        )
    return free[:count] if lowest else free[-count:]
