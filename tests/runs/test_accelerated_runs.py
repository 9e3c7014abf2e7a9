"""Accelerated runs on disk: frames of a Context built by hand, restarts and kills that leave no trace, bad input."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
from command_lines import invoke
from killed_processes import KilledCalls
from slow_water import SETTINGS, flexible_water, network

from openmm_gnn import accelerate
from openmm_gnn.base.errors import BackendError, SettingsError, SpecError
from openmm_gnn.base.files import read_checkpoint
from openmm_gnn.forces.python_force import why_unavailable
from openmm_gnn.md.run_settings import ComputeSettings, RunCourse, RunSettings
from openmm_gnn.md.simulation_system import Thermostat
from openmm_gnn.md.state_checks import run_checks
from openmm_gnn.md.systems.systems import save_system
from openmm_gnn.networks.weights import save_network
from openmm_gnn.runs.directory import ERROR_COLUMN, LOG_COLUMNS, RunDirectory
from openmm_gnn.runs.forces import network_device, run_forces
from openmm_gnn.runs.simulate import simulate


def test_frames_and_energies_are_those_of_a_context_made_with_accelerate(tmp_path: Path) -> None:
    start = flexible_water()
    run = simulate(start, tmp_path, SETTINGS, network(), "net", compute=ComputeSettings("Reference")).directory
    system, integrator = accelerate(
        start.system, start.topology, network(), 2, 0.002, 2, temperature=300.0, friction=5.0, hydrogen_mass=3.0
    )
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(start.positions)
    context.setVelocitiesToTemperature(300.0, 1)
    for _ in range(10):
        integrator.step(5)
        context.getState(energy=True)  # for which OpenMM's custom integrators take numbers from the random sequence
    expected = values(context.getState(positions=True).getPositions(asNumpy=True))
    positions = run.read_positions()[0]
    assert positions[-1] == pytest.approx(expected, abs=2e-6)
    teacher = openmm.Context(
        start.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference")
    )
    logged = run.read_log()["potential_kj_mol"]
    for frame, energy in zip(positions, logged, strict=True):
        teacher.setPositions(frame)
        assert energy == pytest.approx(teacher.getState(energy=True).getPotentialEnergy()._value, abs=0.05)
    document = json.loads(run.description.read_text())
    assert document["forces"]["kind"] == "accelerated" and document["settings"]["inner_steps"] == 2


ISOKINETIC = replace(SETTINGS, thermostat=Thermostat.ISOKINETIC, hydrogen_mass=None, time_step_ps=0.001)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "rigid", "force_field"),
    [
        (SETTINGS, False, "tip3p.xml"),
        (ISOKINETIC, False, "tip4pew.xml"),
    ],
)
def test_extended_run_equals_a_long_one(settings: RunCourse, rigid: bool, force_field: str, tmp_path: Path) -> None:
    start, model, longer = flexible_water(rigid, force_field), network(), replace(settings, steps=80)
    simulate(start, tmp_path / "run", settings, model, compute=ComputeSettings("Reference"))
    run = simulate(start, tmp_path / "run", longer, model, compute=ComputeSettings("Reference")).directory
    whole = simulate(start, tmp_path / "whole", longer, model, compute=ComputeSettings("Reference")).directory
    assert_same(run, whole)
    with pytest.raises(SpecError, match=r"settings.inner_steps: 2 stored, 4 given"):
        simulate(
            start,
            tmp_path / "run",
            replace(longer, inner_steps=4),
            model,
            compute=ComputeSettings("Reference"),
        )


def endless(path: Path) -> None:
    settings = replace(SETTINGS, steps=1_000_000)
    compute = ComputeSettings("Reference", threads=1)
    simulate(flexible_water(), path, settings, network(), compute=compute)


@pytest.mark.slow
def test_a_killed_run_goes_on_without_a_trace(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "killed")
    with KilledCalls(endless, run.path) as calls:
        for _ in range(2):
            calls.kill_one(0.3, run.checkpoint)
    reached = step_of(run)
    ending = replace(SETTINGS, steps=reached - SETTINGS.equilibration_steps + 20)
    simulate(flexible_water(), run.path, ending, network(), compute=ComputeSettings("Reference"))
    assert_same(
        run,
        simulate(
            flexible_water(), tmp_path / "whole", ending, network(), compute=ComputeSettings("Reference")
        ).directory,
    )


def step_of(run: RunDirectory) -> int:
    checkpoint = read_checkpoint(run.checkpoint)
    return 0 if checkpoint is None else checkpoint.step


def assert_same(run: RunDirectory, expected: RunDirectory) -> None:
    """Neither a frame too many nor one too few; numbers equal to the rounding of a neighbour list built elsewhen."""
    assert run.read_positions()[0] == pytest.approx(expected.read_positions()[0], abs=1e-6)
    log, expected_log = run.read_log(), expected.read_log()
    assert log["step"].tolist() == expected_log["step"].tolist()
    assert log["potential_kj_mol"] == pytest.approx(expected_log["potential_kj_mol"], abs=1e-4)


def values(quantity: object) -> np.ndarray:
    return np.array(quantity._value)  # type: ignore[attr-defined]


def test_a_network_of_nonbonded_forces_alone_runs_with_the_bonded_ones() -> None:
    """Without them the molecules would fall apart; a network of all forces stands alone."""
    start, plain = flexible_water(), replace(SETTINGS, inner_steps=0, hydrogen_mass=None)
    for labels, bonded in (("nonbonded", ["HarmonicAngleForce", "HarmonicBondForce"]), ("all", [])):
        forces = run_forces(start, plain, network(labels))
        names = sorted(type(force).__name__ for force in forces.system.getForces())
        assert [name for name in names if name.startswith("Harmonic")] == bonded
        assert not forces.knows_energy
    heavier = run_forces(start, replace(plain, hydrogen_mass=2.0)).system
    assert heavier.getParticleMass(1)._value == 2.0 and start.system.getParticleMass(1)._value < 1.1


def test_a_run_says_what_is_expensive_and_which_atoms_the_network_sees() -> None:
    start = flexible_water()
    asked = RunSettings(steps=100, accelerate=True, expensive=("NonbondedForce",), network_atoms="resid 0 1")
    asked = replace(asked, hydrogen_friction=20.0)
    course = asked.course(start)
    assert RunCourse(**json.loads(json.dumps(course.to_dict()))) == course
    assert "expensive" not in RunSettings(steps=100, accelerate=True).course(start).to_dict()
    forces_of_run = run_forces(start, course, network())
    system = forces_of_run.system
    frictions = np.array(forces_of_run.integrator.getPerDofVariableByName("mts_own_friction"))
    assert (frictions[1::3] == 20.0).all() and (frictions[::3] < 0).all()
    names = [force.getName() for force in system.getForces()]
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(start.positions)
    group = system.getForce(names.index("GAMDForce")).getForceGroup()
    forces = context.getState(forces=True, groups={group}).getForces(asNumpy=True)._value
    assert forces[:6].any() and not forces[6:].any()
    with pytest.raises(SpecError, match="expensive has 'AmoebaMultipoleForce', which is no force"):
        run_forces(start, replace(course, expensive=("AmoebaMultipoleForce",)), network())
    with pytest.raises(SettingsError, match="for accelerated runs"):
        RunSettings(network_atoms="resid 0")


@pytest.mark.skipif(why_unavailable() is not None, reason="PythonForce is not installed")
@pytest.mark.parametrize("inner_steps", [0, 2])
def test_the_network_runs_on_the_device_that_is_named(inner_steps: int) -> None:
    settings = replace(SETTINGS, inner_steps=inner_steps, hydrogen_mass=None)
    with pytest.raises(BackendError, match="device is 'meta': give 'cpu', 'cuda' or 'cuda:N'"):
        run_forces(flexible_water(), settings, network("nonbonded"), "pythonforce", device="meta")


@pytest.mark.parametrize("has_device", [True, False])
@pytest.mark.parametrize("has_library", [True, False])
def test_on_cuda_the_network_runs_on_the_gpu_if_there_is_one(
    has_device: bool, has_library: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_device)
    monkeypatch.setattr("openmm_gnn.kernels.library.HAS_CUDA_LIBRARY", has_library)
    assert network_device("CUDA") == ("cuda" if has_device and has_library else "cpu")
    assert network_device("CPU") == "cpu"


@pytest.mark.parametrize("force_field", ["tip3p.xml", "tip4pew.xml"])
def test_rigid_water_stays_rigid_under_a_network_and_virtual_sites_follow(tmp_path: Path, force_field: str) -> None:
    start = flexible_water(rigid=True, force_field=force_field)
    settings = replace(SETTINGS, inner_steps=0, bonded_substeps=1, hydrogen_mass=None, time_step_ps=0.001)
    run = simulate(start, tmp_path, settings, network(), compute=ComputeSettings("Reference")).directory
    molecules = run.read_positions()[0][-1].reshape(27, -1, 3)
    bonds = np.linalg.norm(molecules[:, 1:3] - molecules[:, :1], axis=-1)
    assert bonds == pytest.approx(np.full((27, 2), 0.09572), abs=1e-5)
    assert np.abs(molecules[:, 0].ravel() - start.positions.reshape(27, -1, 3)[:, 0].ravel()).max() > 1e-3
    if force_field == "tip4pew.xml":
        site = molecules[:, :3].transpose(0, 2, 1) @ np.array([0.786646558, 0.106676721, 0.106676721])
        assert molecules[:, 3] == pytest.approx(site, abs=1e-6)


def test_settings_of_an_accelerated_run_have_defaults_of_their_own() -> None:
    start = replace(flexible_water(), thermostat=Thermostat.NOSE_HOOVER, friction_per_ps=25.0)
    settings = RunSettings(steps=100, accelerate=True).course(start)
    assert (settings.time_step_ps, settings.bonded_substeps, settings.friction_per_ps) == (0.006, 4, 1.0)
    assert settings.thermostat is Thermostat.LANGEVIN and settings.accelerated
    assert RunSettings(steps=100, accelerate=True, inner_steps=2, time_step=5.0).course(start).bonded_substeps == 5
    assert not RunSettings(steps=100).course(start).accelerated
    for change, message in (
        ({"thermostat": Thermostat.NOSE_HOOVER}, "inner_steps is 2 with thermostat nose-hoover"),
        ({"inner_steps": -1}, "inner_steps is -1"),
    ):
        with pytest.raises(SpecError, match=message):
            replace(SETTINGS, **change)


def test_what_cannot_be_accelerated_is_an_error_before_the_first_step(tmp_path: Path) -> None:
    sites = flexible_water(rigid=True, force_field="tip4pew.xml")
    for start, settings, model, message in (
        (flexible_water(), SETTINGS, None, "without a network"),
        (flexible_water(), SETTINGS, network("all"), "would count twice"),
        (sites, replace(SETTINGS, inner_steps=0, hydrogen_mass=None), network(), "bonded substeps do not go"),
    ):
        with pytest.raises(SpecError, match=message):
            simulate(start, tmp_path / "run", settings, model, compute=ComputeSettings("Reference"))
        assert not (tmp_path / "run" / "run.json").exists()


def test_isokinetic_runs_show_no_temperature_and_are_not_judged_by_one(tmp_path: Path) -> None:
    """The centre of mass is free; velocities on the constraint have a quarter of kT at most half of the time."""
    start = flexible_water()
    assert run_forces(start, ISOKINETIC, network()).system.getNumForces() == start.system.getNumForces() + 1
    run = simulate(start, tmp_path, ISOKINETIC, network(), compute=ComputeSettings("Reference")).directory
    log = run.read_log()
    assert log.dtype.names == (*LOG_COLUMNS, ERROR_COLUMN) and np.isfinite(log["potential_kj_mol"]).all()
    assert np.isnan(log["temperature_K"]).all() and np.isnan(log["kinetic_kj_mol"]).all()
    context = openmm.Context(start.system, openmm.VerletIntegrator(0.001))
    context.setPositions(start.positions)
    names = [type(check).__name__ for check in run_checks(context, start.topology, ISOKINETIC)]
    assert names == ["WholeBonds"]
    for settings, message in (
        ({"accelerate": False}, "isokinetic is for accelerated runs"),
        ({"hydrogen_friction": 20.0}, "leave it out with isokinetic"),
    ):
        asked = RunSettings(**{"steps": 100, "accelerate": True, "thermostat": "isokinetic", **settings})
        with pytest.raises(SettingsError, match=message):
            asked.course(start)
    course = RunSettings(steps=100, accelerate=True, thermostat="isokinetic").course(start)
    assert (course.time_step_ps, course.inner_steps, course.friction_per_ps) == (0.010, 5, 10.0)


def test_steps_of_a_run_with_virtual_sites_are_outer_steps(tmp_path: Path) -> None:
    """One is four steps of OpenMM, which the checkpoint's count and the frames do not show."""
    start = flexible_water(rigid=True, force_field="tip4pew.xml")
    run = simulate(start, tmp_path, SETTINGS, network(), compute=ComputeSettings("Reference")).directory
    frames, log = run.read_positions()[0], run.read_log()
    assert len(frames) == len(log) == 8
    assert log["time_ps"] == pytest.approx(0.01 * np.arange(1, 9))
    state = openmm.XmlSerializer.deserialize(run.final_state.read_text())
    assert state.getStepCount() == SETTINGS.total_steps
    assert state.getTime()._value == pytest.approx(SETTINGS.total_steps * SETTINGS.time_step_ps)
    molecules = frames[-1].reshape(27, 4, 3)
    site = molecules[:, :3].transpose(0, 2, 1) @ np.array([0.786646558, 0.106676721, 0.106676721])
    assert molecules[:, 3] == pytest.approx(site, abs=1e-6)
    assert np.abs(molecules[:, 0] - start.positions.reshape(27, 4, 3)[:, 0]).max() > 1e-3


def test_the_command_accelerates(tmp_path: Path) -> None:
    save_system(tmp_path / "water", flexible_water())
    bundle = save_network(network().float(), tmp_path / "net.safetensors")
    command = ["simulate", str(tmp_path / "water"), "--out", str(tmp_path / "run"), "--accelerate"]
    command += ["--steps", "20", "--stride", "5", "--equilibration", "0.02", "--time-step", "0.4", "--inner-steps", "2"]
    command += ["--bonded-substeps", "2", "--hydrogen-mass", "3", "--platform", "Reference", "--quiet"]
    command += ["--thermostat", "monte-carlo"]
    assert invoke(command).exit_code == 2  # no --model
    done = invoke([*command, "--model", str(bundle)])
    assert done.exit_code == 0, done.output
    taken = re.search(r"(\d+) % of the proposals taken", done.output)
    assert taken is not None and int(taken[1]) > 0
    settings = RunDirectory(tmp_path / "run").settings()
    assert (settings.inner_steps, settings.bonded_substeps, settings.hydrogen_mass) == (2, 2, 3.0)
    assert np.isfinite(RunDirectory(tmp_path / "run").read_log()["potential_kj_mol"]).all()
