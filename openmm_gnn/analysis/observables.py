"""Observables of a run, or of several runs of one kind: structure, temperatures, energy and diffusion."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.analysis.diffusion import Diffusion, self_diffusion
from openmm_gnn.analysis.structure import RadialDistribution, largest_radius, radial_distribution
from openmm_gnn.base.errors import DataError
from openmm_gnn.base.statistics import Estimate, mean_with_error
from openmm_gnn.features.topologies import in_file_order, read_topology
from openmm_gnn.runs.directory import RunDirectory, element_column, elements_in

if TYPE_CHECKING:
    import mdtraj

NUM_BLOCKS = 10
"""Consecutive parts of a run, from whose scatter errors are taken; every frame is one where there are fewer."""
GRAM_PER_CM3_PER_DALTON_NM3 = 1.66053906660e-3
"""1 Da/nm^3 in g/cm^3."""


@dataclass(frozen=True)
class Molecules:
    """The atoms of a topology, by molecule and element."""

    masses: np.ndarray
    """(num_atoms,) dalton; 0 for virtual sites."""
    elements: np.ndarray
    """(num_atoms,) symbols; "" for virtual sites."""
    of_atom: np.ndarray
    """(num_atoms,) number of the molecule, 0 to `count` - 1."""
    atoms: np.ndarray
    """Indices of the atoms that were selected, without virtual sites."""
    selection: str

    @property
    def count(self) -> int:
        return int(self.of_atom.max()) + 1

    @property
    def are_atoms(self) -> bool:
        """Whether every molecule is one atom, as in argon."""
        return self.count == len(self.of_atom)

    def element_pairs(self) -> list[tuple[str, str]]:
        """The pairs of selected elements that have atoms in two molecules, in the order of the topology."""
        names = list(dict.fromkeys(self.elements[self.atoms]))
        pairs = [(first, second) for index, first in enumerate(names) for second in names[index:]]
        return [pair for pair in pairs if self._are_in_two_molecules(*pair)]

    def of_element(self, element: str) -> np.ndarray:
        """Indices of the selected atoms of an element."""
        return self.atoms[self.elements[self.atoms] == element]

    def centers(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Centres of mass (frames, molecules, 3) of unwrapped positions, and the molecules' masses."""
        masses = np.bincount(self.of_atom, weights=self.masses)
        order = np.argsort(self.of_atom, kind="stable")
        starts = np.searchsorted(self.of_atom[order], np.arange(self.count))
        weighted = positions[:, order] * self.masses[order, None]
        return np.add.reduceat(weighted, starts, axis=1) / masses[:, None], masses

    def _are_in_two_molecules(self, first: str, second: str) -> bool:
        one, other = self.of_atom[self.of_element(first)], self.of_atom[self.of_element(second)]
        return len(one) > 0 and len(other) > 0 and len(np.union1d(one, other)) > 1


def molecules_of(topology: mdtraj.Topology, selection: str) -> Molecules:
    """Molecules of a topology: atoms of one residue, and residues that bonds join.

    Args:
        selection: atoms in mdtraj's language; "all" for all.
    Raises:
        DataError: if the selection cannot be read, or matches fewer than 2 atoms.
    """
    try:
        atoms = np.asarray(topology.select(selection), dtype=np.int64)
    except ValueError as error:
        raise DataError(f"the selection {selection!r} is not mdtraj's language: {error}") from error
    members = in_file_order(topology)
    masses = np.array([atom.element.mass for atom in members])
    elements = np.array(["" if atom.element.number == 0 else atom.element.symbol for atom in members])
    atoms = atoms[elements[atoms] != ""]
    if len(atoms) < 2:
        raise DataError(f"the selection {selection!r} matches {len(atoms)} atoms: g(r) needs at least 2")
    return Molecules(masses, elements, _connected(topology), atoms, selection)


def _connected(topology: mdtraj.Topology) -> np.ndarray:
    """(num_atoms,) the number of the molecule of each atom, from 0."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    joined = [(residue.atom(0).index, atom.index) for residue in topology.residues for atom in residue.atoms]
    joined += [(first.index, second.index) for first, second in topology.bonds]
    edges = coo_array((np.ones(len(joined)), np.transpose(joined)), shape=(topology.n_atoms,) * 2)
    return connected_components(edges, directed=False)[1]


@dataclass(frozen=True)
class Trace:
    """The kinetic energy of one run over time."""

    times_ps: np.ndarray
    kinetic_kj_mol: np.ndarray
    temperatures: np.ndarray


@dataclass(frozen=True)
class Observables:
    """The observables of one run, or of several runs of the same kind."""

    label: str
    system: str
    num_atoms: int
    simulated_ps: float
    rdfs: dict[str, RadialDistribution]
    """g(r) by pair of elements, such as "O-H", without pairs within a molecule; "" where atoms are of one kind."""
    temperature: Estimate
    """NaN for isokinetic dynamics, which has none."""
    target_temperature: float
    traces: list[Trace]
    diffusion: Diffusion | None
    """None where the runs are too short for it, or of isokinetic or Monte Carlo ones, whose times mean nothing."""
    diffusion_of: str = "atoms"
    """Particles of the diffusion: atoms, molecules, or those of a selection."""
    element_temperatures: dict[str, Estimate] = field(default_factory=dict)
    """Temperatures of several elements, K, where all logs have them."""
    potential_kj_mol: Estimate | None = None
    """Mean potential energy per molecule, where all logs have it; that of a network has no common zero."""
    density_g_cm3: Estimate | None = None
    """Density, where the volume changes."""

    @property
    def knows_temperature(self) -> bool:
        return math.isfinite(self.temperature.value)

    @property
    def rdf(self) -> RadialDistribution:
        """The first g(r)."""
        return next(iter(self.rdfs.values()))


def observe(
    path: Path | str, selection: str = "all", segment_ps: float | None = None, radius_nm: float | None = None
) -> Observables:
    """Measure structure, temperatures, energy and diffusion of a run, or of all runs in a directory.

    Args:
        selection: the atoms of g(r) and diffusion, in mdtraj's language.
        segment_ps: length of the segments that diffusion is measured in, see `self_diffusion`.
        radius_nm: largest distance of g(r), by default half the smallest box.
    Raises:
        DataError: if there is no run, runs differ in system, forces or frame interval, or one is too short.
    """
    runs = runs_in(Path(path))
    kinds = {_kind(run) for run in runs}
    if len(kinds) > 1:
        raise DataError(
            f"{path} holds runs of different kinds, which cannot be pooled: {sorted(kinds)}. Give a directory "
            "with runs of one kind, or one run"
        )
    settings = runs[0].settings()
    molecules = molecules_of(read_topology(runs[0].topology), selection)
    trajectories, boxes, logs = [], [], []
    for run in runs:
        positions, box_vectors = periodic_frames(run)
        trajectories.append(positions)
        boxes.append(box_vectors)
        logs.append(run.read_log())
    if radius_nm is None:
        radius_nm = min(largest_radius(box) for box in boxes)
    # An energy learned from forces has any constant.
    learned = any(run.identity()["forces"]["kind"] == "network" for run in runs)
    moved, masses, atoms, diffusion_of = _diffusing(trajectories, molecules)
    diffusion = None
    try:
        if settings.physical_times:
            diffusion = self_diffusion(moved, settings.frame_interval_ps, masses, atoms, segment_ps)
    except DataError:
        length = min(map(len, trajectories)) * settings.frame_interval_ps
        warnings.warn(f"{path}: {length:g} ps are too short for a diffusion coefficient, run longer", stacklevel=2)
    return Observables(
        label=_label(runs[0]),
        system=runs[0].identity()["system"]["name"],
        num_atoms=len(molecules.masses),
        simulated_ps=sum(map(len, trajectories)) * settings.frame_interval_ps,
        rdfs=_pooled_rdfs(trajectories, boxes, molecules, radius_nm),
        temperature=_pooled_mean([log["temperature_K"] for log in logs]),
        target_temperature=settings.temperature,
        traces=[Trace(log["time_ps"], log["kinetic_kj_mol"], log["temperature_K"]) for log in logs],
        diffusion=diffusion,
        diffusion_of=diffusion_of,
        element_temperatures=_element_temperatures(logs),
        potential_kj_mol=_potential(logs, molecules) if not learned else None,
        density_g_cm3=_density(logs, molecules),
    )


def runs_in(path: Path) -> list[RunDirectory]:
    """The run of this directory, or those of its sub-directories.

    Raises:
        DataError: if there is none.
    """
    if RunDirectory(path).exists:
        return [RunDirectory(path)]
    runs = [RunDirectory(child) for child in sorted(path.iterdir())] if path.is_dir() else []
    runs = [run for run in runs if run.exists]
    if not runs:
        raise DataError(f"{path} is no run and holds none: give a directory that `openmm-gnn simulate` wrote")
    return runs


def periodic_frames(run: RunDirectory) -> tuple[np.ndarray, np.ndarray]:
    """Positions (frames, num_atoms, 3) and boxes (frames, 3, 3) of a run, nm.

    Raises:
        DataError: if it has no box.
    """
    positions, boxes = run.read_positions()
    if boxes is None:
        raise DataError(f"{run.path} has no periodic box, which g(r) and diffusion need: give a periodic run")
    return positions, boxes


def shortest_run_ps(path: Path | str) -> float:
    """The length of a run, or of the shortest in a directory of runs.

    Raises:
        DataError: if there is no run, or one without a frame.
    """
    lengths = {run.path: len(run.read_log()) * run.settings().frame_interval_ps for run in runs_in(Path(path))}
    if empty := [run for run, length in lengths.items() if not length]:
        raise DataError(f"{empty[0]} holds no frame yet: wait, or go on with it (`openmm-gnn simulate` as before)")
    return min(lengths.values())


def _kind(run: RunDirectory) -> str:
    identity, settings = run.identity(), run.settings()
    return (
        f"{identity['system']['hash'][:12]} {_label(run)} {settings.frame_interval_ps:g} ps {settings.temperature:g} K"
    )


def _label(run: RunDirectory) -> str:
    forces = run.identity()["forces"]
    return str(forces["name"]) or ("network" if forces["kind"] == "network" else "reference")


def _diffusing(
    trajectories: list[np.ndarray], molecules: Molecules
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, str]:
    """Trajectories, masses and indices of the particles, and their name: molecules, or the atoms of a selection."""
    if molecules.selection != "all":
        return trajectories, molecules.masses, molecules.atoms, f"{molecules.selection!r}"
    if molecules.are_atoms:
        return trajectories, molecules.masses, molecules.atoms, "atoms"
    centers = [molecules.centers(positions) for positions in trajectories]
    masses = centers[0][1]
    return [center for center, _ in centers], masses, np.arange(len(masses)), "molecules"


def _pooled_rdfs(
    trajectories: Sequence[np.ndarray], boxes: Sequence[np.ndarray], molecules: Molecules, radius_nm: float
) -> dict[str, RadialDistribution]:
    def pooled(first: np.ndarray, second: np.ndarray, of_atom: np.ndarray | None) -> RadialDistribution:
        parts = [
            radial_distribution(
                positions,
                box,
                first,
                second,
                of_atom,
                num_blocks=min(NUM_BLOCKS, len(positions)),
                radius_nm=radius_nm,
            )
            for positions, box in zip(trajectories, boxes, strict=True)
        ]
        values = np.average([part.values for part in parts], axis=0, weights=list(map(len, trajectories)))
        return RadialDistribution(parts[0].edges_nm, values, np.concatenate([part.blocks for part in parts]))

    pairs = molecules.element_pairs()
    one_kind = len(set(molecules.elements[molecules.atoms])) == 1
    if not pairs or (one_kind and molecules.are_atoms):
        return {"": pooled(molecules.atoms, molecules.atoms, None)}
    return {
        f"{first}-{second}": pooled(molecules.of_element(first), molecules.of_element(second), molecules.of_atom)
        for first, second in pairs
    }


def _pooled_mean(series: Sequence[np.ndarray]) -> Estimate:
    return mean_with_error(*series, num_blocks=min(NUM_BLOCKS, *map(len, series)))


def _element_temperatures(logs: Sequence[np.ndarray]) -> dict[str, Estimate]:
    """Temperatures where there are several elements; logs of older versions have none."""
    columns = [log.dtype.names or () for log in logs]
    elements = [name for name in elements_in(columns[0]) if all(element_column(name) in of_log for of_log in columns)]
    if len(elements) < 2:
        return {}
    return {element: _pooled_mean([log[element_column(element)] for log in logs]) for element in elements}


def _potential(logs: Sequence[np.ndarray], molecules: Molecules) -> Estimate | None:
    energies = [log["potential_kj_mol"] for log in logs]
    if molecules.are_atoms or not all(np.isfinite(values).all() for values in energies):
        return None
    return _pooled_mean([values / molecules.count for values in energies])


def _density(logs: Sequence[np.ndarray], molecules: Molecules) -> Estimate | None:
    volumes = [log["volume_nm3"] for log in logs]
    if not any(np.ptp(volume) > 1e-6 * volume.mean() for volume in volumes):
        return None
    mass = molecules.masses.sum() * GRAM_PER_CM3_PER_DALTON_NM3
    return _pooled_mean([mass / volume for volume in volumes])
