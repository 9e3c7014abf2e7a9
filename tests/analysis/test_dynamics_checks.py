"""Runs at constant energy and with a thermostat, under forces whose answers are known without a network."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from openmm import app

from openmm_gnn.analysis import verdicts
from openmm_gnn.analysis.dynamics_checks import EnergyTrace, constant_energy_run, drift_rate, stability_run
from openmm_gnn.base.errors import DataError, NonFiniteError
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.forces import python_force, torch_force
from openmm_gnn.forces.backends import Backend, available_backends
from openmm_gnn.md.run_settings import RunCourse
from openmm_gnn.md.simulation_system import Thermostat

NUM_ATOMS = 30
SETTINGS = RunCourse(
    steps=500,
    equilibration_steps=0,
    report_interval=5,
    time_step_ps=0.002,
    temperature=300.0,
    thermostat=Thermostat.LANGEVIN,
    friction_per_ps=20.0,
    checkpoint_interval=50,
    seed=1,
)


def springs(whirl: float = 0.0) -> openmm.System:
    """Atoms of two masses, each on a spring; `whirl` adds a force that turns about z and belongs to no energy."""
    system = openmm.System()
    spring = openmm.CustomExternalForce("500*(x^2 + y^2 + z^2)")
    for index in range(NUM_ATOMS):
        system.addParticle(16.0 if index % 3 == 0 else 4.0)
        spring.addParticle(index, [])
    system.addForce(spring)
    if whirl:
        make = gamd_forces_of_here()
        system.addForce(make(torch.jit.script(Whirl(whirl)), False))
    return system


class Whirl(torch.nn.Module):
    """F = w z x r: it does work on every turn."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.spec_json = ""

    def forward(
        self, positions: torch.Tensor, box_vectors: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = positions[:, 0], positions[:, 1]
        return torch.zeros([]), self.strength * torch.stack([-y, x, torch.zeros_like(x)], dim=1)


def gamd_forces_of_here() -> Callable[[torch.jit.ScriptModule, bool], openmm.Force]:
    """The way by which a network becomes a Force on this machine."""
    chosen = {Backend.TORCHFORCE: torch_force.torch_force, Backend.PYTHONFORCE: python_force.python_force}
    return chosen[available_backends()[0]]


def topology() -> app.Topology:
    made = app.Topology()
    chain = made.addChain()
    for index in range(NUM_ATOMS):
        symbol = "O" if index % 3 == 0 else "He"
        made.addAtom(symbol, app.Element.getBySymbol(symbol), made.addResidue("X", chain))
    return made


def start() -> np.ndarray:
    scale = np.sqrt(300 * BOLTZMANN_KJ_MOL_K / 1000)
    return np.random.default_rng(1).normal(scale=scale, size=(NUM_ATOMS, 3))


def test_conserved_energy_does_not_drift_and_the_integrator_is_told_apart() -> None:
    def energy(positions: np.ndarray) -> float:
        return 500 * float(np.square(positions).sum())

    trace = constant_energy_run(springs(), start(), SETTINGS, energy=energy, platform="Reference")
    assert len(trace.times_ps) == 100 and trace.times_ps[-1] == pytest.approx(1.0)
    assert trace.freedom == 3 * NUM_ATOMS
    total = trace.kinetic + trace.potential
    assert np.ptp(total) < 0.02 * np.ptp(trace.kinetic)
    assert abs(trace.drift().value) < max(3 * trace.drift().error, 1.0)
    assert np.ptp(trace.kinetic - trace.work) < 0.02 * np.ptp(trace.kinetic)
    own = constant_energy_run(springs(), start(), SETTINGS, own_energy=True, platform="Reference")
    assert own.potential == pytest.approx(trace.potential, rel=1e-6)


def test_bonded_substeps_conserve_the_energy_of_stiff_bonds() -> None:
    """Springs of 70 fs period: one step of 30 fs would tear them apart, eight substeps do not."""

    def energy(positions: np.ndarray) -> float:
        return 16_000 * float(np.square(positions).sum())

    stiff = springs()
    stiff.getForce(0).setEnergyFunction("16000*(x^2 + y^2 + z^2)")
    settings = replace(SETTINGS, time_step_ps=0.03, bonded_substeps=8, steps=100)
    trace = constant_energy_run(stiff, 0.15 * start(), settings, energy=energy, platform="Reference")
    total = trace.kinetic + trace.potential
    assert np.ptp(total) < 0.1 * trace.kinetic.mean()
    with pytest.raises(NonFiniteError, match=r"\d+ steps of 0.03 ps .* a shorter time step"):
        constant_energy_run(stiff, 0.15 * start(), replace(settings, bonded_substeps=1), energy, platform="Reference")


def test_force_without_energy_heats_and_the_work_accounts_for_it() -> None:
    def spring_energy(positions: np.ndarray) -> float:
        return 500 * float(np.square(positions).sum())

    trace = constant_energy_run(springs(whirl=60.0), start(), SETTINGS, spring_energy, platform="Reference")
    gained = (trace.kinetic + trace.potential)[-1] - (trace.kinetic + trace.potential)[0]
    assert gained > 50 * BOLTZMANN_KJ_MOL_K
    assert trace.drift().value > 5 * trace.drift().error
    assert abs(trace.integrator_drift().value) < 0.05 * trace.drift().value


def test_drift_of_a_line_is_its_slope_and_of_noise_is_zero_within_its_error() -> None:
    times = np.linspace(0.0, 5.0, 1000)
    slope = 12.0 * 0.5 * 90 * BOLTZMANN_KJ_MOL_K / 1000  # 12 K/ns of 90 degrees of freedom, in kJ/mol per ps
    assert drift_rate(times, 7.0 + slope * times, 90).value == pytest.approx(12.0)
    rng = np.random.default_rng(0)
    found = [drift_rate(times, rng.normal(size=1000), 90) for _ in range(100)]
    deviations = np.array([estimate.value / estimate.error for estimate in found])
    assert 0.8 < deviations.std() < 1.6  # Student's t with 8 degrees of freedom: 1.15


def test_elements_have_the_thermostats_temperature(tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=6000)
    run = stability_run(springs(), topology(), start(), settings, tmp_path, platform="Reference")
    assert run.failure == "" and run.reached_ps == run.wanted_ps == pytest.approx(12.0)
    assert run.elements == ("O", "He")
    assert len(run.frames) == 20
    for temperature in run.temperatures().values():
        assert temperature.value == pytest.approx(300, abs=4 * temperature.error)
        assert 0.5 < temperature.error < 15


def test_blow_up_is_described_with_the_time_it_happened(tmp_path: Path) -> None:
    system = springs()
    wild = openmm.CustomExternalForce("1e-6*sqrt(1 - vx); vx = 400*x*x*step(x)")  # not a number beyond 0.05 nm
    for index in range(NUM_ATOMS):
        wild.addParticle(index, [])
    system.addForce(wild)
    run = stability_run(system, topology(), 0.1 * start(), SETTINGS, tmp_path, platform="Reference")
    assert "first atom" in run.failure
    assert run.reached_ps < run.wanted_ps
    assert run.reached_ps == pytest.approx(len(run.times_ps) * 0.01)
    assert (tmp_path / "last_good.pdb").exists()
    with pytest.raises(NonFiniteError, match=r"blew up after .* ps"):
        constant_energy_run(system, 0.1 * start(), SETTINGS, platform="Reference")


def test_run_that_only_heats_is_a_blow_up_too(tmp_path: Path) -> None:
    system = springs()
    system.getForce(0).setEnergyFunction("-500*(x^2 + y^2 + z^2)")
    run = stability_run(system, topology(), start(), SETTINGS, tmp_path, platform="Reference")
    assert "heated to" in run.failure
    assert run.reached_ps < 1.0
    with pytest.raises(NonFiniteError, match=r"blew up after .* ps \(heated to \d+ K\)"):
        constant_energy_run(system, start(), SETTINGS, platform="Reference")
    assert run.temperatures() == {} or max(t.value for t in run.temperatures().values()) < 1500


def test_run_too_short_for_a_drift_is_refused() -> None:
    with pytest.raises(DataError, match="5 steps are too few"):
        constant_energy_run(springs(), start(), replace(SETTINGS, steps=5))


def test_a_drift_is_fine_only_if_it_is_known_to_be_small() -> None:
    """38 K in 1 ps are not fine because the run was too short to tell how fast it goes on."""
    times = np.linspace(0, 1, 100)
    one_kelvin = 0.5 * BOLTZMANN_KJ_MOL_K * 30  # kJ/mol, of 30 degrees of freedom

    def verdict_of(rise_kelvin: np.ndarray) -> list[verdicts.Check]:
        energy = one_kelvin * rise_kelvin
        return verdicts.drift(EnergyTrace(times, energy, 0 * energy, 0 * energy, 30), "an energy")

    heats, unknown, steady = verdict_of(38 * times), verdict_of(38 * np.sin(9 * times)), verdict_of(1e-3 * times)
    assert heats[0].verdict == verdicts.LOOK and heats[0].value == pytest.approx(38_000, rel=1e-3)
    assert unknown[0].verdict == verdicts.NOT_MEASURED and "give a longer one" in unknown[0].words
    assert steady[0].verdict == verdicts.FINE
    assert verdicts.of_all([*heats, *steady]).startswith("look here: energy drift at constant energy, of it")
    assert verdicts.of_all(steady) == "fine, 2 checks"
    assert verdicts.of_all([*steady, *unknown]).startswith("fine, 2 checks; not measured: energy drift")
