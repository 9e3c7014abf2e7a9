"""Molecules of life in implicit solvent: hydrogens, a force field and OBC2, with the solvent compiled."""

from __future__ import annotations

import random
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.base.errors import TopologyError
from openmm_gnn.md.systems.charmm_proteins import (
    charmm_protein_force_field,
    with_caps_as_patches,
    with_compiled_dispersion,
)

if TYPE_CHECKING:
    import openmm
    from openmm import app


class ImplicitForceField(str, Enum):
    """Force fields that go with OBC2."""

    AMBER14 = "amber14"
    """Proteins, DNA and RNA."""
    CHARMM36 = "charmm36"
    """Proteins."""


_AMBER14, _OBC2 = "amber14-all.xml", "implicit/obc2.xml"
HYDROGEN_MASS = 3.0
"""Dalton; taken from the heavy atoms, for time steps of 4 fs."""
_OBC_OFFSET_NM = 0.009
"""Between an atom's radius and the one the formula takes."""


def with_hydrogens(
    topology: app.Topology, positions: np.ndarray, generator: np.random.Generator
) -> tuple[app.Topology, np.ndarray]:
    """Topology and positions (num_atoms, 3), nm, of heavy atoms and the hydrogens they lack; the same for one seed."""
    import openmm
    from openmm import app, unit

    modeller = app.Modeller(topology, positions * unit.nanometer)
    state = random.getstate()
    random.seed(int(generator.integers(2**31)))  # Modeller starts hydrogens at random places
    try:
        modeller.addHydrogens(platform=openmm.Platform.getPlatformByName("Reference"))
    finally:
        random.setstate(state)
    return modeller.topology, np.array(modeller.positions.value_in_unit(unit.nanometer))


def in_implicit_solvent(
    topology: app.Topology, force_field: ImplicitForceField = ImplicitForceField.AMBER14
) -> openmm.System:
    """The System of a molecule with OBC2: bonds of hydrogen rigid, hydrogens of 3 Da, open boundaries.

    Raises:
        TopologyError: if the force field does not know a residue.
    """
    from openmm import app, unit

    named = with_caps_as_patches(topology) if force_field is ImplicitForceField.CHARMM36 else topology
    try:
        system = read_force_field(force_field).createSystem(
            named,
            nonbondedMethod=app.NoCutoff,
            constraints=app.HBonds,
            hydrogenMass=HYDROGEN_MASS * unit.dalton,
        )
    except ValueError as error:  # what OpenMM raises where no template fits
        raise TopologyError(f"{force_field.value} cannot make a System: {error}") from error
    with_compiled_dispersion(system)
    with_compiled_solvent(system)
    return system


@cache
def read_force_field(force_field: ImplicitForceField) -> app.ForceField:
    """With its solvent; read once."""
    from openmm import app

    if force_field is ImplicitForceField.CHARMM36:
        return charmm_protein_force_field(_OBC2)
    return app.ForceField(_AMBER14, _OBC2)


def with_compiled_solvent(system: openmm.System) -> None:
    """Put OpenMM's own OBC2 force in place of the same one written as a formula, which takes 7 times as long."""
    import openmm

    for index in reversed(range(system.getNumForces())):
        written = system.getForce(index)
        if isinstance(written, openmm.CustomGBForce):
            compiled = openmm.GBSAOBCForce()
            compiled.setNonbondedMethod(openmm.GBSAOBCForce.NoCutoff)
            for atom in range(written.getNumParticles()):
                charge, reduced, scaled = written.getParticleParameters(atom)
                compiled.addParticle(charge, reduced + _OBC_OFFSET_NM, scaled / reduced)
            system.removeForce(index)
            system.addForce(compiled)
