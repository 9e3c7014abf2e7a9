"""The teacher: runs a System from several seeds and stores frames labelled with its forces.

Every trajectory runs in a process of its own on one thread, which for a few hundred atoms is faster than threads.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import locked, write_atomically
from openmm_gnn.base.worker_processes import Work, run_workers
from openmm_gnn.data.labels.labelled_run import LabelSettings, steps_done, worker_command
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
from openmm_gnn.md.force_parts import LabelledForces
from openmm_gnn.md.run_settings import Thermostat
from openmm_gnn.md.systems.systems import SYSTEM_FILE, TOPOLOGY_FILE, SimulationSystem, save_system


def label(
    system: SimulationSystem,
    out: str | Path,
    seeds: Sequence[int],
    temperatures: Sequence[float] = (),
    frames: int = 1000,
    stride: int = 50,
    equilibration_ps: float | None = None,
    thermostat: Thermostat | None = None,
    friction_per_ps: float | None = None,
    time_step_ps: float | None = None,
    forces: LabelledForces = LabelledForces.ALL,
    platform: str = "CPU",
    processes: int | None = None,
    checkpoint_seconds: float = 1.0,
    progress: bool = True,
    command: str | None = None,
) -> LabelledTrajectories:
    """Run every seed at every temperature and store labelled frames; resumes what was interrupted.

    Called again with the same settings it completes what is missing; seeds, temperatures and frames may be added.

    Args:
        out: directory of the data; made if it does not exist.
        seeds: 1 or more each; of initial velocities and random forces.
        temperatures: K; by default the system's.
        frames: per trajectory.
        stride: steps between two frames.
        equilibration_ps: run before the first frame and not stored; by default the system's.
        thermostat, friction_per_ps, time_step_ps: by default the system's.
        forces: all of the System's, or without its bonded terms (`LabelledForces`).
        platform: OpenMM platform; "Reference" computes in double precision, and resumes bit for bit.
        processes: at once; by default one per core.
        checkpoint_seconds: wall time between two checkpoints, which a kill costs at most; one takes about 10 ms.
        progress: show a bar with the remaining time.
        command: what the user typed, to be remembered in meta.json.
    Raises:
        SpecError: if a setting makes no sense.
        DataError: if `out` holds data of another system or other settings, or is being written by another process.
        NonFiniteError: if a trajectory blows up.
    """
    out = Path(out)
    rest_ps = system.equilibration_ps if equilibration_ps is None else equilibration_ps
    step_ps = system.time_step_ps if time_step_ps is None else time_step_ps
    settings = LabelSettings(
        stride=stride,
        equilibration_steps=round(rest_ps / step_ps),
        time_step_ps=step_ps,
        thermostat=system.thermostat if thermostat is None else Thermostat(thermostat),
        friction_per_ps=system.friction_per_ps if friction_per_ps is None else friction_per_ps,
        platform=platform,
        bonded_substeps=system.bonded_substeps,
        forces=LabelledForces(forces),
    )
    runs = [(float(t), int(seed)) for t in (temperatures or [system.temperature]) for seed in seeds]
    if not runs or len(set(runs)) != len(runs):
        raise SpecError(f"the runs asked for are {runs}: give every temperature and every seed once, at least one")
    for temperature, seed in runs:
        settings.run_settings(temperature, seed, frames)
    _check_can_run(system, platform)
    with locked(out):
        meta = _prepare(out, system, settings, runs, frames, command)
        _write_starts(out, meta, system)
        wanted = {trajectory_name(*run) for run in runs}
        works = [
            Work(
                name=trajectory.name,
                command=worker_command(out, trajectory.name, checkpoint_seconds),
                steps=settings.equilibration_steps + trajectory.frames * stride,
                steps_done=steps_done(trajectory, settings),
            )
            for trajectory in listed_trajectories(out, meta)
            if trajectory.name in wanted
        ]
        run_workers(works, processes=processes or os.cpu_count() or 1, progress=progress)
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
    out: Path,
    system: SimulationSystem,
    settings: LabelSettings,
    runs: Sequence[tuple[float, int]],
    frames: int,
    command: str | None,
) -> dict[str, Any]:
    """Write meta.json, system.xml and topology.cif, or check that they are of the same making; the new meta."""
    import openmm

    xml = openmm.XmlSerializer.serialize(system.system)
    identity = {
        "versions": {"openmm": openmm.__version__},
        "settings": {
            **asdict(settings),
            "thermostat": settings.thermostat.value,
            "forces": settings.forces.value,
        },
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
    for temperature, seed in runs:
        entry = meta["trajectories"].setdefault(
            trajectory_name(temperature, seed), {"temperature": temperature, "seed": seed, "frames": frames}
        )
        entry["frames"] = max(entry["frames"], frames)
    if command and command not in meta["commands"]:
        meta["commands"].append(command)
    write_atomically(out / META_FILE, (json.dumps(meta, indent=2) + "\n").encode())
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
