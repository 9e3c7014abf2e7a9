"""What a bias along a learned CV costs per step: all CVs in a single pass, beside OpenMM's samplers of several CVs.

Alanine dipeptide (22 atoms, 10 of them heavy) in implicit solvent, the shipped encoder peptide-et and a small network
of random weights, which change no time. The contenders run in turn; medians of blocks of steps. Target: three CVs in a
single pass cost at most 1.05 times one. OpenMM's samplers ask for the gradient of each CV: one evaluation serves all
(forces/shared_cv.py), but each gradient is a way back of its own. OPES of the package openmm-opes, and OpenMM's replica
exchange, which came with OpenMM 8.6, are measured where they are installed.

    python benchmarks/learned_bias.py [--quick] [--platform CPU] [--backend auto]
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import openmm
import torch
from harness import interleaved_medians, save_results
from openmm import app
from rich.console import Console
from rich.table import Table

from openmm_gnn import cv_force, load_encoder
from openmm_gnn.base.specs.tokens import CVNetworkSpec
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.features.learned_cv import LearnedCV, OutputRanges
from openmm_gnn.forces.backends import chosen_backend
from openmm_gnn.forces.cv_force import BiasForce
from openmm_gnn.md.simulation_system import SimulationSystem
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.networks.tokens.cv_network import CVNetwork
from openmm_gnn.runs.bias.opes import OpesBias

STEPS_PER_BLOCK = 20
WARM_UP_STEPS = 30
HILL_STRIDE = 500
WINDOWS = 4
"""Umbrella windows, or replicas."""


def random_cv(system: SimulationSystem, num_outputs: int) -> LearnedCV:
    """A CV of random weights whose outputs vary by about 1 around the start."""
    featurizer = Featurizer("peptide-et", system.topology)
    description = featurizer.describe()
    torch.manual_seed(0)
    network = CVNetwork(
        CVNetworkSpec(featurizer.num_tokens, featurizer.width, num_outputs, mixer="mlp", width=32, num_layers=1)
    ).eval()
    noise = 0.01 * np.random.default_rng(0).normal(size=(100, *system.positions.shape))
    tokens = torch.from_numpy(featurizer.features(system.positions + noise))
    places = torch.from_numpy(featurizer.coordinates(system.positions + noise))
    with torch.no_grad():
        raw = network(tokens, places)
        network.set_output_map(raw.mean(0), torch.diag(1 / raw.std(0)))
        series = network(tokens, places).double().numpy()
    return LearnedCV(
        load_encoder("peptide-et"), network, description["topology_hash"], description["tokens"],
        OutputRanges.of_series([series]),
    )  # fmt: skip


def stepper(system: SimulationSystem, force: Any, platform: str) -> Callable[[], object]:
    """Makes a Context with a force added, and returns what runs one block of steps in it."""
    copied = copy.deepcopy(system.system)
    if hasattr(force, "add_to"):
        force.add_to(copied)
    elif force is not None:
        copied.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(system.temperature, 1.0, 0.001)
    chosen = openmm.Platform.getPlatformByName(platform)
    context = openmm.Context(copied, integrator, chosen, {"Threads": "1"} if platform == "CPU" else {})
    context.setPositions(system.start(1))
    context.setVelocitiesToTemperature(system.temperature, 1)
    integrator.step(WARM_UP_STEPS)

    def block(_context: openmm.Context = context, _force: Any = force) -> None:  # both must live as long
        integrator.step(STEPS_PER_BLOCK)

    return block


def single_pass(cv: LearnedCV, system: SimulationSystem, num_cvs: int, backend: str) -> Any:
    """A bias of 50 kernels along the first outputs."""
    bias = OpesBias(np.full(num_cvs, 0.5), 20.0, system.temperature)
    for center in np.random.default_rng(1).normal(size=(50, num_cvs)):
        bias.deposit(center)
    return BiasForce(cv, system.topology, bias, tuple(range(num_cvs)), backend)


def one_by_one(cv: LearnedCV, system: SimulationSystem, num_cvs: int, backend: str) -> Any:
    """OpenMM's way: a CustomCVForce, which asks for the gradient of each CV."""
    force = openmm.CustomCVForce("+".join(f"(s{output}-center)^2" for output in range(num_cvs)))
    force.addGlobalParameter("center", 1.0)
    for output in range(num_cvs):
        force.addCollectiveVariable(f"s{output}", cv_force(cv, system.topology, output, backend, system.system))
    return force


def replicas(system: SimulationSystem, force: Any, platform: str, exchange: bool) -> Callable[[], object]:
    """One block of umbrella windows, each a Context that steps in turn, or of OpenMM's replica exchange of as many."""
    if exchange:
        simulation = simulation_of(system, force, platform)
        states = [{"center": 0.5 * window} for window in range(WINDOWS)]
        sampler = app.ReplicaExchangeSampler(states, simulation, STEPS_PER_BLOCK // WINDOWS)
        return lambda: sampler.simulate(1)
    windows = [simulation_of(system, copy.deepcopy(force), platform) for _ in range(WINDOWS)]
    for window, simulation in enumerate(windows):
        simulation.context.setParameter("center", 0.5 * window)

    def block() -> None:
        for simulation in windows:
            simulation.step(STEPS_PER_BLOCK // WINDOWS)

    return block


def simulation_of(system: SimulationSystem, force: Any, platform: str, prepared: Any = None) -> app.Simulation:
    """A warm Simulation with a force added, or of a System that has its bias already."""
    made = copy.deepcopy(system.system) if prepared is None else prepared
    if force is not None:
        made.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(system.temperature, 1.0, 0.001)
    chosen = openmm.Platform.getPlatformByName(platform)
    properties = {"Threads": "1"} if platform == "CPU" else {}
    simulation = app.Simulation(system.topology, made, integrator, chosen, properties)
    simulation.context.setPositions(system.start(1))
    simulation.context.setVelocitiesToTemperature(system.temperature, 1)
    simulation.step(WARM_UP_STEPS)
    return simulation


def sampled(
    cv: LearnedCV, system: SimulationSystem, num_cvs: int, platform: str, backend: str, opes: bool
) -> Callable[[], object]:
    """One block of OpenMM's Metadynamics, or of openmm-opes; the median one has no hill or kernel."""
    made = copy.deepcopy(system.system)
    variables = [
        app.BiasVariable(cv_force(cv, system.topology, output, backend, made), -8.0, 8.0, 0.5, gridWidth=24)
        for output in range(num_cvs)
    ]
    if opes:
        from openmm_opes import OPES

        sampler = OPES(made, variables, system.temperature, 20.0, HILL_STRIDE, None)
    else:
        sampler = app.Metadynamics(made, variables, system.temperature, 10, 1.0, HILL_STRIDE)
    simulation = simulation_of(system, None, platform, made)
    return lambda: sampler.step(simulation, STEPS_PER_BLOCK)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="15 seconds in place of 90; nothing is stored")
    parser.add_argument("--platform", default="CPU")
    parser.add_argument("--backend", default="auto")
    options = parser.parse_args()
    torch.set_num_threads(1)
    system = load_system("alanine-dipeptide")
    cv = random_cv(system, 3)
    contenders = {"no bias": stepper(system, None, options.platform)}
    for num_cvs in (1, 3):
        force = single_pass(cv, system, num_cvs, options.backend)
        contenders[f"single pass, D = {num_cvs}"] = stepper(system, force, options.platform)
        custom = one_by_one(cv, system, num_cvs, options.backend)
        contenders[f"CustomCVForce, D = {num_cvs}"] = stepper(system, custom, options.platform)
        for name, opes in (("Metadynamics", False), ("openmm-opes", True)):
            if not opes or find_spec("openmm_opes") is not None:
                made = sampled(cv, system, num_cvs, options.platform, options.backend, opes)
                contenders[f"{name}, D = {num_cvs}"] = made
        for name, exchange in (("umbrella windows", False), ("replica exchange", True)):
            if not exchange or hasattr(app, "ReplicaExchangeSampler"):
                custom = one_by_one(cv, system, num_cvs, options.backend)
                contenders[f"{name}, D = {num_cvs}"] = replicas(system, custom, options.platform, exchange)
    # The processor time of this process: one thread, and other programs may use the machine.
    seconds = interleaved_medians(contenders, 15 if options.quick else 90, clock=time.process_time)
    per_step = {name: 1000 * value / STEPS_PER_BLOCK for name, value in seconds.items()}
    table = Table("alanine dipeptide", "ms per step", "times its D = 1")
    for name, value in per_step.items():
        first = per_step.get(name.rpartition("=")[0] + "= 1", value)
        table.add_row(name, f"{value:.2f}", f"{value / first:.2f}")
    console = Console()
    console.print(table)
    ratio = per_step["single pass, D = 3"] / per_step["single pass, D = 1"]
    console.print(f"three CVs cost {ratio:.2f} times one in a single pass (target: at most 1.05)")
    ratios = {
        name.removesuffix(", D = 3"): value / per_step[name[:-1] + "1"]
        for name, value in per_step.items()
        if name.endswith("D = 3")
    }
    results = {"platform": options.platform, "ms_per_step": per_step, "three_over_one": ratios}
    save_results(f"learned_bias_{chosen_backend(options.backend).value}", results, options.quick)


if __name__ == "__main__":
    main()
