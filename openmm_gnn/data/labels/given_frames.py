"""Geometries that are there already, labelled by a System: one evaluation of its forces for each, and no dynamics.

Any trajectory of the same atoms gives geometries: a run of a cheaper force field, of a network that was trained
before, or of another program. So labels of an expensive teacher cost one evaluation a frame; `label` takes dozens for
each, to come from one frame to the next.

OUT.partial keeps what is labelled until all is: the same call goes on there after a kill. Then OUT is a directory of
`imported_labels`.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openmm

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import locked
from openmm_gnn.base.growing_array import GrowingArray
from openmm_gnn.base.worker_processes import ProgressBar
from openmm_gnn.data.description import DataKind
from openmm_gnn.data.labels.external_labels import ExternalFile, ExternalFrame
from openmm_gnn.data.labels.imported_labels import ImportedLabels, import_labels
from openmm_gnn.data.labels.settings import GeometrySettings, ImportSettings
from openmm_gnn.features.topologies import as_mdtraj
from openmm_gnn.features.trajectory_frames import TrajectoryFrames, check_atoms, count_frames, frames_of
from openmm_gnn.forces.network_energies import check_networks
from openmm_gnn.md.contexts import choose_platform
from openmm_gnn.md.run_settings import text_hash
from openmm_gnn.md.simulation_system import NONBONDED_GROUP, LabelledForces, split_groups, stable_xml
from openmm_gnn.md.state_checks import WholeBonds
from openmm_gnn.md.systems.systems import SimulationSystem

PARTIAL = DataKind("openmm_gnn frames that are being labelled", 1, "openmm-gnn label --geometries")
RECORDS = "frames.npy"


def label_geometries(
    system: SimulationSystem,
    trajectories: Sequence[Path | str],
    out: Path | str,
    settings: GeometrySettings | None = None,
    forces: LabelledForces = LabelledForces.ALL,
    platform: str = "auto",
    allow_broken_bonds: bool = False,
    progress: bool = True,
) -> ImportedLabels:
    """Forces and energies of a System at the frames of trajectories, as data to train on.

    Frames whose molecules have come apart are left out, and counted.

    Args:
        trajectories: files that mdtraj reads, of the atoms of the system in its order.
        out: new directory of the data.
        forces: which forces the frames carry.
        platform: name of an OpenMM platform.
        allow_broken_bonds: label frames with broken bonds too.
        progress: show a bar with the remaining time.
    Raises:
        DataError: if a trajectory does not belong to the system, no frame is left, a force is not finite, or the
            directory holds something else.
        SpecError: if the system has virtual sites or particles without an element.
    """
    settings, out = settings or GeometrySettings(), Path(out)
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} exists and is not empty: give a new directory")
    sites = [system.system.isVirtualSite(index) for index in range(system.system.getNumParticles())]
    if any(sites) or any(atom.element is None for atom in system.topology.atoms()):
        raise SpecError(
            f"{system.name} has virtual sites or particles without an element, which trajectories rarely hold: run and "
            "label it instead"
        )
    check_networks(system.system, network_pressure=True)
    paths, topology = [Path(path) for path in trajectories], as_mdtraj(system.topology)
    for path in paths:
        check_atoms(path, topology, periodic=system.periodic)
    teacher = _Teacher(system, LabelledForces(forces), choose_platform(platform), allow_broken_bonds)
    partial = Path(f"{out}.partial")
    with locked(partial):
        making = {
            "system": text_hash(stable_xml(system.system)),
            "settings": {"forces": teacher.forces.value, "stride": settings.stride, "broken": allow_broken_bonds},
            "files": [{"name": str(path), "bytes": path.stat().st_size} for path in paths],
        }
        PARTIAL.write(partial, PARTIAL.begin(partial, making, {}))
        with GrowingArray.open(partial / RECORDS, _fields(len(system.positions))) as records:
            _label_all(teacher, paths, topology, settings.stride, records, progress)
        done = np.load(partial / RECORDS, mmap_mode="r", allow_pickle=False)
        files = [ExternalFile(path, _external(system, done[done["file"] == k])) for k, path in enumerate(paths)]
    left_out = int((~done["whole"]).sum())
    if left_out:
        warnings.warn(f"{left_out} of {len(done)} frames are left out: {teacher.fault}", stacklevel=2)
    if left_out == len(done):
        raise DataError(f"no frame of {', '.join(map(str, paths))} is whole: {teacher.fault}")
    asked = ImportSettings(settings.blocks, settings.gap, forces=teacher.forces)
    data = import_labels(files, out, asked, system.topology, system.name)
    shutil.rmtree(partial)
    return data


class _Teacher:
    """The System, asked for energy and forces at given positions."""

    def __init__(self, system: SimulationSystem, forces: LabelledForces, platform: str, broken: bool) -> None:
        self.forces, self.periodic = forces, system.periodic
        split_groups(system.system)
        chosen = openmm.Platform.getPlatformByName(platform)
        self._context = openmm.Context(system.system, openmm.VerletIntegrator(0.001), chosen)
        self._context.setPositions(system.positions)
        start = self._context.getState(positions=True)
        self._check = None if broken else WholeBonds(system.system, system.topology, start)
        self.fault = "their bonds are broken"
        """What was wrong with the last frame that was left out."""

    def label(self, where: str, frames: TrajectoryFrames, row: int, record: np.ndarray) -> None:
        """Fill in the record of one frame.

        Raises:
            DataError: naming the frame, if it has no box where the system has one, or a force is not finite.
        """
        if self.periodic:
            if frames.box_vectors is None:
                raise DataError(f"{where} has no periodic box, the system has one: give a trajectory with boxes")
            self._context.setPeriodicBoxVectors(*_reduced(frames.box_vectors[row]))
            record["box_vectors"] = frames.box_vectors[row]
        self._context.setPositions(frames.positions[row].astype(np.float64))
        record["positions"] = frames.positions[row]
        if self._check is not None:
            fault = self._check.fault(self._context.getState(positions=True))
            if fault is not None:
                self.fault = f"{where}: {fault}"
                return
        groups = {NONBONDED_GROUP} if self.forces is LabelledForces.NONBONDED else -1
        state = self._context.getState(energy=True, forces=True, groups=groups)
        record["forces"] = state.getForces(asNumpy=True)._value
        record["energy"] = state.getPotentialEnergy()._value
        record["whole"] = True
        if not (np.isfinite(record["forces"]).all() and np.isfinite(record["energy"]).all()):
            raise DataError(f"the forces at {where} are not finite: leave it out, or look for atoms that overlap there")


def _label_all(
    teacher: _Teacher, paths: Sequence[Path], topology: Any, stride: int, records: GrowingArray, progress: bool
) -> None:
    """Append a record for each frame that has none yet."""
    every = np.arange(topology.n_atoms)
    done, seen = len(records), 0
    counts = [count_frames(path) for path in paths]
    total = None if None in counts else sum(-(-count // stride) for count in counts if count is not None)
    with ProgressBar(total, progress, done, "labelling") as bar:
        for number, path in enumerate(paths):
            for frames in frames_of(path, topology, every, stride=stride, periodic=teacher.periodic):
                for row, index in enumerate(frames.indices.tolist()):
                    seen += 1
                    if seen <= done:
                        continue
                    record = records.empty_records(1)
                    record["file"], record["frame"] = number, index
                    teacher.label(f"frame {index} of {path}", frames, row, record)
                    records.append(record)
                    bar.update(seen, text=f"{seen} frames, frame {index} of {path.name}")
    if seen == 0:
        raise DataError(f"{', '.join(map(str, paths))} have no frames: were they written to the end?")


def _fields(num_atoms: int) -> list[tuple[Any, ...]]:
    """The record of a frame, for `GrowingArray`: nm, kJ/mol, kJ/mol/nm."""
    return [
        ("file", "<i8"),
        ("frame", "<i8"),
        ("whole", "?"),
        ("energy", "<f8"),
        ("box_vectors", "<f8", (3, 3)),
        ("positions", "<f8", (num_atoms, 3)),
        ("forces", "<f8", (num_atoms, 3)),
    ]


def _external(system: SimulationSystem, records: np.ndarray) -> list[ExternalFrame]:
    numbers = np.array([atom.element.atomic_number for atom in system.topology.atoms()], dtype=np.int64)
    box = (lambda record: np.array(record["box_vectors"])) if system.periodic else (lambda record: None)
    return [
        ExternalFrame(numbers, record["positions"], record["forces"], box(record), float(record["energy"]))
        for record in _whole(records)
    ]


def _whole(records: np.ndarray) -> Iterator[np.ndarray]:
    return (record for record in records if record["whole"])


def _reduced(box_vectors: np.ndarray) -> Any:
    """The same lattice by shorter vectors, as OpenMM takes it, which refuses one that is turned."""
    from openmm.app.internal.unitcell import reducePeriodicBoxVectors

    return reducePeriodicBoxVectors([openmm.Vec3(*vector) for vector in box_vectors.tolist()] * openmm.unit.nanometer)
