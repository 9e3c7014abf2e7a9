"""A distillation spends what it is granted, evaluates no geometry twice, and goes on after kills."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import openmm
import pytest
from command_lines import invoke
from killed_processes import KilledCalls
from openmm import unit
from small_teachers import HERE, SMALL, TINY, context_of, distill_tiny, peptide_in_vacuum

from openmm_gnn import accelerate, load_system
from openmm_gnn.analysis.distillation.distill import distill
from openmm_gnn.analysis.distillation.picking import described, farthest
from openmm_gnn.analysis.distillation.rounds import prepared
from openmm_gnn.analysis.distillation.sampling import FRICTION_PER_PS, Frames, teacher_run
from openmm_gnn.analysis.distillation.settings import RELAX_CALLS, DistillSettings
from openmm_gnn.analysis.distillation.student import usable
from openmm_gnn.analysis.distillation.teacher import CountedTeacher, OutOfCallsError, Purpose
from openmm_gnn.base.errors import DataError, SettingsError, SpecError
from openmm_gnn.base.growing_array import read_growing_array
from openmm_gnn.md.simulation_system import BONDED_GROUP, NONBONDED_GROUP, LabelledForces, split_groups
from openmm_gnn.md.systems.systems import save_system


@dataclass(frozen=True)
class Killed:
    """A distillation that was killed again and again, and then came to its end."""

    out: Path
    labels_then: list[np.ndarray]
    """The labels after each kill."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """Killed in the teacher's run, in a training, in later labels or before them, and in the last training."""
    out = tmp_path_factory.mktemp("killed") / "distilled"
    labels, found = out / "labels.npy", list[np.ndarray]()
    moments = [(labels, 40_000), (out / "rounds" / "0" / "network" / "log.csv", 0)]
    moments += [(out / "rounds" / "1" / "picks.npz", 0), (out / "rounds" / "last-2-8" / "network" / "log.csv", 0)]
    with KilledCalls(distill_tiny, out) as calls:
        for file, size in moments:
            calls.kill_one(0.0, file, size)
            found.append(np.array(read_growing_array(labels)))
    distill_tiny(out)
    return Killed(out, found)


@pytest.mark.slow
def test_a_distillation_that_is_killed_anywhere_goes_on_and_asks_the_teacher_nothing_twice(killed: Killed) -> None:
    """What was labelled before each kill is the beginning of the labels in the end; no geometry is there twice."""
    records = read_growing_array(killed.out / "labels.npy", verify=True)
    for then in killed.labels_then:
        np.testing.assert_array_equal(records[: len(then)], then)
    assert 0 < len(killed.labels_then[0]) < TINY.first_calls == killed.labels_then[1]["round"].tolist().count(0) + 1
    assert len({record["positions"].tobytes() for record in records}) == len(records)
    assert [(records["round"] == number).sum() for number in (0, 1)] == [TINY.first_calls - 1, TINY.labels]


@pytest.mark.slow
def test_labels_are_the_teachers_forces(killed: Killed) -> None:
    records, peptide = read_growing_array(killed.out / "labels.npy", verify=True), peptide_in_vacuum()
    split_groups(peptide.system)
    context = context_of(peptide.system)
    for record in records:
        context.setPositions(record["positions"])
        for name, group in (("forces", NONBONDED_GROUP), ("other_forces", BONDED_GROUP)):
            found = context.getState(forces=True, groups={group}).getForces(asNumpy=True)._value
            np.testing.assert_allclose(record[name], found, atol=1e-5 * np.abs(found).max())  # float32 on the CPU


@pytest.mark.slow
def test_the_report_counts_every_evaluation(killed: Killed) -> None:
    report, records = (
        json.loads((killed.out / "report.json").read_text()),
        read_growing_array(killed.out / "labels.npy"),
    )
    assert report["calls"] == {"labels": len(records), "scan": 0, "validation": 0, "all": len(records)}
    assert [one["name"] for one in report["rounds"]] == ["0", "1", "last-2-8"]
    assert report["rounds"][0]["calls"] <= TINY.first_calls + RELAX_CALLS
    assert report["rounds"][1]["calls"] - report["rounds"][0]["calls"] <= TINY.labels
    assert report["rounds"][-1]["num_held_out"] == len(usable(records, Purpose.HELD_OUT))
    assert (killed.out / "report.png").stat().st_size > 10_000


@pytest.mark.slow
def test_the_result_accelerates_the_teacher_by_the_lines_of_its_report(killed: Killed) -> None:
    names: dict[str, object] = {}
    lines = json.loads((killed.out / "report.json").read_text())["python"]
    exec("\n".join(lines), names)
    teacher, system = names["teacher"], names["system"]
    assert isinstance(system, openmm.System) and names["integrator"].getStepSize() == 0.004 * unit.picoseconds  # type: ignore[attr-defined]
    positions = teacher.positions  # type: ignore[attr-defined]
    energies = []
    for one in (system, peptide_in_vacuum().system):
        context = context_of(one)
        context.setPositions(positions)
        energies.append(context.getState(energy=True).getPotentialEnergy()._value)
    assert energies[0] == pytest.approx(energies[1], rel=1e-6)


@pytest.mark.slow
def test_other_settings_do_not_go_on(killed: Killed) -> None:
    with pytest.raises(DataError, match=r"made with labels = 20, now it is 30"):
        distill(peptide_in_vacuum(), killed.out, replace(TINY, labels=30), SMALL, HERE)


def test_the_first_round_takes_the_frames_of_a_trajectory_and_runs_of_a_cheaper_system(tmp_path: Path) -> None:
    """By the command; a perturbed force field is the cheap System. No frame of the trajectory is evaluated twice."""
    import mdtraj

    peptide = peptide_in_vacuum()
    save_system(tmp_path / "peptide", peptide)
    shaken = peptide.positions + np.random.default_rng(1).normal(0, 0.004, (60, *peptide.positions.shape))
    mdtraj.Trajectory(shaken, mdtraj.Topology.from_openmm(peptide.topology)).save(str(tmp_path / "run.dcd"))
    cheap = peptide_in_vacuum().system
    cheap.getForce(0).setBondParameters(0, *cheap.getForce(0).getBondParameters(0)[:3], 2e5)
    (tmp_path / "cheap.xml").write_text(openmm.XmlSerializer.serialize(cheap))
    tiny = "--teacher-calls 92 --scan-calls 0 --first-calls 32 --rounds 1 --steps 2 --last-steps 2 --sample 0.5"
    options = f"{tiny} --width 16 --layers 1 --platform CPU --threads 1".split()
    for source in (["--geometries", str(tmp_path / "run.dcd")], ["--cheap", str(tmp_path / "cheap.xml")]):
        out = tmp_path / source[0].strip("-")
        result = invoke(["distill", str(tmp_path / "peptide"), "--out", str(out), *source, *options])
        assert result.exit_code == 0, result.output
        assert "Next: `openmm-gnn simulate" in result.stdout
        records = read_growing_array(out / "labels.npy")
        assert len(records) == 32 and set(records["purpose"].tolist()) == {Purpose.TRAIN, Purpose.HELD_OUT}
    read = mdtraj.load(str(tmp_path / "run.dcd"), top=mdtraj.Topology.from_openmm(peptide.topology)).xyz
    known = {frame.astype(np.float64).tobytes(): row for row, frame in enumerate(read)}
    records = read_growing_array(tmp_path / "geometries" / "labels.npy")
    rows = [known[record["positions"].tobytes()] for record in records]
    held = [row for row, record in zip(rows, records, strict=True) if record["purpose"] == Purpose.HELD_OUT]
    assert len(set(rows)) == 32 and min(held) >= 48 and max(set(rows) - set(held)) < 48


@pytest.mark.parametrize("rigid", [False, True])
def test_the_teachers_own_run_is_langevin_dynamics(tmp_path: Path, rigid: bool) -> None:
    """Without noise, at 0 K from rest, it is OpenMM's middle scheme step by step.

    Constraints are fulfilled along the new directions of bonds, by OpenMM's integrator along the old ones: positions of
    30 steps differ by some 1e-5 nm.
    """
    peptide = peptide_in_vacuum(rigid)
    teacher = CountedTeacher(peptide, LabelledForces.NONBONDED, tmp_path / "labels.npy", "Reference", 40)
    integrator = openmm.LangevinMiddleIntegrator(0.0, FRICTION_PER_PS, 0.002)
    integrator.setConstraintTolerance(1e-6)
    context = openmm.Context(peptide.system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(peptide.positions)
    context.applyConstraints(1e-6)
    run = teacher_run(teacher, peptide, peptide.positions, 0.0, 0.002, 1, [Purpose.TRAIN] * 30)
    for record in run:
        expected = np.array(context.getState(positions=True).getPositions(asNumpy=True)._value)
        np.testing.assert_allclose(record["positions"], expected, atol=1e-4 if rigid else 1e-9)
        integrator.step(1)
    assert teacher.calls == 30


def test_evaluations_are_counted_once_and_end_where_they_are_spent(tmp_path: Path) -> None:
    peptide = peptide_in_vacuum()
    for granted in (2, 3):  # the second teacher knows what the first one was asked
        teacher = CountedTeacher(peptide, LabelledForces.ALL, tmp_path / "labels.npy", "Reference", granted)
        for shift in range(granted):
            for _ in range(2):
                teacher.evaluate(peptide.positions + shift, Purpose.TRAIN)
            assert teacher.calls == max(shift + 1, granted - 1 if granted == 3 else 0)
        with pytest.raises(OutOfCallsError):
            teacher.evaluate(peptide.positions - 1, Purpose.TRAIN)
        teacher.close()


def test_picks_are_far_from_what_is_known_and_from_each_other() -> None:
    """On a line: known 0, candidates 1, 2, ... 10: the end first, then the middle of what is left, and so on."""
    candidates, known = np.arange(1.0, 11.0)[:, None], np.zeros((1, 1))
    *first, third = candidates[farthest(candidates, known, 3), 0]
    assert first == [10.0, 5.0] and third in (2.0, 3.0, 7.0, 8.0)  # all of these are 2 away from the next
    assert sorted(farthest(candidates, known, 99).tolist()) == list(range(10))


def test_a_turned_frame_is_not_far_from_itself() -> None:
    peptide = peptide_in_vacuum()
    numbers = np.array([atom.element.atomic_number for atom in peptide.topology.atoms()])
    turn = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    shaken = peptide.positions + np.random.default_rng(0).normal(0, 0.01, peptide.positions.shape)
    frames = Frames(np.array([peptide.positions, peptide.positions @ turn + 1.0, shaken]), None)
    first, turned, other = described(frames, np.arange(len(numbers)), numbers, 0.5)
    np.testing.assert_allclose(first, turned, atol=1e-9)
    assert np.abs(first - other).max() > 0.01


def test_masses_and_steps_follow_what_holds_the_hydrogens() -> None:
    """Bonds of a force field hold them: nothing is changed; a mass that is asked for is given."""
    peptide = peptide_in_vacuum()
    assert prepared(peptide, None)[1] is None
    heavy, mass = prepared(peptide, 3.0)
    assert (
        mass == 3.0
        and heavy.masses[1] == pytest.approx(3.0)
        and heavy.masses.sum() == pytest.approx(peptide.masses.sum())
    )
    bare = peptide_in_vacuum()
    potential = openmm.CustomNonbondedForce("1e-3/r^6")  # as a machine-learned potential: no bonded forces
    for _ in range(len(bare.positions)):
        potential.addParticle([])
    for index in reversed(range(bare.system.getNumForces())):
        bare.system.removeForce(index)
    bare.system.addForce(potential)
    heavy, mass = prepared(bare, None)
    assert (mass, heavy.time_step_ps) == (3.0, 0.0015)


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"teacher_calls is 2000: give at least 3060"):
        DistillSettings(teacher_calls=2000)
    with pytest.raises(SpecError, match="one source of geometries"):
        distill(peptide_in_vacuum(), tmp_path / "out", TINY, SMALL, HERE, [tmp_path / "a.dcd"], peptide_in_vacuum())
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        accelerate(peptide_in_vacuum().system, load_system("alanine-dipeptide").topology, tmp_path)
