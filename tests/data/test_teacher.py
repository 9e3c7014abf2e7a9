"""Labelling, with a Lennard-Jones box small enough to run thousands of steps a second."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
from openmm import app

from openmm_gnn.base.errors import BackendError, DataError, NonFiniteError, OpenMMGNNError, SpecError
from openmm_gnn.base.growing_array import read_growing_array
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.data.labels import teacher
from openmm_gnn.data.labels.settings import LabelSettings
from openmm_gnn.data.labels.trajectories import LabelledTrajectories, LabelledTrajectory
from openmm_gnn.md.simulation_system import Thermostat
from openmm_gnn.md.systems.systems import SYSTEM_FILE, TOPOLOGY_FILE, SimulationSystem, load_system, save_system

SIGMA, EPSILON, CUTOFF, EDGE, NUM_ATOMS = 0.34, 1.0, 0.75, 1.52, 64
CUTOFF_UNDER_PRESSURE = 0.6
"""Leaves the box room to shrink to."""


def small_box(pressure: bool = False) -> SimulationSystem:
    """64 Lennard-Jones atoms at liquid density, at constant pressure if asked for."""
    system, topology = openmm.System(), app.Topology()
    system.setDefaultPeriodicBoxVectors((EDGE, 0, 0), (0, EDGE, 0), (0, 0, EDGE))
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(CUTOFF)
    force.setUseDispersionCorrection(False)
    chain = topology.addChain()
    for _ in range(NUM_ATOMS):
        system.addParticle(39.9)
        force.addParticle(0.0, SIGMA, EPSILON)
        topology.addAtom("Ar", app.Element.getBySymbol("Ar"), topology.addResidue("AR", chain))
    system.addForce(force)
    system.addForce(openmm.CMMotionRemover(1))
    if pressure:
        system.addForce(openmm.MonteCarloBarostat(1000.0, 300.0, 5))
        force.setCutoffDistance(CUTOFF_UNDER_PRESSURE)
    sites = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return SimulationSystem("small", system, topology, (sites + 0.5) * (EDGE / 4), 100.0, friction_per_ps=25.0)


def lennard_jones_forces(positions: np.ndarray, edge: float = EDGE, cutoff: float = CUTOFF) -> np.ndarray:
    """Every pair written out; the cutoff is below half the box."""
    vectors = positions[None] - positions[:, None]
    vectors -= edge * np.round(vectors / edge)
    distances = np.linalg.norm(vectors, axis=-1)
    near = (distances < cutoff) & ~np.eye(len(positions), dtype=bool)
    safe = np.where(near, distances, 1.0)
    sixth = (SIGMA / safe) ** 6
    return -(np.where(near, 24 * EPSILON * (2 * sixth**2 - sixth) / safe**2, 0.0)[..., None] * vectors).sum(axis=1)


def label(system: SimulationSystem, out: Path, **settings: Any) -> LabelledTrajectories:
    return teacher.label(system, out, LabelSettings(**settings), progress=False)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> LabelledTrajectories:
    return label(
        small_box(),
        tmp_path_factory.mktemp("data") / "small",
        temperatures=(100.0, 150.0),
        seeds=(1, 2),
        frames=300,
        stride=20,
        equilibration=2.0,
        processes=2,
    )


def test_every_frame_is_there_once_after_the_equilibration(labelled: LabelledTrajectories) -> None:
    assert [(t.temperature, t.seed) for t in labelled.trajectories] == [(100, 1), (100, 2), (150, 1), (150, 2)]
    for trajectory in labelled.trajectories:
        trajectory.verify()
        assert trajectory.complete
        assert trajectory.records["step"].tolist() == list(range(1020, 1000 + 300 * 20 + 1, 20))
        np.testing.assert_allclose(trajectory.records["time"], 0.002 * trajectory.records["step"], rtol=1e-9)
        np.testing.assert_allclose(trajectory.box_vectors, np.tile(np.eye(3) * EDGE, (300, 1, 1)))


def test_forces_belong_to_exactly_the_stored_positions(labelled: LabelledTrajectories) -> None:
    for trajectory in labelled.trajectories:
        for frame in (0, 137, 299):
            expected = lennard_jones_forces(trajectory.positions[frame])
            assert np.abs(expected).max() > 30
            np.testing.assert_allclose(trajectory.forces[frame], expected, atol=1e-4 * np.abs(expected).max(), rtol=0)


def test_energies_and_velocities_agree(labelled: LabelledTrajectories) -> None:
    for trajectory in labelled.trajectories:
        velocities = trajectory.records["velocities"].astype(np.float64)
        np.testing.assert_allclose(
            0.5 * 39.9 * (velocities**2).sum(axis=(1, 2)), trajectory.records["kinetic_energy"], rtol=1e-5
        )


def test_temperatures_are_those_asked_for(labelled: LabelledTrajectories) -> None:
    degrees = 3 * NUM_ATOMS - 3
    for trajectory in labelled.trajectories:
        temperatures = 2 * trajectory.records["kinetic_energy"] / (degrees * BOLTZMANN_KJ_MOL_K)
        # Canonical: relative deviation sqrt(2 / degrees) per frame; frames 0.04 ps apart, friction 25/ps.
        assert temperatures.mean() == pytest.approx(trajectory.temperature, rel=0.03)
        assert temperatures.std() / temperatures.mean() == pytest.approx(np.sqrt(2 / degrees), rel=0.25)


def test_positions_are_unwrapped_and_seeds_differ(labelled: LabelledTrajectories) -> None:
    first, second = labelled.select([1, 2], temperature=150.0)
    jumps = np.abs(np.diff(first.positions, axis=0)).max()
    assert jumps < 0.1 < EDGE / 2
    assert np.abs(first.positions[0] - second.positions[0]).max() > 0.05


def test_the_data_bring_their_system_and_topology(labelled: LabelledTrajectories) -> None:
    meta = json.loads((labelled.path / "meta.json").read_text())
    assert meta["settings"]["thermostat"] == "langevin" and meta["versions"]["openmm"] == openmm.__version__
    given = openmm.XmlSerializer.serialize(small_box().system)
    assert openmm.XmlSerializer.serialize(load_system(labelled.path).system) == given
    assert {atom.element.symbol for atom in labelled.topology.atoms()} == {"Ar"}


def test_an_extended_run_keeps_its_frames_and_adds_the_missing(tmp_path: Path) -> None:
    settings = {"stride": 10, "equilibration": 0.1, "platform": "Reference"}
    label(small_box(), tmp_path, seeds=[3], frames=20, **settings)
    before = np.array(LabelledTrajectories.open(tmp_path).trajectories[0].records)
    longer = label(small_box(), tmp_path, seeds=[3, 4], frames=50, **settings)
    assert [len(trajectory) for trajectory in longer.trajectories] == [50, 50]
    assert same_frames(longer.trajectories[0].records[:20], before)
    at_once = label(small_box(), tmp_path / "at_once", seeds=[3], frames=50, **settings)
    assert same_frames(longer.trajectories[0].records, at_once.trajectories[0].records)


def test_a_run_killed_before_its_first_byte_begins_again(tmp_path: Path) -> None:
    settings = {"stride": 1, "equilibration": 0.0, "frames": 2}
    (trajectory,) = label(small_box(), tmp_path, seeds=[1], **settings).trajectories
    trajectory.checkpoint_file.unlink()
    trajectory.frames_file.write_bytes(b"")
    assert LabelledTrajectories.open(tmp_path).trajectories == []
    (again,) = label(small_box(), tmp_path, seeds=[1], **settings).trajectories
    assert again.records["step"].tolist() == [1, 2]


def test_frames_that_vanished_behind_a_checkpoint_are_missed(tmp_path: Path) -> None:
    settings = {"stride": 1, "equilibration": 0.0, "frames": 2}
    (trajectory,) = label(small_box(), tmp_path, seeds=[1], **settings).trajectories
    trajectory.frames_file.unlink()
    with pytest.raises(DataError, match=r"has 0 frames, its checkpoint was written after 2: delete"):
        label(small_box(), tmp_path, seeds=[1], **{**settings, "frames": 3})


def test_a_barostat_takes_the_temperature_and_the_box_is_stored_with_its_frame(tmp_path: Path) -> None:
    data = label(small_box(pressure=True), tmp_path, seeds=[1], frames=40, stride=20, equilibration=0)
    (trajectory,) = data.trajectories
    edges = trajectory.box_vectors[:, 0, 0]
    assert len(np.unique(edges)) > 5
    for frame in (5, 39):
        expected = lennard_jones_forces(trajectory.positions[frame], edges[frame], CUTOFF_UNDER_PRESSURE)
        np.testing.assert_allclose(trajectory.forces[frame], expected, atol=1e-4 * np.abs(expected).max(), rtol=0)


TWO_FRAMES: dict[str, Any] = {"stride": 10, "equilibration": 0.1, "platform": "Reference", "frames": 2}


@pytest.fixture(scope="module")
def two_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of labels that no test changes."""
    out = tmp_path_factory.mktemp("two_frames")
    label(small_box(), out, seeds=[1], **TWO_FRAMES)
    return out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stride": 5}, "made with stride = 10, now it is 5"),
        ({"equilibration": 0.2}, "made with equilibration_steps = 50, now it is 100"),
        ({"thermostat": Thermostat.NOSE_HOOVER}, "made with thermostat = 'langevin', now it is 'nose-hoover'"),
        ({"friction": 1.0}, "made with friction_per_ps = 25.0, now it is 1.0"),
        ({"platform": "CPU"}, "made with platform = 'Reference', now it is 'CPU'"),
    ],
)
def test_other_settings_in_the_same_directory_are_refused(two_frames: Path, change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        label(small_box(), two_frames, seeds=[1], **{**TWO_FRAMES, **change})
    assert len(LabelledTrajectories.open(two_frames).trajectories[0]) == 2


def test_other_systems_other_versions_and_other_directories_are_refused(tmp_path: Path) -> None:
    settings = {"seeds": [1], "stride": 1, "equilibration": 0.0, "frames": 2}
    label(small_box(), tmp_path / "data", **settings)
    with pytest.raises(DataError, match="system.sha256"):
        label(small_box(pressure=True), tmp_path / "data", **settings)
    meta = tmp_path / "data" / "meta.json"
    meta.write_text(meta.read_text().replace(f'"openmm": "{openmm.__version__}"', '"openmm": "7.0"'))
    with pytest.raises(DataError, match=r"versions.openmm = '7.0'"):
        label(small_box(), tmp_path / "data", **settings)
    with pytest.raises(DataError, match="and no meta.json: give a new directory"):
        label(small_box(), tmp_path, **settings)
    for wrong in (
        {"seeds": []},
        {"seeds": [1, 1]},
        {"stride": 0},
        {"frames": 0},
        {"temperatures": [-1.0]},
        {"platform": "Abacus"},
    ):
        with pytest.raises((SpecError, BackendError)):
            label(small_box(), tmp_path / "new", **{**settings, **wrong})


def test_a_run_that_blows_up_names_trajectory_and_step(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"at step \d+: first atom \d+ .Ar of .*100K-seed-1/last_good.pdb"):
        label(replace(small_box(), time_step_ps=1.0), tmp_path, seeds=[1], frames=100, stride=10)


def test_a_thermostat_inside_the_system_is_refused(tmp_path: Path) -> None:
    system = small_box()
    system.system.addForce(openmm.AndersenThermostat(100.0, 1.0))
    with pytest.raises(SpecError, match="AndersenThermostat: remove it"):
        label(system, tmp_path, seeds=[1], frames=2)


def test_what_openmm_refuses_is_said_with_trajectory_and_step(tmp_path: Path) -> None:
    system = small_box(pressure=True)
    system.system.getForce(0).setCutoffDistance(0.99 * EDGE / 2)
    system.system.getForce(2).setDefaultPressure(1e5)
    with pytest.raises(OpenMMGNNError, match=r"OpenMM stopped 100K-seed-1 at step \d+: .*twice the nonbonded cutoff"):
        label(system, tmp_path, seeds=[1], frames=200)


def test_the_command_line_labels_a_serialised_system_with_a_progress_bar(tmp_path: Path) -> None:
    save_system(tmp_path, small_box())
    where = [str(tmp_path / SYSTEM_FILE), "--topology", str(tmp_path / TOPOLOGY_FILE), "--out", str(tmp_path / "out")]
    what = ["--seeds", "2,4-5", "--frames", "3", "--stride", "5", "--equilibration", "0", "--temperatures", "90"]
    done = subprocess.run([*COMMAND, *where, *what], capture_output=True, text=True, check=True)
    assert "3/3 trajectories" in done.stderr and "remaining" in done.stderr and "9 frames of 3" in done.stdout
    assert LabelledTrajectories.open(tmp_path / "out").seeds == [2, 4, 5]


COMMAND = [sys.executable, "-m", "openmm_gnn", "label"]


@pytest.mark.slow
def test_kills_lose_no_frame_and_double_none(tmp_path: Path) -> None:
    """SIGKILL at random moments of 6 runs, of the command or of one of its workers; then one run to the end.

    On the Reference platform the dynamics is deterministic, so the result must equal an uninterrupted run bit for bit.
    Every run asks for more frames than the last, so that kills meet equilibration, production and extension.
    What goes wrong in a third of a run's time is met by one of 6 kills in 10 of 11 runs of this test.
    """
    random, out, frames = np.random.default_rng(7), tmp_path / "killed", 0
    save_system(tmp_path / "system", small_box())
    kills = 0
    for _ in range(18):
        frames += 10
        process = start(tmp_path, out, frames)
        killed = kill_after(process, random.uniform(0.0, 0.7), a_worker=random.random() < 0.4)
        kills += killed
        if (out / "meta.json").exists():
            for trajectory in LabelledTrajectories.open(out).trajectories:
                check_whole(trajectory)
        if kills == 6:
            break
    assert kills == 6, f"only {kills} runs lived long enough to be killed"
    assert start(tmp_path, out, frames).wait() == 0
    assert start(tmp_path, tmp_path / "at_once", frames).wait() == 0

    resumed, at_once = (LabelledTrajectories.open(path) for path in (out, tmp_path / "at_once"))
    assert len(resumed) == len(at_once) == 2
    for one, other in zip(resumed.trajectories, at_once.trajectories, strict=True):
        check_whole(one)
        assert len(one) == frames
        assert same_frames(one.records, other.records)


def start(tmp_path: Path, out: Path, frames: int) -> subprocess.Popen[bytes]:
    arguments = ["--seeds", "1,2", "--frames", frames, "--stride", 7, "--equilibration", 0.5, "--processes", 2]
    arguments += ["--platform", "Reference", "--thermostat", "nose-hoover", "--checkpoint-seconds", 0.03]
    command = [*COMMAND, tmp_path / "system", "--out", out, "--quiet", *arguments]
    return subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_after(process: subprocess.Popen[bytes], seconds: float, a_worker: bool) -> bool:
    """Kill -9 the command, or one of its workers, so long after its workers began; False if it was done by then."""
    while not (workers := children(process.pid)) and process.poll() is None:
        time.sleep(0.005)
    time.sleep(seconds)
    workers = children(process.pid)
    try:
        if process.poll() is not None:
            return False
        if a_worker and workers:
            os.kill(workers[-1], signal.SIGKILL)
            return process.wait(timeout=30) == 1  # the command says so, and stops the other worker
        process.kill()
        return True
    finally:
        process.wait()


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def check_whole(trajectory: LabelledTrajectory) -> None:
    """numpy can read it, every checksum is good, and the steps follow each other without a gap."""
    records = np.load(trajectory.frames_file, mmap_mode="r") if trajectory.frames_file.stat().st_size else []
    if len(records):
        read_growing_array(trajectory.frames_file, verify=True)
        assert np.array_equal(records["step"], 250 + 7 * np.arange(1, len(records) + 1))


def same_frames(one: np.ndarray, other: np.ndarray) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one.dtype.names or ())


def test_a_worker_that_dies_is_reported_with_the_way_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openmm_gnn.data.labels.teacher as teacher

    suicide = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    monkeypatch.setattr(teacher, "worker_command", lambda *_: suicide)
    with pytest.raises(OpenMMGNNError, match=r"100K-seed-1 was ended by signal 9 .* same command again"):
        label(small_box(), tmp_path, seeds=[1], frames=2)


def test_two_commands_on_one_directory_do_not_mix(tmp_path: Path) -> None:
    save_system(tmp_path / "system", small_box())
    first = start(tmp_path, tmp_path / "out", 100_000)
    try:
        while not children(first.pid):
            assert first.poll() is None
            time.sleep(0.01)
        with pytest.raises(DataError, match="another process is writing into"):
            label(small_box(), tmp_path / "out", seeds=[5], frames=2)
    finally:
        first.kill()
        first.wait()


def test_workers_leave_when_the_command_is_killed(tmp_path: Path) -> None:
    save_system(tmp_path / "system", small_box())
    process = start(tmp_path, tmp_path / "out", 100_000)
    try:
        while len(workers := children(process.pid)) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(1.0)
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 10
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker outlives its command"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody has collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
