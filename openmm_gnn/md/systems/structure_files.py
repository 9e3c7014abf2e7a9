"""Structures from PDB and PDBx/mmCIF files, and the Systems that force-field files make of them."""

from __future__ import annotations

import copy
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.base.boxes import box_words, can_be_box
from openmm_gnn.base.elements import is_site, parsed_elements
from openmm_gnn.base.errors import DataError, SpecError, TopologyError
from openmm_gnn.base.units import nanometers
from openmm_gnn.md.simulation_system import SimulationSystem, Thermostat, masses_of
from openmm_gnn.md.systems.pdb_text import completed

if TYPE_CHECKING:
    import openmm
    from openmm import app

_CELL_OF_ZEROS = re.compile(r"^_cell\.length_[abc]\s+0*\.?0*\s*$", re.MULTILINE)
STRUCTURE_SUFFIXES = (".cif", ".ent", ".mmcif", ".pdb", ".pdbx")


@dataclass(frozen=True)
class Structure:
    """What a PDB or PDBx/mmCIF file holds."""

    topology: app.Topology
    frames: list[np.ndarray]
    """(num_atoms, 3) nm of each model."""

    @property
    def box_vectors(self) -> np.ndarray | None:
        """(3, 3) nm, rows a, b, c, as the file has them, a placeholder too; None where it has none."""
        vectors = self.topology.getPeriodicBoxVectors()
        return None if vectors is None else np.array([nanometers(vector) for vector in vectors])


def read_models(path: Path, elements: Mapping[str, str] | Sequence[str] = ()) -> Structure:
    """All models of a file; atoms whose element neither the file nor the names say have none in the topology.

    What is taken from names is said in a warning.

    Args:
        elements: see `elements.parsed_elements`.
    Raises:
        DataError: if the file is missing, of another kind or cannot be read, or its models have other atoms.
    """
    from openmm import app, unit

    suffix = path.suffix.lower()
    if suffix not in STRUCTURE_SUFFIXES:
        raise DataError(f"the topology {path} ends in {path.suffix!r}: give one of {list(STRUCTURE_SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"there is no file {path}: check the path of the topology")
    given = parsed_elements(elements)
    try:
        if suffix in (".pdb", ".ent"):
            text, said = completed(path.read_text(), given)
            for sentence in said:
                warnings.warn(f"{path}: {sentence}", stacklevel=2)
            structure = app.PDBFile(io.StringIO(text))
        else:
            text = path.read_text()
            if _CELL_OF_ZEROS.search(text):  # as some programs say that there is none; OpenMM divides by it
                text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("_cell."))
            structure = app.PDBxFile(io.StringIO(text))
        frames = [
            np.array(structure.getPositions(asNumpy=True, frame=index).value_in_unit(unit.nanometer))
            for index in range(structure.getNumFrames())
        ]
    except Exception as error:  # OpenMM's parsers raise whatever the text makes them stumble over
        raise DataError(f"{path} cannot be read as a structure: {error or type(error).__name__}") from error
    for index, frame in enumerate(frames):
        if len(frame) != len(frames[0]):
            raise DataError(
                f"model {index + 1} of {path} has {len(frame)} atoms, the first has {len(frames[0])}: give a file "
                "whose models have the same atoms"
            )
    return Structure(structure.topology, frames)


def read_structure(path: Path) -> tuple[app.Topology, np.ndarray]:
    """The topology of a file, and the positions of its first model, (num_atoms, 3) in nm.

    Raises:
        DataError: if the file is missing, of another kind or cannot be read, or the element of an atom is unknown.
    """
    structure = read_models(path)
    _leave_out_placeholder(structure, path)
    unknown = [atom for atom in structure.topology.atoms() if atom.element is None and not is_site(atom)]
    if unknown:
        first = unknown[0]
        raise DataError(
            f"{path} does not say the element of {len(unknown)} atoms, the first is atom {first.index} ({first.name} "
            f"of {first.residue.name}{first.residue.id}): write it into columns 77-78"
        )
    return structure.topology, structure.frames[0]


def _leave_out_placeholder(structure: Structure, path: Path) -> None:
    """Take the box from a topology where it is none, such as the CRYST1 1 1 1 of structures by NMR, and say so."""
    vectors, num_atoms = structure.box_vectors, structure.topology.getNumAtoms()
    if vectors is not None and not can_be_box(vectors, num_atoms):
        structure.topology.setPeriodicBoxVectors(None)
        warnings.warn(
            f"{path}: the box of {box_words(vectors)} has no room for {num_atoms} atoms and stands for none, as in "
            "structures by NMR: it is left out",
            stacklevel=3,
        )


class Constraints(str, Enum):
    """Which bond lengths are fixed."""

    NONE = "none"
    H_BONDS = "h-bonds"
    ALL_BONDS = "all-bonds"


@dataclass(frozen=True)
class ForceFieldSettings:
    """How a System is made of a structure: force-field files and what they leave open."""

    force_field: tuple[str, ...] = ()
    """Force-field file for a .pdb or .cif: a name that OpenMM knows, such as amber14-all.xml, or a path; several
    may follow. Default: none, since named systems and .xml files have forces."""
    nonbonded_cutoff: float = 1.0
    """Cutoff of the real-space part of particle mesh Ewald in nm; without a box there is no cutoff."""
    constraints: Constraints | None = None
    """Bond lengths that are fixed: none, h-bonds or all-bonds. Default: h-bonds, under AMOEBA none."""
    flexible_water: bool = False
    """Leave water molecules flexible. Default: as the water model is made."""

    def __post_init__(self) -> None:
        files = (self.force_field,) if isinstance(self.force_field, (str, Path)) else self.force_field
        object.__setattr__(self, "force_field", tuple(str(file) for file in files))
        if self.constraints is not None:
            object.__setattr__(self, "constraints", Constraints(self.constraints))
        if not self.nonbonded_cutoff > 0:
            raise SpecError(f"nonbonded_cutoff is {self.nonbonded_cutoff} nm: give a length above 0")


@dataclass(frozen=True, kw_only=True)
class SystemFiles:
    """What a system needs beside its name or file."""

    topology: Path | None = None
    """PDB or PDBx/mmCIF file with the atoms of a System given as .xml."""
    molecules: int | None = None
    """Number of molecules of a named system; its density stays. Default: the number it is known with."""
    force_field: ForceFieldSettings
    minimize: bool = False
    """Minimise the energy of the start, at most 200 steps. Structures with --force-field always are."""

    def load(self, system: str) -> SimulationSystem:
        from openmm_gnn.md.systems.systems import load_system

        loaded = load_system(system, self.topology, self.molecules, self.force_field)
        if not self.minimize:
            return loaded
        return replace(loaded, prepare=lambda seed: relaxed(loaded.system, loaded.start(seed))(seed))


def system_from_structure(path: Path, settings: ForceFieldSettings) -> SimulationSystem:
    """The System that force-field files make of a PDB or PDBx/mmCIF file.

    Particle mesh Ewald where the structure has a box, no cutoff where it has none. Particles that the force field
    needs and the structure lacks, such as charge sites, are added. Runs start from the structure with its clashes
    relaxed. Where bonds of hydrogen are free to vibrate, bonded forces are computed four times in a time step.

    Raises:
        DataError: if a file is missing or cannot be read.
        TopologyError: if the force field does not know a residue, or the box is narrower than twice the cutoff.
    """
    import openmm
    from openmm import app, unit

    topology, positions = read_structure(path)
    box = topology.getPeriodicBoxVectors()
    if box is not None:
        width = min(float(vector[axis].value_in_unit(unit.nanometer)) for axis, vector in enumerate(box))
        if width < 2 * settings.nonbonded_cutoff:
            raise TopologyError(
                f"the box of {path} is {width:.3f} nm wide, less than twice the cutoff of "
                f"{settings.nonbonded_cutoff:g} nm: give a cutoff of at most {width / 2:.3f} nm, or a larger box"
            )
    force_field = _read_force_field(settings.force_field)
    try:
        modeller = app.Modeller(topology, positions * unit.nanometer)
        modeller.addExtraParticles(force_field)
        system = _create_system(force_field, modeller.topology, settings, settings.constraints or Constraints.H_BONDS)
        amoeba = any(isinstance(force, openmm.AmoebaMultipoleForce) for force in system.getForces())
        if settings.constraints is None and amoeba:
            system = _create_system(force_field, modeller.topology, settings, Constraints.NONE)
    except Exception as error:  # OpenMM raises ValueError, KeyError and plain Exceptions
        raise TopologyError(
            f"{' and '.join(settings.force_field)} cannot make a System of {path}: {str(error) or type(error).__name__}"
        ) from error
    start = np.array(modeller.positions.value_in_unit(unit.nanometer))
    return SimulationSystem(
        name=path.stem,
        system=system,
        topology=modeller.topology,
        positions=start,
        thermostat=Thermostat.LANGEVIN,
        bonded_substeps=4 if _hydrogens_vibrate(system) else 1,
        prepare=relaxed(system, start),
    )


def _create_system(
    force_field: app.ForceField, topology: app.Topology, settings: ForceFieldSettings, constraints: Constraints
) -> openmm.System:
    from openmm import app, unit

    periodic = topology.getPeriodicBoxVectors() is not None
    return force_field.createSystem(
        topology,
        nonbondedMethod=app.PME if periodic else app.NoCutoff,
        nonbondedCutoff=settings.nonbonded_cutoff * unit.nanometer,
        constraints={Constraints.H_BONDS: app.HBonds, Constraints.ALL_BONDS: app.AllBonds}.get(constraints),
        rigidWater=False if settings.flexible_water else None,
    )


def _hydrogens_vibrate(system: openmm.System) -> bool:
    """Whether a particle as light as hydrogen is in no constraint."""
    bound = {atom for k in range(system.getNumConstraints()) for atom in system.getConstraintParameters(k)[:2]}
    return any(0 < mass < 4 and atom not in bound for atom, mass in enumerate(masses_of(system)))


def _read_force_field(files: tuple[str, ...]) -> app.ForceField:
    from openmm import app

    try:
        return app.ForceField(*files)
    except Exception as error:  # OpenMM raises plain Exceptions that name the file
        if "Could not locate file" in str(error):
            missing = next((file for file in files if f'"{file}"' in str(error)), files[0])
            raise DataError(
                f"there is no force-field file {missing}: give a path, or a file of OpenMM such as amber14-all.xml"
            ) from error
        raise DataError(f"the force-field files {list(files)} cannot be read together: {error}") from error


_PLUGINS = ("Force", "TorchForce", "PythonForce")
"""Classes of Forces that may have forces without an energy; "Force" is one of a plugin, read from a System."""


def relaxed(system: openmm.System, positions: np.ndarray) -> Callable[[int], np.ndarray]:
    """Starting positions for any seed: the same for all, minimised once, when first asked for.

    The function raises SpecError if a force has no energy to minimise.
    """

    @cache
    def minimised() -> np.ndarray:
        import openmm
        from openmm import unit

        own = copy.deepcopy(system)
        plugins = [force for force in own.getForces() if _may_lack_energy(force)]
        for force in own.getForces():
            force.setForceGroup(0)
        for group, force in enumerate(plugins, 1):
            force.setForceGroup(min(group, 31))
        context = openmm.Context(
            own, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"}
        )
        context.setPositions(positions)
        context.applyConstraints(1e-6)
        context.computeVirtualSites()
        for force in plugins:
            state = context.getState(energy=True, forces=True, groups={force.getForceGroup()})
            if state.getPotentialEnergy()._value == 0 and np.any(state.getForces(asNumpy=True)._value):
                raise SpecError(
                    f"the start is to be minimised, but {force.getName()} of the System has forces and no energy, as a "
                    "network that predicts forces directly has none: leave --minimize away, or train it with "
                    "--conservative"
                )
        openmm.LocalEnergyMinimizer.minimize(context, 100.0, 200)
        state = context.getState(positions=True)
        return np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))

    return lambda seed: minimised()


def _may_lack_energy(force: openmm.Force) -> bool:
    """Whether a Force is one of a plugin, or has such a one for a collective variable."""
    if type(force).__name__ == "CustomCVForce":
        return any(_may_lack_energy(force.getCollectiveVariable(k)) for k in range(force.getNumCollectiveVariables()))
    return type(force).__name__ in _PLUGINS
