"""The systems that have a name.

A new one is a function of the number of its molecules that returns a `SimulationSystem`, and an entry here.
"""

from __future__ import annotations

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.md.simulation_system import SimulationSystem
from openmm_gnn.md.systems.argon import argon
from openmm_gnn.md.systems.water import amoeba_water, tip3p, tip4pew

NAMED_SYSTEMS = {"argon": argon, "tip3p": tip3p, "tip4pew": tip4pew, "amoeba-water": amoeba_water}


def named_system(name: str, num_molecules: int | None = None) -> SimulationSystem:
    """A system by its name; `num_molecules` keeps the density, the box grows.

    Raises:
        DataError: if there is none of that name.
        SpecError: if there cannot be so few molecules.
    """
    if name not in NAMED_SYSTEMS:
        raise DataError(f"there is no system called {name!r}: give one of {sorted(NAMED_SYSTEMS)}")
    if num_molecules is None:
        return NAMED_SYSTEMS[name]()
    if num_molecules < 1:
        raise SpecError(f"the number of molecules is {num_molecules}: give at least 1")
    return NAMED_SYSTEMS[name](num_molecules)
