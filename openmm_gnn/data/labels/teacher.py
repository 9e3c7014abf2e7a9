"""The teacher: runs a System from several seeds and stores frames labelled with its forces.

Every trajectory runs in a process of its own on one thread, which for a few hundred atoms is faster than threads.
"""

from __future__ import annotations

import hashlib
import io
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import locked, write_atomically, write_json
from openmm_gnn.base.worker_processes import Work, run_workers
from openmm_gnn.data.labels.labelled_run import steps_done, worker_command
from openmm_gnn.data.labels.settings import LabelCourse, LabelSettings
from openmm_gnn.data.labels.trajectories import (
    META_FILE,
    META_KIND,
    META_VERSION,
    UNITS,
    LabelledTrajectories,
    listed_trajectories,
    read_meta,
    trajectory_name,
)
from openmm_gnn.md.systems.systems import SYSTEM_FILE, TOPOLOGY_FILE, SimulationSystem, save_system


def label(
    system: SimulationSystem,
    out: str | Path,
    settings: LabelSettings | None = None,
    progress: bool = True,
    command: str | None = None,
) -> LabelledTrajectories:
    """Run every seed at every temperature and store labelled frames; resumes what was interrupted.

    Called again with the same settings it completes what is missing; seeds, temperatures and frames may be added.

    Args:
        out: directory of the data; made if it does not exist.
        settings: which trajectories; ten of the system as it is if None.
        progress: show a bar with the remaining time.
        command: what the user typed, to be remembered in meta.json.
    Raises:
        SpecError: if a setting makes no sense.
        DataError: if `out` holds data of another system or other settings, or is being written by another process.
        NonFiniteError: if a trajectory blows up.
    """
    out = Path(out)
    settings = settings or LabelSettings()
    course = settings.course(system)
    _check_can_run(system, settings.platform)
    with locked(out):
        meta = _prepare(out, system, settings, course, command)
        _write_starts(out, meta, system)
        wanted = {trajectory_name(*run) for run in settings.runs(system)}
        works = [
            Work(
                name=trajectory.name,
                command=worker_command(out, trajectory.name, settings.checkpoint_seconds),
                steps=course.equilibration_steps + trajectory.frames * course.stride,
                steps_done=steps_done(trajectory, course),
            )
            for trajectory in listed_trajectories(out, meta)
            if trajectory.name in wanted
        ]
        run_workers(works, processes=settings.processes or os.cpu_count() or 1, progress=progress)
    return LabelledTrajectories.open(out)


def _check_can_run(system: SimulationSystem, platform: str) -> None:
    import openmm

    known = [openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())]
    if platform not in known:
        raise SpecError(f"OpenMM has no platform {platform!r} here: give one of {known}")
    if any(isinstance(force, openmm.AndersenThermostat) for force in system.system.getForces()):
        raise SpecError(
            f"{system.name} holds an AndersenThermostat: remove it, the temperature is held by `thermostat`"
        )


def _prepare(
    out: Path, system: SimulationSystem, settings: LabelSettings, course: LabelCourse, command: str | None
) -> dict[str, Any]:
    """Write meta.json, system.xml and topology.cif, or check that they are of the same making; the new meta."""
    import openmm

    xml = openmm.XmlSerializer.serialize(system.system)
    identity = {
        "versions": {"openmm": openmm.__version__},
        "settings": course.to_dict(),
        "system": {"sha256": hashlib.sha256(xml.encode()).hexdigest(), "num_atoms": system.system.getNumParticles()},
    }
    if (out / META_FILE).exists():
        meta = read_meta(out)
        _check_same_making(out, meta, identity)
    else:
        others = [entry.name for entry in out.iterdir() if not entry.name.startswith((".", META_FILE))]
        if others:
            raise DataError(f"{out} is no directory of labelled data but holds {sorted(others)[:3]}: give a new one")
        meta = {"kind": META_KIND, "version": META_VERSION, **identity, "trajectories": {}, "commands": []}
        meta |= {"units": UNITS, "written_by": f"openmm_gnn {version('openmm-gnn')}"}
        meta["system"] |= {"name": system.name, "periodic": system.periodic}
    for temperature, seed in settings.runs(system):
        entry = meta["trajectories"].setdefault(
            trajectory_name(temperature, seed), {"temperature": temperature, "seed": seed, "frames": settings.frames}
        )
        entry["frames"] = max(entry["frames"], settings.frames)
    if command and command not in meta["commands"]:
        meta["commands"].append(command)
    write_json(out / META_FILE, meta, indent=2)
    if not (out / SYSTEM_FILE).exists() or not (out / TOPOLOGY_FILE).exists():
        save_system(out, system)
    return meta


def _write_starts(out: Path, meta: dict[str, Any], system: SimulationSystem) -> None:
    """Keep the starting positions of every trajectory that is not begun, where the system prepares its own."""
    if system.prepare is None:
        return
    for trajectory in listed_trajectories(out, meta):
        if not trajectory.start_file.exists() and not trajectory.checkpoint_file.exists():
            trajectory.path.mkdir(parents=True, exist_ok=True)
            content = io.BytesIO()
            np.save(content, system.prepare(trajectory.seed))
            write_atomically(trajectory.start_file, content.getvalue())


def _check_same_making(out: Path, meta: dict[str, Any], identity: dict[str, Any]) -> None:
    for group, given in identity.items():
        for name, value in given.items():
            if meta[group].get(name) != value:
                raise DataError(
                    f"{out} holds data made with {group} {name} = {meta[group].get(name)!r}, now it is {value!r}: "
                    "go on with the same, or give another directory"
                )
