"""The geometries of each round: who samples them, at which temperatures, and which of them the teacher labels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from openmm_gnn.analysis.distillation.picking import described, farthest
from openmm_gnn.analysis.distillation.sampling import Frames, joined, relaxed_by, sampled_run, teacher_run
from openmm_gnn.analysis.distillation.settings import DistillSettings, StudentSettings
from openmm_gnn.analysis.distillation.student import usable
from openmm_gnn.analysis.distillation.teacher import CountedTeacher, Purpose
from openmm_gnn.analysis.force_checks import network_system
from openmm_gnn.base.errors import DataError
from openmm_gnn.base.files import write_arrays
from openmm_gnn.features.topologies import as_mdtraj
from openmm_gnn.features.trajectory_frames import check_atoms, frames_of
from openmm_gnn.graph.topology_tables import real_atoms
from openmm_gnn.md.simulation_system import SimulationSystem
from openmm_gnn.md.systems.structure_files import relaxed
from openmm_gnn.networks.weights import load_model

TEACHER_HELD_OUT = 5
"""One step in so many of the first round is of the teacher's held-out run; of that run, one frame in so many counts."""
PICKS = "picks.npz"
Report = Callable[[str, float, float], None]
"""Called with what is done, how much of it, and how much there is."""


@dataclass(frozen=True)
class Sampler:
    """What is needed to sample geometries in any round."""

    system: SimulationSystem
    """The teacher's, with the masses and the time step of the runs."""
    temperature: float
    settings: DistillSettings
    student: StudentSettings
    platform: str
    backend: str
    directory: Path
    report: Report

    def seed(self, number: int, run: int) -> int:
        """A seed for each run of each round, 1 to 2^31 - 1."""
        sequence = np.random.SeedSequence([self.settings.seed, number, run])
        return 1 + int(sequence.generate_state(1)[0]) % (2**31 - 2)

    def by_teacher(self, teacher: CountedTeacher) -> None:
        """The first round, by runs of the teacher itself: a hot one to train on, another one to hold out."""
        calls, step_ps = self.settings.first_calls, self.system.time_step_ps
        shown = lambda: self.report("teacher's own runs", teacher.calls, calls)  # noqa: E731
        start = relaxed_by(teacher, self.system, shown)
        num_held = calls // TEACHER_HELD_OUT
        held_out = [Purpose.PASSED if k % TEACHER_HELD_OUT else Purpose.HELD_OUT for k in range(1, num_held + 1)]
        runs = (
            (self.settings.hot * self.temperature, [Purpose.TRAIN] * (calls - num_held)),
            (self.temperature, held_out),
        )
        for run, (kelvin, purposes) in enumerate(runs):
            for _ in teacher_run(teacher, self.system, start, kelvin, step_ps, self.seed(0, run), purposes):
                shown()

    def by_files(self, teacher: CountedTeacher, files: Sequence[Path]) -> None:
        """The first round, out of trajectories: the end of the last file is held out, the rest is picked from."""
        topology = as_mdtraj(self.system.topology)
        parts = []
        for path in files:
            check_atoms(path, topology, periodic=self.system.periodic)
            for found in frames_of(path, topology, np.arange(topology.n_atoms), periodic=self.system.periodic):
                if self.system.periodic and found.box_vectors is None:
                    raise DataError(f"{path} has no periodic box, the system has one: give a trajectory with boxes")
                boxes = np.asarray(found.box_vectors, dtype=np.float64) if self.system.periodic else None
                parts.append(Frames(found.positions.astype(np.float64), boxes))
        frames = joined(parts)
        num_held = len(frames) // TEACHER_HELD_OUT
        if num_held < 2:
            raise DataError(f"{', '.join(map(str, files))} have {len(frames)} frames: give 10 at least")
        rows, gap = np.arange(len(frames)), max(1, num_held // 10)
        self.label(teacher, 0, frames[rows[: -num_held - gap]], frames[rows[-num_held:]])

    def by_cheap_system(self, teacher: CountedTeacher, cheap: SimulationSystem) -> None:
        """The first round, out of runs of a cheaper System of the same atoms."""
        if [atom.element for atom in cheap.topology.atoms()] != [a.element for a in self.system.topology.atoms()]:
            raise DataError(f"{cheap.name} has other atoms than {self.system.name}: give a System of the same atoms")
        start = relaxed(cheap.system, self.system.positions)(1)
        self._by_runs(teacher, 0, replace(self.system, system=cheap.system), [start, start, start], None)

    def by_student(self, teacher: CountedTeacher, number: int, bundle: Path) -> tuple[float, list[str]]:
        """A later round, out of runs of the student of the round before; picoseconds reached, and what ended runs."""
        system = replace(
            self.system, system=network_system(self.system, load_model(bundle), teacher.forces, self.backend)
        )
        records = teacher.all_records()
        generator = np.random.default_rng(self.seed(number, 9))
        training = usable(records, Purpose.TRAIN)["positions"]
        starts = [training[generator.integers(len(training))] for _ in range(2)]
        starts.append(usable(records, Purpose.HELD_OUT)["positions"][-1])
        return self._by_runs(teacher, number, system, starts, bundle)

    def _by_runs(
        self,
        teacher: CountedTeacher,
        number: int,
        system: SimulationSystem,
        starts: Sequence[np.ndarray],
        bundle: Path | None,
    ) -> tuple[float, list[str]]:
        folder, length = self.directory / str(number), self.settings.sample_ps
        if (folder / PICKS).exists():
            self.label(teacher, number)
            with np.load(folder / PICKS, allow_pickle=False) as picks:
                return picks["reached_ps"].item(), picks["faults"].tolist()
        kelvins = (self.temperature, self.settings.hot * self.temperature, self.temperature)
        who = "cheap System" if bundle is None else f"student of round {number - 1}"
        runs = []
        for run, (kelvin, start) in enumerate(zip(kelvins, starts, strict=True)):
            report = lambda done, run=run: self.report(f"runs of the {who}", run * length + done, 3 * length)  # noqa: E731
            runs.append(
                sampled_run(
                    system, start, kelvin, system.time_step_ps, length, self.seed(number, run), self.platform,
                    folder / "runs", report,
                )
            )  # fmt: skip
        reached = sum(run.reached_ps for run in runs)
        faults = [f"{kelvin:g} K: {run.fault}" for kelvin, run in zip(kelvins, runs, strict=True) if run.fault]
        self.label(teacher, number, joined([run.frames for run in runs[:2]]), runs[2].frames, reached, faults)
        return reached, faults

    def label(
        self,
        teacher: CountedTeacher,
        number: int,
        candidates: Frames | None = None,
        held_out: Frames | None = None,
        reached_ps: float = 0.0,
        faults: Sequence[str] = (),
    ) -> None:
        """Pick frames, keep them in a file, and have them labelled; the picks of a file that is there are kept.

        Raises:
            DataError: if there is nothing to pick from.
        """
        path = self.directory / str(number) / PICKS
        if not path.exists():
            assert candidates is not None and held_out is not None
            chosen, held = self._picked(teacher, number, candidates, held_out)
            path.parent.mkdir(parents=True, exist_ok=True)
            arrays = {"train": chosen.positions, "held_out": held.positions}
            arrays |= {"reached_ps": np.array(reached_ps), "faults": np.array(list(faults), dtype=np.str_)}
            if chosen.box_vectors is not None and held.box_vectors is not None:
                arrays |= {"train_boxes": chosen.box_vectors, "held_out_boxes": held.box_vectors}
            write_arrays(path, **arrays)
        with np.load(path, allow_pickle=False) as picks:
            stored = {name: picks[name] for name in picks.files}
        total, done = len(stored["held_out"]) + len(stored["train"]), 0
        for name, purpose in (("held_out", Purpose.HELD_OUT), ("train", Purpose.TRAIN)):
            boxes = stored.get(f"{name}_boxes")
            for row, positions in enumerate(stored[name]):
                teacher.evaluate(positions, purpose, None if boxes is None else boxes[row])
                done += 1
                self.report("labels", done, total)

    def _picked(
        self, teacher: CountedTeacher, number: int, candidates: Frames, held_out: Frames
    ) -> tuple[Frames, Frames]:
        count = min(self.settings.labels if number else self.settings.first_calls, teacher.left)
        num_held = min(max(1, count // self.settings.hold_out), len(held_out))
        if not len(candidates) or not num_held:
            raise DataError(
                f"round {number} gave no geometries, as its runs broke at once: see {self.directory / str(number)}, "
                "and give more first_calls or steps"
            )
        rows = np.linspace(0, len(held_out) - 1, num_held).round().astype(int)
        numbers = np.array([a.element.atomic_number for a in self.system.topology.atoms() if a.element is not None])
        atoms = np.array(real_atoms(self.system.topology))
        found = described(candidates, atoms, numbers, self.student.cutoff)
        records = usable(teacher.all_records(), Purpose.TRAIN) if number else None
        known = found[:1]
        if records is not None:
            boxes = np.array(records["box_vectors"]) if self.system.periodic else None
            known = described(Frames(np.array(records["positions"]), boxes), atoms, numbers, self.student.cutoff)
        wanted = min(count - num_held, len(candidates))
        usual = np.random.default_rng(self.seed(number, 8)).permutation(len(candidates))[: wanted // 2]
        rest = np.setdiff1d(np.arange(len(candidates)), usual)
        strange = rest[farthest(found[rest], np.concatenate([known, found[usual]]), wanted - len(usual))]
        picked = np.concatenate([usual, strange])
        if len(picked) < count - num_held:
            warnings.warn(
                f"round {number} has {len(candidates)} geometries to pick from, where {count - num_held} were to be "
                "labelled: its runs broke early, or sample_ps is short",
                stacklevel=2,
            )
        return candidates[picked], held_out[rows]
