"""The systems that have a name; peptides are built from their sequences, in implicit solvent.

A new one is a function of the number of its molecules that returns a `SimulationSystem`, and an entry here.
"""

from __future__ import annotations

import numpy as np

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.md.implicit_solvent import in_implicit_solvent, with_hydrogens
from openmm_gnn.md.simulation_system import SimulationSystem, Thermostat
from openmm_gnn.md.systems.argon import argon
from openmm_gnn.md.systems.peptides import Peptide, build_peptide
from openmm_gnn.md.systems.structure_files import relaxed
from openmm_gnn.md.systems.water import amoeba_water, tip3p, tip4pew

NAMED_PEPTIDES = {
    "alanine-dipeptide": Peptide("A"),
    "chignolin": Peptide("YYDPETGTWY", acetylated=False, methylated=False),
    "pentapeptide": Peptide("WLALL", acetylated=False, methylated=False),
}
"""Chignolin is the variant CLN025; unfolded, as its torsions are drawn at random."""
_SEED = 1


def named_peptide(name: str) -> SimulationSystem:
    """A peptide of `NAMED_PEPTIDES`: amber14, OBC2, hydrogens of 3 Da and steps of 4 fs, 300 K.

    The same start each time, without clashes; the random torsions are forgotten in nanoseconds, not in the
    equilibration.
    """
    generator = np.random.default_rng(_SEED)
    topology, positions = with_hydrogens(*build_peptide(NAMED_PEPTIDES[name], generator), generator)
    system = in_implicit_solvent(topology)
    return SimulationSystem(
        name=name,
        system=system,
        topology=topology,
        positions=positions,
        time_step_ps=0.004,
        thermostat=Thermostat.LANGEVIN,
        friction_per_ps=1.0,
        equilibration_ps=10.0,
        prepare=relaxed(system, positions),
    )


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
