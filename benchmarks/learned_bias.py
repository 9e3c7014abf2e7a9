"""What a bias along a learned CV costs per step: all CVs in a single pass, beside OpenMM's CustomCVForce of each.

Alanine dipeptide (22 atoms, 10 of them heavy) in implicit solvent, the shipped encoder peptide-et and a small network
of random weights, which change no time. The contenders run in turn; medians of blocks of steps. Target: three CVs in a
single pass cost at most 1.05 times one.

    python benchmarks/learned_bias.py [--quick] [--platform CPU] [--backend auto]
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import openmm
import torch
from harness import interleaved_medians, save_results
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
    """OpenMM's way: a CustomCVForce, which evaluates the networks of each CV."""
    force = openmm.CustomCVForce("+".join(f"(s{output}-1)^2" for output in range(num_cvs)))
    for output in range(num_cvs):
        force.addCollectiveVariable(f"s{output}", cv_force(cv, system.topology, output, backend, system.system))
    return force


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
    for num_cvs in (1, 2, 3):
        force = single_pass(cv, system, num_cvs, options.backend)
        contenders[f"single pass, D = {num_cvs}"] = stepper(system, force, options.platform)
        custom = one_by_one(cv, system, num_cvs, options.backend)
        contenders[f"CustomCVForce, D = {num_cvs}"] = stepper(system, custom, options.platform)
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
    results = {"platform": options.platform, "ms_per_step": per_step, "three_over_one": ratio}
    save_results(f"learned_bias_{chosen_backend(options.backend).value}", results, options.quick)


if __name__ == "__main__":
    main()
