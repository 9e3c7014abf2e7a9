"""Systems to simulate: named ones, serialised OpenMM Systems, structures with force-field files.

A new named system is a function of the number of its molecules that returns a `SimulationSystem`, and an entry in
`NAMED_SYSTEMS`; a peptide is an entry in `NAMED_PEPTIDES`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.base.errors import DataError, SpecError, TopologyError
from openmm_gnn.base.files import write_atomically
from openmm_gnn.md.implicit_solvent import in_implicit_solvent, with_hydrogens
from openmm_gnn.md.simulation_system import SimulationSystem
from openmm_gnn.md.systems.fluids import amoeba_water, argon, tip3p, tip4pew
from openmm_gnn.md.systems.peptides import Peptide, build_peptide
from openmm_gnn.md.systems.structure_files import (
    STRUCTURE_SUFFIXES,
    ForceFieldSettings,
    read_structure,
    relaxed,
    system_from_structure,
)
from openmm_gnn.md.time_steps import longest_time_step

if TYPE_CHECKING:
    import openmm
    from openmm import app

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
        equilibration_ps=10.0,
        prepare=relaxed(system, positions),
    )


NAMED_SYSTEMS = {"argon": argon, "tip3p": tip3p, "tip4pew": tip4pew, "amoeba-water": amoeba_water}


def named_system(name: str, num_molecules: int | None = None) -> SimulationSystem:
    """A system by its name; `num_molecules` keeps the density, the box grows.

    Raises:
        DataError: if there is none of that name, or it does not grow.
        SpecError: if there cannot be so few molecules.
    """
    if num_molecules is None and name in NAMED_PEPTIDES:
        return named_peptide(name)
    if name not in NAMED_SYSTEMS:
        raise DataError(f"there is no system {name!r} that grows: give one of {sorted(NAMED_SYSTEMS)}")
    if num_molecules is None:
        return NAMED_SYSTEMS[name]()
    if num_molecules < 1:
        raise SpecError(f"the number of molecules is {num_molecules}: give at least 1")
    return NAMED_SYSTEMS[name](num_molecules)


SYSTEM_FILE = "system.xml"
TOPOLOGY_FILE = "topology.cif"
_BOX_TOLERANCE = 0.01
"""nm; PDB files round angles to 0.01 degrees."""


def load_system(
    name_or_path: str | Path,
    topology: str | Path | None = None,
    num_molecules: int | None = None,
    force_field: ForceFieldSettings | Sequence[str | Path] | str | None = None,
) -> SimulationSystem:
    """A named system, a directory that holds a system, a serialised System, or a structure with force-field files.

    Args:
        name_or_path: a name in `NAMED_SYSTEMS` or `NAMED_PEPTIDES`; a directory with system.xml and topology.cif, such
            as labelled data; an XML file written by `openmm.XmlSerializer`; or, with `force_field`, a PDB or PDBx/mmCIF
            file.
        topology: PDB or PDBx/mmCIF file with the atoms of the XML file in its order, and where they start.
        num_molecules: molecules of a named system; its density stays, its box grows.
        force_field: force-field files for a structure, or settings that name them.
    Raises:
        DataError: if a file is missing or cannot be read.
        BackendError: if the System has a TorchForce, which cannot be used here.
        TopologyError: if the topology does not fit the System or its force field.
    """
    given = Path(name_or_path)
    if not isinstance(force_field, ForceFieldSettings):
        force_field = ForceFieldSettings(force_field or ())  # type: ignore[arg-type]
    if force_field.force_field:
        if topology is not None or num_molecules is not None or given.suffix.lower() not in STRUCTURE_SUFFIXES:
            raise DataError(
                f"force-field files make a System of a structure: give one of {list(STRUCTURE_SUFFIXES)} in place of "
                f"{name_or_path}, and no other topology or number of molecules"
            )
        return system_from_structure(given, force_field)
    if given.suffix.lower() in STRUCTURE_SUFFIXES and not given.is_dir():
        raise DataError(
            f"{name_or_path} is a structure without forces: name force-field files too (--force-field amber14-all.xml)"
        )
    if str(name_or_path) in (*NAMED_SYSTEMS, *NAMED_PEPTIDES):
        if topology is not None:
            raise DataError(f"{name_or_path!r} is a named system and brings its topology: leave {topology} out")
        return named_system(str(name_or_path), num_molecules)
    if num_molecules is not None:
        raise DataError(f"{name_or_path} has the molecules it has: a number of them goes with {sorted(NAMED_SYSTEMS)}")
    path, name = given, given.stem
    if path.is_dir():
        name, topology, path = path.resolve().name, topology or path / TOPOLOGY_FILE, path / SYSTEM_FILE
    elif not path.exists() and path.suffix == "" and path.name == str(name_or_path):
        names = sorted([*NAMED_SYSTEMS, *NAMED_PEPTIDES])
        raise DataError(
            f"there is no system called {str(name_or_path)!r}: give one of {names}, or the path of a serialised System "
            "(.xml)"
        )
    system = read_system(path)
    if topology is None:
        raise DataError(f"{path} is a System without names and bonds: give its topology too (--topology, .pdb or .cif)")
    structure, positions = read_structure(Path(topology))
    loaded = SimulationSystem(name=name, system=system, topology=structure, positions=positions)
    loaded = replace(loaded, time_step_ps=longest_time_step(system, structure)[0])
    _check_same_box(loaded, Path(topology))
    return loaded


def save_system(directory: Path, system: SimulationSystem) -> None:
    """Write system.xml and topology.cif, which `load_system(directory)` reads.

    Raises:
        TopologyError: if the topology does not survive being written as PDBx/mmCIF.
    """
    import openmm
    from openmm import app, unit

    structure = io.StringIO()
    app.PDBxFile.writeFile(system.topology, system.positions * unit.nanometer, structure, keepIds=True)
    back = app.PDBxFile(io.StringIO(structure.getvalue())).topology
    for what, describe in (("elements", _elements), ("bonds", _bonds)):
        if describe(back) != describe(system.topology):
            raise TopologyError(
                f"the {what} of {system.name} do not survive being written to {TOPOLOGY_FILE}, from which every run "
                "reads them: give the topology elements and bonds that a PDBx/mmCIF file can hold"
            )
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / TOPOLOGY_FILE, structure.getvalue().encode())
    write_atomically(directory / SYSTEM_FILE, openmm.XmlSerializer.serialize(system.system).encode())


def read_system(path: Path) -> openmm.System:
    """The System of an XML file; plugins that it needs are loaded.

    Raises:
        DataError: if the file is missing, or holds something else.
        BackendError: if the System has a TorchForce, which cannot be used here.
    """
    import openmm

    if not path.is_file():
        raise DataError(f"there is no file {path}: check the path of the serialised System")
    try:
        system = openmm.XmlSerializer.deserialize(path.read_text())  # which md/xml_reading.py has prepared
    except (openmm.OpenMMException, ValueError) as error:
        raise DataError(f"{path} {_why_unreadable(str(error))}") from error
    if not isinstance(system, openmm.System):
        raise DataError(
            f"{path} holds a serialised {type(system).__name__}: expected a System, "
            "as openmm.XmlSerializer.serialize(system) gives it"
        )
    return system


def _why_unreadable(words: str) -> str:
    """What a System needs that OpenMM could not read, from its words."""
    if (operator := re.search(r"Unknown builtin op: (\S+?)\.?\s", words)) is not None:
        return (
            f"has a TorchForce whose module calls the operator {operator[1]} of another package: import that package "
            "in Python, then `openmm_gnn`, and give the System to `openmm_gnn.simulate` there"
        )
    if (kind := re.search(r"no serialization proxy registered for type '(\w+)'", words)) is not None:
        came = ", which came with OpenMM 8.5" if kind[1] == "PythonForce" else " of a plugin that is not installed here"
        return f"has a {kind[1]}{came}: read it where it was written, or write it without that force"
    return f"cannot be read as OpenMM XML: {words}"


def _check_same_box(system: SimulationSystem, path: Path) -> None:
    """Positions from one box simulated in another would overlap across its faces, and nobody would say so."""
    from openmm import unit

    box, structure_box = system.box_vectors, system.topology.getPeriodicBoxVectors()
    if box is None or structure_box is None:
        return
    structure_vectors = np.array(structure_box.value_in_unit(unit.nanometer))
    if np.abs(structure_vectors - box).max() > _BOX_TOLERANCE:
        raise TopologyError(
            f"{path} has the box {np.round(structure_vectors, 4).tolist()} nm, the System "
            f"{np.round(box, 4).tolist()} nm: call "
            "system.setDefaultPeriodicBoxVectors with the structure's box before serialising it"
        )


def _elements(topology: app.Topology) -> list[str | None]:
    return [atom.element.symbol if atom.element is not None else None for atom in topology.atoms()]


def _bonds(topology: app.Topology) -> set[frozenset[int]]:
    return {frozenset((first.index, second.index)) for first, second in topology.bonds()}
