"""Molecules of life in implicit solvent: hydrogens, Amber or CHARMM36, and OBC2, with the solvent compiled."""

from __future__ import annotations

import io
import random
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from openmm_gnn.base.errors import TopologyError
from openmm_gnn.md.systems.peptides import RESIDUE_NAMES

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


_RESIDUES = frozenset({*RESIDUE_NAMES.values(), "HSD", "HSE", "HSP"})


@cache
def charmm_protein_xml() -> str:
    """charmm36.xml of OpenMM without lipids, sugars, nucleotides and model compounds.

    OpenMM tries each patch on each residue that it knows whenever a chain has ends: with all of them 8 s for any
    peptide. And capped alanine is among the model compounds too, under two names, so that it would not know which.
    """
    from openmm import app

    tree = ElementTree.parse(Path(app.__file__).parent / "data" / "charmm36.xml")
    residues = tree.getroot().find("Residues")
    assert residues is not None
    for residue in list(residues):
        if residue.get("name") not in _RESIDUES:
            residues.remove(residue)
    return ElementTree.tostring(tree.getroot(), encoding="unicode")


def charmm_protein_force_field(solvent: str) -> app.ForceField:
    """The force field with an implicit solvent of OpenMM, such as implicit/obc2.xml."""
    from openmm import app

    return app.ForceField(io.StringIO(charmm_protein_xml()), solvent)


def with_caps_as_patches(topology: app.Topology) -> app.Topology:
    """A copy in which ACE and NME belong to the residue beside them, as in CHARMM; atoms stay in their order."""
    from openmm import app

    merged, atoms = app.Topology(), []
    for chain in topology.chains():
        copy, current, capped = merged.addChain(chain.id), None, False
        for residue in chain.residues():
            if current is None or not (capped or residue.name == "NME"):
                current = merged.addResidue(residue.name, copy, residue.id)
            capped = residue.name == "ACE"
            atoms += [merged.addAtom(atom.name, atom.element, current) for atom in residue.atoms()]
    for bond in topology.bonds():
        merged.addBond(atoms[bond[0].index], atoms[bond[1].index])
    return merged


def with_compiled_dispersion(system: openmm.System) -> None:
    """Put Lennard-Jones into the force of the charges, in place of tables by pair of types, which take 5 times as long.

    CHARMM combines the lengths by their arithmetic and the depths by their geometric mean, as OpenMM does; but for the
    few pairs that have values of their own. A System with such a pair stays as it is.
    """

    forces = {force.getName(): force for force in system.getForces()}
    tabled, near, charges = (forces.get(name) for name in ("LennardJones", "LennardJones14", "NonbondedForce"))
    if tabled is None or near is None or charges is None:
        return
    types, first, second = _tables(tabled)
    used = np.unique(types)
    repulsion, attraction = first[used][:, used], second[used][:, used]
    sigma = np.where(np.diag(attraction) > 0, np.diag(repulsion) / np.maximum(np.diag(attraction), 1e-300), 1.0) ** (
        1 / 6
    )
    epsilon = np.diag(attraction) ** 2 / np.maximum(4 * np.diag(repulsion), 1e-300)
    length, depth = (sigma[:, None] + sigma) / 2, np.sqrt(epsilon[:, None] * epsilon)
    if not np.allclose(4 * depth * length**6, attraction, rtol=1e-5):
        return
    number = {kind: k for k, kind in enumerate(used)}
    for atom, kind in enumerate(types):
        charge, _, _ = charges.getParticleParameters(atom)
        charges.setParticleParameters(atom, charge, sigma[number[kind]], epsilon[number[kind]])
    pairs = {}
    for k in range(near.getNumBonds()):
        i, j, parameters = near.getBondParameters(k)
        pairs[min(i, j), max(i, j)] = parameters
    for k in range(charges.getNumExceptions()):
        i, j, product, _, _ = charges.getExceptionParameters(k)
        own = pairs.pop((min(i, j), max(i, j)), (1.0, 0.0))
        charges.setExceptionParameters(k, i, j, product, *own)
    for (i, j), own in pairs.items():
        charges.addException(i, j, 0.0, *own)
    for index in reversed(range(system.getNumForces())):
        if system.getForce(index).getName() in ("LennardJones", "LennardJones14"):
            system.removeForce(index)


def _tables(force: openmm.CustomNonbondedForce) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Type of each atom (num_atoms,), and the factors of r^-12 and r^-6 (types, types); kJ/mol and nm."""
    types = np.array([int(force.getParticleParameters(atom)[0]) for atom in range(force.getNumParticles())])
    tables = []
    for k in range(2):
        width, height, values = force.getTabulatedFunction(k).getFunctionParameters()
        tables.append(np.array(values).reshape(height, width))
    return types, tables[0], tables[1]
