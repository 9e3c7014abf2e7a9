"""Runs under a network's forces: the same frames as a Context built by hand, and restarts with the same weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from untrained_networks import untrained

from openmm_gnn.base.errors import NonFiniteError, SpecError
from openmm_gnn.forces.backends import available_backends
from openmm_gnn.forces.gamd_force import gamd_force
from openmm_gnn.md.integrators import make_integrator
from openmm_gnn.md.run_settings import ComputeSettings, RunCourse
from openmm_gnn.md.simulation_system import Thermostat
from openmm_gnn.md.systems.systems import SimulationSystem, load_system
from openmm_gnn.runs.simulate import simulate

SETTINGS = RunCourse(
    steps=60,
    equilibration_steps=10,
    report_interval=10,
    checkpoint_interval=20,
    time_step_ps=0.002,
    temperature=100.0,
    thermostat=Thermostat.NOSE_HOOVER,
    friction_per_ps=25.0,
    seed=1,
)


@pytest.fixture(scope="module")
def argon() -> SimulationSystem:
    return load_system("argon")


@pytest.mark.parametrize("backend", [backend.value for backend in available_backends()])
def test_frames_are_those_of_a_context_with_the_networks_force_alone(
    tmp_path: Path, argon: SimulationSystem, backend: str
) -> None:
    model = untrained(force_scale=30.0)
    run = simulate(argon, tmp_path, SETTINGS, model, "net", ComputeSettings("Reference", backend)).directory
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*argon.system.getDefaultPeriodicBoxVectors())
    for _ in range(258):
        system.addParticle(39.9)
    system.addForce(gamd_force(model, argon.topology, backend=backend))
    system.addForce(openmm.CMMotionRemover())
    context = openmm.Context(system, make_integrator(SETTINGS), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(argon.positions)
    context.setVelocitiesToTemperature(100.0, 1)
    context.getIntegrator().step(70)
    expected = context.getState(positions=True).getPositions(asNumpy=True)._value
    assert run.read_positions()[0][-1] == pytest.approx(expected, abs=2e-6)
    forces = json.loads(run.description.read_text())["forces"]
    assert forces["kind"] == "network" and forces["name"] == "net" and len(forces["hash"]) == 64
    assert np.isnan(run.read_log()["potential_kj_mol"]).all()  # a network of forces knows no energy


def test_resumed_run_goes_on_where_it_was_and_only_with_the_same_weights(
    tmp_path: Path, argon: SimulationSystem
) -> None:
    model, longer = untrained(force_scale=30.0), replace(SETTINGS, steps=120)
    simulate(argon, tmp_path / "run", SETTINGS, model, "net", compute=ComputeSettings("Reference"))
    run = simulate(argon, tmp_path / "run", longer, model, "net", compute=ComputeSettings("Reference")).directory
    whole = simulate(argon, tmp_path / "whole", longer, model, "net", compute=ComputeSettings("Reference")).directory
    # The network computes in float32 and its neighbour list is built at another step: equal to rounding.
    assert run.read_positions()[0] == pytest.approx(whole.read_positions()[0], abs=1e-4)
    with torch.no_grad():
        next(iter(model.parameters())).mul_(1.01)
    with pytest.raises(SpecError, match=r"forces\.hash"):
        simulate(argon, tmp_path / "run", longer, model, "net", compute=ComputeSettings("Reference"))


@pytest.mark.parametrize("platform", ["Reference", "CPU"])
@pytest.mark.parametrize("backend", [backend.value for backend in available_backends()])
def test_a_network_that_tears_the_system_apart_is_stopped(
    tmp_path: Path, argon: SimulationSystem, backend: str, platform: str
) -> None:
    """Forces of 1e37 overflow within steps, whichever of network, list or integrator meets them first."""
    with pytest.raises(NonFiniteError, match=r"at step \d+: first atom \d+ \(Ar of residue AR \d+\)"):
        simulate(argon, tmp_path, SETTINGS, untrained(force_scale=1e37), "net", ComputeSettings(platform, backend))
    assert (tmp_path / "last_good.pdb").exists()
    state = openmm.XmlSerializer.deserialize((tmp_path / "last_good_state.xml").read_text())
    assert np.isfinite(state.getPositions(asNumpy=True)._value).all()
