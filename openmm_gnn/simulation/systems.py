"""Systems to simulate: named ones, and any serialised OpenMM System with its topology.

A new named system is one function that returns a `SimulationSystem`, and one entry in `NAMED_SYSTEMS`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.errors import DataError, TopologyError
from openmm_gnn.simulation.resumable import write_atomically
from openmm_gnn.simulation.run_settings import Thermostat
from openmm_gnn.units import ANGSTROM_PER_NM, KJ_PER_KCAL

if TYPE_CHECKING:
    import openmm
    from openmm import app

SYSTEM_FILE = "system.xml"
TOPOLOGY_FILE = "topology.cif"
_BOX_TOLERANCE = 0.01
"""nm; PDB files round angles to 0.01 degrees."""


@dataclass(frozen=True)
class SimulationSystem:
    """An OpenMM System with all that is needed to run it, and good defaults for how."""

    name: str
    system: openmm.System
    topology: app.Topology
    positions: np.ndarray
    """(num_particles, 3) start, nm."""
    temperature: float = 300.0
    """K."""
    time_step_ps: float = 0.002
    thermostat: Thermostat = Thermostat.LANGEVIN
    friction_per_ps: float = 1.0
    """Friction of Langevin, or collision frequency of Nose-Hoover."""
    equilibration_ps: float = 20.0
    """How long the start takes to be forgotten."""

    def __post_init__(self) -> None:
        num_particles = self.system.getNumParticles()
        num_atoms = self.topology.getNumAtoms()
        if num_atoms != num_particles:
            raise TopologyError(
                f"the topology of {self.name} has {num_atoms} atoms, the System {num_particles} particles: "
                "give the topology that the System was made from, virtual sites included"
            )
        if self.positions.shape != (num_particles, 3):
            raise TopologyError(
                f"the positions of {self.name} have shape {self.positions.shape}: expected ({num_particles}, 3)"
            )

    @property
    def periodic(self) -> bool:
        return bool(self.system.usesPeriodicBoundaryConditions())

    @property
    def box_vectors(self) -> np.ndarray | None:
        """(3, 3) rows a, b, c in nm; None without periodic boundaries."""
        from openmm import unit

        if not self.periodic:
            return None
        return np.array([v.value_in_unit(unit.nanometer) for v in self.system.getDefaultPeriodicBoxVectors()])

    @property
    def masses(self) -> np.ndarray:
        """(num_particles,) in dalton; 0 marks virtual sites and frozen atoms."""
        from openmm import unit

        count = self.system.getNumParticles()
        return np.array([self.system.getParticleMass(k).value_in_unit(unit.dalton) for k in range(count)])


def argon() -> SimulationSystem:
    """258 argon atoms in a cube of 27.27 angstrom: the Lennard-Jones fluid of the GAMD paper.

    Truncated at 10.2 angstrom, the energy shifted to zero there (which changes no force), no long-range correction.
    At 100 K this density lies between vapour and liquid: the atoms condense and leave a void, which takes about
    50 ps from the homogeneous start.

    Source: Li et al., J. Chem. Phys. 156, 144103 (2022); sigma 3.4 angstrom, epsilon 0.238 kcal/mol, mass 39.9.
    """
    import openmm
    from openmm import app, unit

    num_atoms, edge, sigma, epsilon, cutoff = 258, 27.27, 3.4, 0.238 * KJ_PER_KCAL, 10.2
    edge, sigma, cutoff = edge / ANGSTROM_PER_NM, sigma / ANGSTROM_PER_NM, cutoff / ANGSTROM_PER_NM

    system = openmm.System()
    system.setDefaultPeriodicBoxVectors((edge, 0, 0), (0, edge, 0), (0, 0, edge))
    force = openmm.CustomNonbondedForce("4*epsilon*(u^2 - u) - shift; u = (sigma/r)^6")
    force.setName("LennardJonesShifted")
    for name, value in (("epsilon", epsilon), ("sigma", sigma)):
        force.addGlobalParameter(name, value)
    force.addGlobalParameter("shift", 4 * epsilon * ((sigma / cutoff) ** 12 - (sigma / cutoff) ** 6))
    force.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(cutoff)
    topology = app.Topology()
    topology.setPeriodicBoxVectors(np.diag([edge] * 3) * unit.nanometer)
    chain = topology.addChain()
    for _ in range(num_atoms):
        system.addParticle(39.9 * unit.dalton)
        force.addParticle([])
        topology.addAtom("Ar", app.Element.getBySymbol("Ar"), topology.addResidue("AR", chain))
    system.addForce(force)
    system.addForce(openmm.CMMotionRemover(1))

    return SimulationSystem(
        name="argon",
        system=system,
        topology=topology,
        positions=_scattered_on_a_lattice(num_atoms, edge),  # 3.9 angstrom apart: no overlaps to minimise away
        temperature=100.0,
        time_step_ps=0.002,
        thermostat=Thermostat.NOSE_HOOVER,
        friction_per_ps=25.0,
        equilibration_ps=50.0,
    )


NAMED_SYSTEMS: dict[str, Callable[[], SimulationSystem]] = {"argon": argon}


def load_system(name_or_path: str | Path, topology: str | Path | None = None) -> SimulationSystem:
    """A named system, a directory that holds a system, or a serialised System with its topology.

    Args:
        name_or_path: a name in `NAMED_SYSTEMS`; a directory with system.xml and topology.cif, such as labelled data;
            or an XML file written by `openmm.XmlSerializer`.
        topology: PDB or PDBx/mmCIF file with the atoms of the XML file in its order, and where they start.
    Raises:
        DataError: if a file is missing or cannot be read.
        TopologyError: if the topology does not fit the System.
    """
    if str(name_or_path) in NAMED_SYSTEMS:
        if topology is not None:
            raise DataError(f"{name_or_path!r} is a named system and brings its topology: leave {topology} out")
        return NAMED_SYSTEMS[str(name_or_path)]()
    path = Path(name_or_path)
    name = path.stem
    if path.is_dir():
        name, topology, path = path.resolve().name, topology or path / TOPOLOGY_FILE, path / SYSTEM_FILE
    elif not path.exists() and path.suffix == "" and path.name == str(name_or_path):
        raise DataError(
            f"there is no system called {str(name_or_path)!r}: give one of {sorted(NAMED_SYSTEMS)}, or the path of a "
            "serialised System (.xml)"
        )
    system = _read_system(path)
    if topology is None:
        raise DataError(f"{path} is a System without names and bonds: give its topology too (--topology, .pdb or .cif)")
    structure, positions = _read_topology(Path(topology))
    loaded = SimulationSystem(name=name, system=system, topology=structure, positions=positions)
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
            raise TopologyError(f"the {what} of {system.name} do not survive being written to {TOPOLOGY_FILE}")
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / TOPOLOGY_FILE, structure.getvalue().encode())
    write_atomically(directory / SYSTEM_FILE, openmm.XmlSerializer.serialize(system.system).encode())


def _scattered_on_a_lattice(num_atoms: int, edge: float) -> np.ndarray:
    """(num_atoms, 3) sites of a simple cubic lattice that fills the box, chosen at random but always the same."""
    sites_per_edge = int(np.ceil(num_atoms ** (1 / 3)))
    sites = np.stack(np.meshgrid(*[np.arange(sites_per_edge)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    chosen = np.random.default_rng(0).permutation(len(sites))[:num_atoms]
    return (sites[np.sort(chosen)] + 0.5) * (edge / sites_per_edge)


def _read_system(path: Path) -> openmm.System:
    import openmm

    if not path.is_file():
        raise DataError(f"there is no file {path}: check the path of the serialised System")
    try:
        system = openmm.XmlSerializer.deserialize(path.read_text())
    except (openmm.OpenMMException, ValueError) as error:
        raise DataError(f"{path} cannot be read as OpenMM XML: {error}") from error
    if not isinstance(system, openmm.System):
        raise DataError(f"{path} holds a serialised {type(system).__name__}: expected a System")
    return system


def _read_topology(path: Path) -> tuple[app.Topology, np.ndarray]:
    from openmm import app, unit

    readers = {".pdb": app.PDBFile, ".ent": app.PDBFile, ".cif": app.PDBxFile, ".pdbx": app.PDBxFile}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"the topology {path} ends in {path.suffix!r}: give one of {sorted(readers)}")
    if not path.is_file():
        raise DataError(f"there is no file {path}: check the path of the topology")
    try:
        structure = reader(os.fspath(path))
        return structure.topology, np.array(structure.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    except Exception as error:  # OpenMM's parsers raise whatever the text makes them stumble over
        raise DataError(f"{path} cannot be read as a structure: {error or type(error).__name__}") from error


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
