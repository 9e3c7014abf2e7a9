"""Representative frames of states: those closest to the centre in the slow variables, as models of a PDB file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.units import ANGSTROM_PER_NM
from openmm_gnn.features.selection import select_atoms
from openmm_gnn.features.topologies import read_topology
from openmm_gnn.kinetics.data import AnalysedRun
from openmm_gnn.md.dcd_frames import dcd_layout

if TYPE_CHECKING:
    import mdtraj


@dataclass(frozen=True)
class RepresentativeFrame:
    """One frame, and its origin."""

    run: str
    step: int
    frame: int
    """Index in the run's trajectory.dcd, from 0."""
    distance: float
    """Distance from the centre of the state, in standard deviations of the slow variables."""


def closest_frames(
    runs: Sequence[AnalysedRun],
    variables: Sequence[np.ndarray],
    states: Sequence[np.ndarray],
    num_states: int,
    count: int = 5,
) -> list[list[RepresentativeFrame]]:
    """Find the frames closest to the centre of each state, the mean of its frames' slow variables.

    Each is from another visit to the state, a contiguous stretch of frames, so that the models differ in time.

    Args:
        runs: frames of runs without a trajectory are skipped.
        variables: (frames, K) for each run.
        states: (frames,) integers for each run, -1 for none.
    Returns:
        At most `count` frames for each state, closest first; fewer, or none, where the frames do not suffice.
    """
    everything = np.concatenate(variables)
    scale = everything.std(axis=0)
    scale[scale == 0] = 1.0
    in_trajectory = [run.trajectory_frames for run in runs]
    chosen: list[list[RepresentativeFrame]] = []
    for state in range(num_states):
        inside = [own == state for own in states]
        members = np.concatenate([values[mask] for values, mask in zip(variables, inside, strict=True)])
        if not len(members):
            chosen.append([])
            continue
        center, candidates = members.mean(axis=0), []
        for run, values, mask, frames in zip(runs, variables, inside, in_trajectory, strict=True):
            rows = np.flatnonzero(mask & (frames >= 0))
            if not len(rows):
                continue
            distances = np.linalg.norm((values[rows] - center) / scale, axis=1)
            for visit in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) > 1) + 1):
                best = visit[int(distances[visit].argmin())]
                here = int(rows[best])
                step = int(run.store.records["step"][here])
                candidates.append((float(distances[best]), run.name, step, int(frames[here])))
        nearest = sorted(candidates)[:count]
        chosen.append([RepresentativeFrame(name, step, frame, far) for far, name, step, frame in nearest])
    return chosen


def write_state(frames: Sequence[RepresentativeFrame], runs: Sequence[AnalysedRun], path: Path) -> Path:
    """Write frames as the models of one PDB file, without water and ions, each superposed on the first one.

    Raises:
        DataError: if there are no frames, or a trajectory and its topology do not fit together.
    """
    import mdtraj
    from mdtraj.formats import PDBTrajectoryFile

    if not frames:
        raise DataError(f"no frames to write into {path}: the state has none in a trajectory")
    by_name = {run.name: run for run in runs}
    together = _frame(by_name[frames[0].run], frames[0].frame)
    for frame in frames[1:]:
        together = mdtraj.join([together, _frame(by_name[frame.run], frame.frame)], check_topology=False)
    together.center_coordinates()
    if len(together) > 1:
        heavy = [atom.index for atom in together.topology.atoms if atom.element is not None and atom.element.number > 1]
        together.superpose(together, 0, atom_indices=heavy if len(heavy) > 2 else None)
    path.parent.mkdir(parents=True, exist_ok=True)
    with PDBTrajectoryFile(str(path), "w") as file:
        for number, positions in enumerate(together.xyz, start=1):
            file.write(positions * ANGSTROM_PER_NM, together.topology, modelIndex=number)
    return path


def _frame(run: AnalysedRun, index: int) -> mdtraj.Trajectory:
    """One frame of the residues that the encoder takes, hydrogens included: no water, no ions, no box."""
    import mdtraj

    assert run.directory is not None
    topology, file = read_topology(run.directory.topology), run.directory.trajectory
    layout = dcd_layout(file)
    if layout.num_atoms != topology.n_atoms:
        raise DataError(
            f"{file} has {layout.num_atoms} atoms, {run.directory.topology} {topology.n_atoms}: they are not of one run"
        )
    offset = layout.header_bytes + index * layout.frame_bytes
    record = np.fromfile(file, layout.frame_record, count=1, offset=offset)[0]
    positions = np.stack([record[axis] for axis in "xyz"], axis=-1) / ANGSTROM_PER_NM
    residues = {topology.atom(int(atom)).residue.index for atom in select_atoms(topology)}
    atoms = [atom.index for atom in topology.atoms if atom.residue.index in residues]
    return mdtraj.Trajectory(positions[None, atoms], topology.subset(atoms))
