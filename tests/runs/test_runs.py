"""Runs against OpenMM alone, resumed runs against uninterrupted ones, and kills at random moments."""

from __future__ import annotations

import json
import random
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
from killed_processes import KilledCalls
from openmm import app, unit

from openmm_gnn.base.errors import BackendError, DataError, NonFiniteError, SettingsError, SpecError
from openmm_gnn.base.files import locked, read_checkpoint
from openmm_gnn.data.conformers.settings import PeptideSettings
from openmm_gnn.data.labels.settings import LabelSettings
from openmm_gnn.md.contexts import choose_platform, degrees_of_freedom, with_model_force
from openmm_gnn.md.integrators import make_integrator
from openmm_gnn.md.run_settings import ComputeSettings, RunCourse, RunSettings
from openmm_gnn.md.simulation_system import UNTIMED, Thermostat
from openmm_gnn.md.systems.structure_files import ForceFieldSettings, SystemFiles
from openmm_gnn.md.systems.systems import SimulationSystem
from openmm_gnn.runs.directory import RunDirectory
from openmm_gnn.runs.simulate import simulate

EDGE, PER_EDGE = 1.6, 3
SETTINGS = RunCourse(
    steps=120,
    equilibration_steps=45,
    report_interval=10,
    checkpoint_interval=30,
    time_step_ps=0.002,
    temperature=100.0,
    thermostat=Thermostat.NOSE_HOOVER,
    friction_per_ps=25.0,
    seed=1,
)


def small_argon() -> SimulationSystem:
    """27 Lennard-Jones atoms on a lattice."""
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors((EDGE, 0, 0), (0, EDGE, 0), (0, 0, EDGE))
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    force.setCutoffDistance(0.75)
    topology = app.Topology()
    topology.setPeriodicBoxVectors(np.eye(3) * EDGE * unit.nanometer)
    chain = topology.addChain()
    for _ in range(PER_EDGE**3):
        system.addParticle(39.9)
        force.addParticle(0.0, 0.34, 0.996)
        topology.addAtom("Ar", app.element.argon, topology.addResidue("AR", chain))
    system.addForce(force)
    system.addForce(openmm.CMMotionRemover())
    sites = np.stack(np.meshgrid(*[np.arange(PER_EDGE)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return SimulationSystem("small", system, topology, (sites + 0.5) * (EDGE / PER_EDGE), temperature=100.0)


@pytest.mark.parametrize("thermostat", [kind for kind in Thermostat if kind not in UNTIMED])
def test_frames_and_log_are_those_of_openmm_alone(tmp_path: Path, thermostat: Thermostat) -> None:
    settings = replace(SETTINGS, thermostat=thermostat, friction_per_ps=2.0)
    start = small_argon()
    result = simulate(start, tmp_path / "run", settings, compute=ComputeSettings("Reference"))
    context = openmm.Context(start.system, make_integrator(settings), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(start.positions)
    context.setVelocitiesToTemperature(settings.temperature, settings.seed)
    context.getIntegrator().step(settings.equilibration_steps)
    positions, boxes = result.directory.read_positions()
    log = result.directory.read_log()
    assert len(positions) == len(log) == settings.num_frames == 12
    for frame in range(settings.num_frames):
        context.getIntegrator().step(settings.report_interval)
        state = context.getState(positions=True, energy=True)
        assert positions[frame] == pytest.approx(state.getPositions(asNumpy=True)._value, abs=1e-6)
        assert log["potential_kj_mol"][frame] == pytest.approx(state.getPotentialEnergy()._value, abs=1e-5)
        kinetic = state.getKineticEnergy()
        assert log["kinetic_kj_mol"][frame] == pytest.approx(kinetic._value, abs=1e-5)
        expected = (2 * kinetic / ((3 * 27 - 3) * unit.MOLAR_GAS_CONSTANT_R)).value_in_unit(unit.kelvin)
        assert log["temperature_K"][frame] == pytest.approx(expected, abs=1e-3)
    assert log["step"].tolist() == [10 * (frame + 1) for frame in range(12)]
    assert log["time_ps"] == pytest.approx(log["step"] * 0.002)
    assert log["volume_nm3"] == pytest.approx(np.full(12, EDGE**3), rel=1e-6)
    assert boxes == pytest.approx(np.repeat(np.eye(3)[None] * EDGE, 12, axis=0))
    final = openmm.XmlSerializer.deserialize(result.directory.final_state.read_text())
    assert (
        final.getPositions(asNumpy=True)._value == context.getState(positions=True).getPositions(asNumpy=True)._value
    ).all()


def test_stored_positions_are_not_wrapped(tmp_path: Path) -> None:
    hot = replace(SETTINGS, temperature=5000.0, steps=1000, equilibration_steps=0)
    positions, _ = simulate(
        small_argon(), tmp_path / "run", hot, compute=ComputeSettings("Reference")
    ).directory.read_positions()
    assert np.abs(positions[-1] - EDGE / 2).max() > 1.5 * EDGE
    assert np.abs(np.diff(positions, axis=0)).max() < EDGE / 2


def test_a_run_that_is_complete_stays_as_it_is(tmp_path: Path) -> None:
    simulate(small_argon(), tmp_path / "run", SETTINGS, compute=ComputeSettings("Reference"))
    before = (tmp_path / "run" / "trajectory.dcd").read_bytes()
    again = simulate(small_argon(), tmp_path / "run", SETTINGS, compute=ComputeSettings("Reference"))
    assert again.ns_per_day == 0 and (tmp_path / "run" / "trajectory.dcd").read_bytes() == before


def test_resuming_with_other_settings_names_them(tmp_path: Path) -> None:
    simulate(small_argon(), tmp_path / "run", SETTINGS, compute=ComputeSettings("Reference"))
    other = replace(SETTINGS, temperature=120.0, seed=7)
    with pytest.raises(SpecError, match=r"settings.seed: 1 stored, 7 given; settings.temperature: 100.0 stored, 120.0"):
        simulate(small_argon(), tmp_path / "run", other, compute=ComputeSettings("Reference"))
    changed = small_argon()
    changed.system.setParticleMass(0, 20.0)
    with pytest.raises(SpecError, match=r"system.hash"):
        simulate(changed, tmp_path / "run", SETTINGS, compute=ComputeSettings("Reference"))


def test_extended_run_equals_a_long_one(tmp_path: Path) -> None:
    longer = replace(SETTINGS, steps=240)
    simulate(small_argon(), tmp_path / "short", SETTINGS, compute=ComputeSettings("Reference"))
    extended = simulate(small_argon(), tmp_path / "short", longer, compute=ComputeSettings("Reference"))
    whole = simulate(small_argon(), tmp_path / "long", longer, compute=ComputeSettings("Reference"))
    assert_same_run(extended.directory, whole.directory)
    again = simulate(small_argon(), tmp_path / "short", longer, compute=ComputeSettings("Reference"))
    assert_same_run(again.directory, whole.directory)
    with pytest.raises(SpecError, match="has reached step 240"):
        simulate(small_argon(), tmp_path / "short", SETTINGS, compute=ComputeSettings("Reference"))
    assert_same_run(again.directory, whole.directory)


def test_frames_past_the_checkpoint_are_cut(tmp_path: Path) -> None:
    """As after a kill between a frame and the checkpoint: half a frame, half a row, and whole ones too many."""
    whole = simulate(small_argon(), tmp_path / "whole", SETTINGS, compute=ComputeSettings("Reference")).directory
    run = simulate(small_argon(), tmp_path / "run", SETTINGS, compute=ComputeSettings("Reference")).directory
    old_checkpoint = run.checkpoint.read_bytes()
    simulate(small_argon(), run.path, replace(SETTINGS, steps=200), compute=ComputeSettings("Reference"))
    run.checkpoint.write_bytes(old_checkpoint)
    with open(run.trajectory, "ab") as trajectory, open(run.log, "a") as log:
        trajectory.write(b"\1" * 99)
        log.write("210,0.4")
    simulate(small_argon(), run.path, SETTINGS, compute=ComputeSettings("Reference"))
    assert_same_run(run, whole)


def test_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    run = simulate(small_argon(), tmp_path / "run", SETTINGS, compute=ComputeSettings("Reference")).directory
    content = bytearray(run.checkpoint.read_bytes())
    content[-20] ^= 255
    run.checkpoint.write_bytes(bytes(content))
    with pytest.raises(DataError, match="damaged"):
        simulate(small_argon(), run.path, SETTINGS, compute=ComputeSettings("Reference"))


def test_a_run_whose_checkpoint_is_gone_does_not_begin_again_over_its_frames(tmp_path: Path) -> None:
    run, compute = RunDirectory(tmp_path / "run"), ComputeSettings("Reference")
    simulate(small_argon(), run.path, SETTINGS, compute=compute)
    before = run.trajectory.read_bytes()
    run.checkpoint.unlink()
    with pytest.raises(DataError, match="has 12 frames, but no checkpoint to go on from"):
        simulate(small_argon(), run.path, SETTINGS, compute=compute)
    assert run.trajectory.read_bytes() == before


def test_two_processes_cannot_write_one_run(tmp_path: Path) -> None:
    with locked(tmp_path / "run"), pytest.raises(DataError, match="another process"):
        simulate(small_argon(), tmp_path / "run", SETTINGS, compute=ComputeSettings("Reference"))


def test_blow_up_stops_the_run_and_keeps_the_last_good_frame(tmp_path: Path) -> None:
    start = small_argon()
    wild = openmm.CustomExternalForce("1e-6*sqrt(100 - vx); vx = x*x*step(x)")
    start.positions[5, 0] = 9.99  # one atom outside; it leaves the domain of the square root when it gets to 10
    for index in range(27):
        wild.addParticle(index, [])
    start.system.addForce(wild)
    hot = replace(SETTINGS, temperature=3000.0, steps=5000)
    with pytest.raises(NonFiniteError, match=r"first atom \d+ \(Ar of residue AR \d+\)"):
        simulate(start, tmp_path / "run", hot, compute=ComputeSettings("Reference"))
    assert (tmp_path / "run" / "last_good.pdb").exists()


def test_replaced_forces_leave_only_the_network_and_the_center_of_mass_at_rest() -> None:
    system = small_argon().system
    replaced = with_model_force(system, openmm.CustomExternalForce("x"))
    kinds = [type(force).__name__ for force in replaced.getForces()]
    assert kinds == ["CustomExternalForce", "CMMotionRemover"]
    assert system.getNumForces() == 2
    assert replaced.getParticleMass(3) == system.getParticleMass(3)
    system.addForce(openmm.MonteCarloBarostat(1.0, 100.0))
    kept = with_model_force(system, openmm.CustomExternalForce("x"))
    assert any(isinstance(force, openmm.MonteCarloBarostat) for force in kept.getForces())


def test_degrees_of_freedom_of_rigid_molecules() -> None:
    system = openmm.System()
    for mass in (16.0, 1.0, 1.0, 0.0):
        system.addParticle(mass)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        system.addConstraint(first, second, 0.1)
    assert degrees_of_freedom(system) == 6
    system.addForce(openmm.CMMotionRemover())
    assert degrees_of_freedom(system) == 3


def test_settings_that_contradict_themselves_are_refused() -> None:
    for change, message in (
        ({"steps": 125}, "multiple of report_interval"),
        ({"checkpoint_interval": 25}, "multiple of"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"time_step_ps": 0.0}, "time_step_ps is 0.0"),
        ({"seed": 0}, "seed is 0"),
    ):
        with pytest.raises(SpecError, match=message):
            replace(SETTINGS, **change)
    with pytest.raises(BackendError, match="no platform 'Abacus'"):
        choose_platform("Abacus")


def test_settings_of_a_system_are_its_defaults() -> None:
    settings = RunSettings(steps=100).course(replace(small_argon(), equilibration_ps=3.0, friction_per_ps=7.0))
    assert (settings.equilibration_steps, settings.temperature, settings.friction_per_ps) == (1500, 100.0, 7.0)
    assert settings.thermostat is Thermostat.LANGEVIN


def assert_same_run(run: RunDirectory, expected: RunDirectory) -> None:
    """Bit for bit: on the Reference platform a resumed run is the uninterrupted one."""
    assert run.log.read_text() == expected.log.read_text()
    assert run.trajectory.read_bytes() == expected.trajectory.read_bytes()
    assert json.loads(run.description.read_text())["settings"]["steps"] == expected.settings().steps


ENDLESS = replace(SETTINGS, steps=100_000_000, equilibration_steps=600, report_interval=20, checkpoint_interval=100)


def endless(path: Path) -> None:
    simulate(small_argon(), path, ENDLESS, compute=ComputeSettings("Reference"))


def test_kills_lose_at_most_a_chunk_and_duplicate_nothing(tmp_path: Path) -> None:
    """What goes wrong in a third of a run's time is met by one of 8 kills in 24 of 25 runs of this test."""
    run = RunDirectory(tmp_path / "killed")
    rng = random.Random(20)
    reached = 0
    with KilledCalls(endless, run.path) as calls:
        for kill in range(8):
            # Half of the kills fall anywhere, start-up included; half where the run surely works.
            after = run.checkpoint if kill % 2 else None
            calls.kill_one(rng.uniform(0.0, 0.3), after)
            if run.checkpoint.exists():
                step = read_checkpoint(run.checkpoint).step  # type: ignore[union-attr]
                assert step >= reached, "a checkpoint went back"
                reached = step
                frames = max(0, step - ENDLESS.equilibration_steps) // ENDLESS.report_interval
                present = len(run.read_positions()[0]) if run.trajectory.exists() else 0
                assert frames <= present <= frames + ENDLESS.checkpoint_interval // ENDLESS.report_interval + 1
    assert reached >= ENDLESS.equilibration_steps
    ending = replace(ENDLESS, steps=reached - ENDLESS.equilibration_steps + 200)
    simulate(small_argon(), run.path, ending, compute=ComputeSettings("Reference"))
    whole = simulate(small_argon(), tmp_path / "whole", ending, compute=ComputeSettings("Reference")).directory
    assert_same_run(run, whole)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "give a directory written by `openmm-gnn simulate`"),
        ("{", "is damaged .*: copy the directory again"),
        ('{"version": 99}', "version 99: expected version 1, as `openmm-gnn simulate` of this"),
    ],
)
def test_what_is_no_run_is_refused_with_what_helps(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(DataError, match=message):
        RunDirectory(tmp_path).settings()


PERIODS = RunSettings(steps=100, stride=10, equilibration=0.0, thermostat=Thermostat.LANGEVIN)


def test_a_pressure_is_held_as_openmm_alone_does_and_is_part_of_the_run(tmp_path: Path) -> None:
    start, compute = small_argon(), ComputeSettings("Reference")
    start.system.getForce(0).setCutoffDistance(0.6)  # the box may shrink to twice this
    settings = replace(SETTINGS, thermostat=Thermostat.LANGEVIN, pressure=500.0)
    run = simulate(start, tmp_path / "pressed", settings, compute=compute).directory
    pressed = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(start.system))
    barostat = openmm.MonteCarloBarostat(500.0, settings.temperature)
    barostat.setRandomNumberSeed(settings.seed)
    pressed.addForce(barostat)
    context = openmm.Context(pressed, make_integrator(settings), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(start.positions)
    context.setVelocitiesToTemperature(settings.temperature, settings.seed)
    context.getIntegrator().step(settings.equilibration_steps)
    volumes = []
    for _ in range(settings.num_frames):
        context.getIntegrator().step(settings.report_interval)
        volumes.append(context.getState().getPeriodicBoxVolume()._value)
    assert np.ptp(volumes) > 0.01
    assert run.read_log()["volume_nm3"] == pytest.approx(volumes, abs=1e-5)
    assert run.settings().pressure == 500.0
    with pytest.raises(SpecError, match="pressure: 500.0 stored, 1000.0 given"):
        simulate(start, tmp_path / "pressed", replace(settings, pressure=1000.0), compute=compute)
    with pytest.raises(SpecError, match="has a barostat of its own, MonteCarloBarostat: leave the pressure out"):
        simulate(replace(start, system=pressed), tmp_path / "two", settings)
    free = simulate(small_argon(), tmp_path / "free", replace(settings, pressure=None), compute=compute)
    assert "pressure" not in free.directory.identity()["settings"]


def test_a_start_that_is_hotter_than_asked_for_is_warned_of(tmp_path: Path) -> None:
    start = small_argon()
    crowded = start.positions.copy()
    crowded[1] = crowded[0] + [0.25, 0.0, 0.0]  # 134 kJ/mol into the wall, which heat 27 atoms by 400 K
    compute = ComputeSettings("Reference")
    with pytest.warns(UserWarning, match=r"K after 0.0\d+ ps, 100 K are asked for: the start has atoms too close"):
        simulate(replace(start, positions=crowded), tmp_path / "hot", PERIODS, compute=compute)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simulate(start, tmp_path / "cool", PERIODS, compute=compute)


def test_a_start_is_minimised_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(small_argon().system))
    crowded = small_argon().positions
    crowded[1] = crowded[0] + [0.27, 0.0, 0.0]
    with open(tmp_path / "crowded.pdb", "w") as file:
        app.PDBFile.writeFile(small_argon().topology, crowded * unit.nanometer, file)
    files = SystemFiles(topology=tmp_path / "crowded.pdb", force_field=ForceFieldSettings())
    as_given, relaxed = (replace(files, minimize=asked).load(str(tmp_path / "system.xml")) for asked in (False, True))
    shortest = [np.linalg.norm(np.diff(system.start(1)[:2], axis=0)) for system in (as_given, relaxed)]
    assert shortest[0] == pytest.approx(0.27, abs=1e-3) and shortest[1] > 0.33


@pytest.mark.parametrize(("step", "meant"), [(0.002, ", or 2 if ps were meant"), (1e4, "$"), (0.01, ", or 10 if ps")])
def test_a_time_step_that_nobody_can_mean_is_questioned(step: float, meant: str) -> None:
    for settings in (RunSettings, LabelSettings, PeptideSettings):
        with pytest.raises(SettingsError, match=f"it is in fs: give 0.05 to 50, usually 0.5 to 4{meant}"):
            settings(time_step=step)
