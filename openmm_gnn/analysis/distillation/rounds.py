"""From an expensive System to a network that accelerates it, in rounds: sample, pick, label, train, until it is good.

In the first round the teacher runs itself for a moment, or frames that are there are labelled. From then on the student
of the round before runs, watched, at the temperature of interest and above; frames unlike those that are labelled are
labelled; and the next student begins with the weights of the last. Frames that are held out come from runs of their
own. When the force error on them stops falling, or the evaluations of the teacher are spent, a last training on all
labels follows, a scan of step sizes, and a validation.

    OUT/labels.npy              every evaluation of the teacher, in order: none is ever made twice
    OUT/rounds/N/, last-*/      picks.npz, what was picked; network/, the training; round.json, its figures
    OUT/model.safetensors       the network; `accelerate` takes OUT
    OUT/system.xml, topology.cif   the teacher, for `load_system(OUT)`
    OUT/scan, OUT/validation    steps that were tried, and what was looked at
    OUT/report.json, report.png

A run that was killed goes on when it is called again; with more rounds or evaluations, a finished one does too. Frames
of accelerated runs that were stored with their labels (`simulate --relearn`) join the last training.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import openmm

from openmm_gnn.analysis.distillation.geometries import Sampler
from openmm_gnn.analysis.distillation.given_labels import records_of_runs
from openmm_gnn.analysis.distillation.settings import DistillSettings, StudentSettings
from openmm_gnn.analysis.distillation.student import frames_of_records, train_student, usable
from openmm_gnn.analysis.distillation.teacher import CountedTeacher, OutOfCallsError, Purpose
from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import plain, write_json
from openmm_gnn.base.worker_processes import ProgressBar
from openmm_gnn.data.description import DataKind
from openmm_gnn.forces.force_levels import levels_of
from openmm_gnn.forces.gamd_force import has_bonded_terms
from openmm_gnn.learning.training.data_sets import force_errors
from openmm_gnn.learning.training.frames import ForceErrors
from openmm_gnn.md.contexts import choose_platform, refuse_virtual_sites, repartition_hydrogen_mass
from openmm_gnn.md.run_settings import ComputeSettings, text_hash
from openmm_gnn.md.simulation_system import LabelledForces, SimulationSystem, stable_xml
from openmm_gnn.md.systems.systems import SYSTEM_FILE, save_system
from openmm_gnn.md.time_steps import HEAVY_FREE_HYDROGEN, free_hydrogens
from openmm_gnn.networks.weights import BUNDLE, load_model, save_network

DISTILLED = DataKind("openmm_gnn distillation", 1, "openmm-gnn distill")
LABELS, ROUND_FILE, LAST = "labels.npy", "round.json", "last"
HEAVY_HYDROGEN_DALTON, HEAVY_STEP_PS = 3.0, 0.0015
"""Mass of hydrogens whose bonds vibrate, and the time step of runs with it."""
LEAST_LABELS = 20
"""Evaluations of the teacher below which no further round is begun."""
EXTENDABLE = ("teacher_calls", "scan_calls", "rounds", "least_gain", "last_steps")
"""Settings with which a distillation may go on that were others when it was begun."""


@dataclass(frozen=True)
class Round:
    """The figures of a round."""

    name: str
    """Number of the round, or "last" with the numbers of rounds before it and of its steps."""
    calls: int
    """Evaluations of the teacher so far."""
    num_frames: int
    """Frames to train on."""
    num_held_out: int
    errors: dict[str, float]
    """`ForceErrors` on the held-out frames of that time."""
    sampled_ps: float
    """Length of the runs whose frames were picked from, all together; 0 in the first round."""
    faults: tuple[str, ...]
    """What ended runs before their time."""
    error_before: float | None
    """Relative force error of the student of the round before on the same frames; None in the first one."""
    seconds: float
    """Wall time, of the call that finished the round."""

    @property
    def error(self) -> float:
        """Mean absolute error of a force component over the mean norm of the forces."""
        return self.errors["relative_error"]


@dataclass(frozen=True)
class Distilled:
    """A teacher and what was made of it, before any step was tried."""

    directory: Path
    system: SimulationSystem
    """The teacher, with the masses and the time step of the runs, and the last held-out frame as start."""
    hydrogen_mass: float | None
    """Dalton; None: masses were left as they are."""
    forces: LabelledForces
    rounds: list[Round]
    held_out: np.ndarray
    """Records of the held-out frames, see `teacher.record_fields`."""

    @property
    def model(self) -> Path:
        """The bundle."""
        return self.directory / BUNDLE


def distill_rounds(
    system: SimulationSystem,
    directory: Path,
    settings: DistillSettings,
    student: StudentSettings,
    compute: ComputeSettings,
    geometries: Sequence[Path] = (),
    cheap: SimulationSystem | None = None,
    progress: bool = True,
    say: Callable[[str], None] = lambda _: None,
    runs: Sequence[Path] = (),
) -> Distilled:
    """All rounds and the last training; a caller holds the lock of the directory.

    Args:
        system: the teacher; stays as it is.
        geometries: trajectories of its atoms for the first round, in place of runs of the teacher.
        cheap: a System of the same atoms whose runs give the geometries of the first round.
        progress: show bars.
        say: called with a line for each round.
        runs: accelerated runs of this System whose frames were stored with labels; the last training learns them too.
    Raises:
        SpecError: if the System has virtual sites or no expensive forces, or settings contradict each other.
        DataError: if the directory holds something else, or geometries do not belong to the System.
        NonFiniteError: if the teacher's own run comes apart.
    """
    refuse_virtual_sites(system.system, "distillation")
    levels_of(system.system, None)
    if geometries and cheap is not None:
        raise SpecError("geometries and a cheap System are both given: give one source of geometries")
    platform = choose_platform(compute.platform)
    heavy, hydrogen_mass = prepared(system, settings.hydrogen_mass)
    bonded = any(has_bonded_terms(force) for force in system.system.getForces())
    forces = LabelledForces.NONBONDED if bonded else LabelledForces.ALL
    _begin(directory, system, settings, student, geometries, cheap, platform)
    teacher = CountedTeacher(heavy, forces, directory / LABELS, platform, settings.label_calls)
    with _Bars(progress) as bars:
        temperature = settings.temperature or system.temperature
        sampler = Sampler(
            heavy, temperature, settings, student, platform, compute.backend, directory / "rounds", bars.show
        )
        try:
            rounds = _all_rounds(teacher, sampler, geometries, cheap, bars, say)
            records = teacher.all_records()
        finally:
            teacher.close()
        best = min(rounds, key=lambda one: one.error)
        name = f"{LAST}-{len(rounds)}-{settings.last_steps}"
        if runs:
            given = records_of_runs(runs, system, forces, len(rounds), settings.hold_out, records.dtype)
            name += f"-{hashlib.sha256(given.tobytes()).hexdigest()[:8]}"  # a training of other frames is another
            records = np.concatenate([records, given])
            say(f"{len(given)} frames of {', '.join(str(run) for run in runs)} join the last training")
        last = _trained(name, records, best, sampler, forces, settings.last_steps, bars, 0.0, ())
        say(_line(last))
    # Both on all frames that are held out now; best.error is of those of its round.
    chosen = last if last.error_before is None or last.error <= last.error_before else best
    held_out = usable(records, Purpose.HELD_OUT)
    network = load_model(directory / "rounds" / chosen.name / "network")
    errors = dataclasses.asdict(force_errors(network, [frames_of_records(heavy, held_out)]))
    metadata = {"held_out": {"data": directory.name, **errors}, "teacher_calls": last.calls}
    save_network(network, directory / BUNDLE, {**network.spec.metadata, **metadata})
    start = replace(heavy, positions=np.array(held_out["positions"][-1]), prepare=None)
    return Distilled(directory, start, hydrogen_mass, forces, [*rounds, last], held_out)


def prepared(system: SimulationSystem, hydrogen_mass: float | None) -> tuple[SimulationSystem, float | None]:
    """The System with the masses and the time step of its runs, from a start without clashes if it makes one.

    Returns:
        it, and the mass of hydrogens in dalton that was given to it, or None.
    """
    import copy

    free = free_hydrogens(system.system, system.topology)
    if hydrogen_mass is None and free and min(free.values()) < HEAVY_FREE_HYDROGEN:
        hydrogen_mass = HEAVY_HYDROGEN_DALTON
    start = system.start(1)
    if hydrogen_mass is None:
        return replace(system, positions=start, prepare=None), None
    heavier = copy.deepcopy(system.system)
    repartition_hydrogen_mass(heavier, system.topology, hydrogen_mass)
    step = HEAVY_STEP_PS if free and hydrogen_mass >= HEAVY_FREE_HYDROGEN else system.time_step_ps
    return replace(system, system=heavier, positions=start, prepare=None, time_step_ps=step), hydrogen_mass


def _begin(
    directory: Path,
    system: SimulationSystem,
    settings: DistillSettings,
    student: StudentSettings,
    geometries: Sequence[Path],
    cheap: SimulationSystem | None,
    platform: str,
) -> None:
    """Write meta.json and the teacher, or check that both are those that were begun with."""
    making = {
        "settings": {name: value for name, value in plain(settings).items() if name not in EXTENDABLE},
        "student": plain(student),
        "geometries": [{"name": str(path), "bytes": path.stat().st_size} for path in geometries],
        "cheap": None if cheap is None else text_hash(stable_xml(cheap.system)),
        "system": {
            "sha256": text_hash(stable_xml(system.system)),
            "num_atoms": len(system.positions),
        },
        "platform": platform,
        "versions": {"openmm": openmm.__version__},
    }
    DISTILLED.write(directory, DISTILLED.begin(directory, making, {}))
    if not (directory / SYSTEM_FILE).exists():
        save_system(directory, system)


def _all_rounds(
    teacher: CountedTeacher,
    sampler: Sampler,
    geometries: Sequence[Path],
    cheap: SimulationSystem | None,
    bars: _Bars,
    say: Callable[[str], None],
) -> list[Round]:
    settings, rounds = sampler.settings, list[Round]()
    while len(rounds) < settings.rounds:
        number = teacher.round = len(rounds)
        stored = _stored_round(sampler.directory / str(number))
        if stored is None:
            reached, faults = 0.0, list[str]()
            try:
                if number:
                    before = sampler.directory / str(number - 1) / "network" / BUNDLE
                    reached, faults = sampler.by_student(teacher, number, before)
                elif geometries:
                    sampler.by_files(teacher, geometries)
                elif cheap is not None:
                    sampler.by_cheap_system(teacher, cheap)
                else:
                    sampler.by_teacher(teacher)
            except OutOfCallsError as error:
                raise DataError(
                    f"{teacher.records.path} holds other evaluations than this run asks for, and no more are granted: "
                    "give another directory"
                ) from error
            stored = _trained(
                str(number), teacher.all_records(), rounds[-1] if rounds else None, sampler, teacher.forces,
                settings.num_steps, bars, reached, tuple(faults),
            )  # fmt: skip
        rounds.append(stored)
        say(_line(stored))
        if stored.error_before is not None and stored.error > (1 - settings.least_gain) * stored.error_before:
            break
        if teacher.left < LEAST_LABELS:
            break
    return rounds


def _stored_round(folder: Path) -> Round | None:
    """The figures of a round that is complete.

    Raises:
        DataError: if its file is damaged.
    """
    path = folder / ROUND_FILE
    if not path.exists():
        return None
    try:
        fields = json.loads(path.read_text())
        return Round(**{**fields, "faults": tuple(fields["faults"])})
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is damaged ({error}): delete it to train this round again") from error


def _trained(
    name: str,
    records: np.ndarray,
    before: Round | None,
    sampler: Sampler,
    forces: LabelledForces,
    steps: int,
    bars: _Bars,
    reached: float,
    faults: tuple[str, ...],
) -> Round:
    """Train the student of a round, measure it, and keep the figures."""
    folder, begun = sampler.directory / name, time.perf_counter()
    if (stored := _stored_round(folder)) is not None:
        return stored
    bars.hide()
    start = None if before is None else sampler.directory / before.name / "network" / BUNDLE
    bundle = train_student(
        sampler.system, records, forces, folder / "network", start, steps, sampler.student, sampler.settings, bars.shown
    )
    held_out = usable(records, Purpose.HELD_OUT)
    frames = [frames_of_records(sampler.system, held_out)]
    errors: ForceErrors = force_errors(load_model(bundle), frames)
    found = Round(
        name,
        len(records),
        len(usable(records, Purpose.TRAIN)),
        len(held_out),
        dataclasses.asdict(errors),
        reached,
        faults,
        None if start is None else force_errors(load_model(start), frames).relative_error,
        time.perf_counter() - begun,
    )
    write_json(folder / ROUND_FILE, plain(found), indent=2)
    return found


def _line(one: Round) -> str:
    what = "last training" if one.name.startswith(LAST) else f"round {one.name}"
    broke = f"; {len(one.faults)} of its runs broke" if one.faults else ""
    return (
        f"{what}: {one.calls} teacher calls, {one.num_frames} frames, held-out force error {100 * one.error:.2f} %, "
        f"cosine {one.errors['mean_cosine']:.4f}{broke}"
    )


class _Bars:
    """One progress bar after the other, by title; a context manager."""

    def __init__(self, shown: bool) -> None:
        self.shown, self._title = shown, ""
        self._bar: ProgressBar | None = None

    def show(self, title: str, done: float, total: float) -> None:
        """Show how much is done of something; another title begins another bar."""
        if not self.shown:
            return
        if title != self._title or self._bar is None:
            self.hide()
            self._title, self._bar = title, ProgressBar(total, True, 0, title)
            self._bar.__enter__()
        self._bar.update(min(done, total))

    def hide(self) -> None:
        """End the bar, as another kind of bar follows."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
        self._bar = None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: Any) -> None:
        self.hide()
