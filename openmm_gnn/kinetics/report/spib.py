"""Slow variables and states by SPIB, several seeds, kept in a directory.

The variables z of SPIB have no order and no scale: they are turned into the slow directions of their span, with mean 0
and variance 1, which changes neither the states nor what can be told from them.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np

from openmm_gnn.base.files import write_arrays, write_json
from openmm_gnn.kinetics.report.data import SlowData
from openmm_gnn.kinetics.report.lag_scores import fit_and_score
from openmm_gnn.kinetics.report.learn import Learned, network_spec
from openmm_gnn.kinetics.report.results import SeedScore, plain
from openmm_gnn.kinetics.settings import AnalysisSettings
from openmm_gnn.networks.tokens.cv_network import CVNetwork
from openmm_gnn.networks.weights import load_cv_network, save_network

ROUND_STEPS = 50
QUICK_REFINEMENTS = 3
INITIAL_STATES = 10


def learn_spib(settings: AnalysisSettings, data: SlowData, directory: Path, progress: bool) -> Learned:
    """Train every seed that is not complete; the best is that whose variables score highest on held-out frames."""
    found = []
    for seed in range(settings.used_seeds):
        folder = directory / f"seed-{seed}"
        if not (folder / "result.json").is_file():
            _train(settings, data, seed, folder, progress)
        found.append(SeedScore(**json.loads((folder / "result.json").read_text())))
    best = max(found, key=lambda seed: seed.validation)
    folder = directory / f"seed-{best.seed}"
    with np.load(folder / "states.npz") as stored:
        states = [stored[str(number)] for number in range(len(data.runs))]
    return Learned(load_cv_network(folder / "slow_variables.safetensors"), found, best.seed, [], states)


def _train(settings: AnalysisSettings, data: SlowData, seed: int, folder: Path, progress: bool) -> None:
    from rich.console import Console

    from openmm_gnn.kinetics.spib import SpibRefinement, SpibSettings, train_spib

    folder.mkdir(parents=True, exist_ok=True)
    defaults = SpibSettings()
    training = SpibSettings(
        num_states=settings.states or INITIAL_STATES,
        batch_size=settings.batch_size,
        round_steps=min(ROUND_STEPS, settings.used_steps),
        most_rounds=max(1, settings.used_steps // ROUND_STEPS),
        refinements=QUICK_REFINEMENTS if settings.quick else defaults.refinements,
    )
    console = Console(stderr=True, quiet=not progress)

    def tell(refinement: SpibRefinement) -> None:
        console.print(
            f"seed {seed}, step {refinement.step}: loss {refinement.loss:.3f}, {refinement.num_states} states, "
            f"{100 * refinement.changed:.1f} % of the frames changed theirs",
            highlight=False,
        )

    spec = network_spec(settings, data)
    cut = data.cut(data.training), data.cut(data.validation)
    result = train_spib(spec, cut[0], settings.lag, training, seed, validation=cut[1], progress=tell)
    states = [result.states_of(trajectory) for trajectory in data.trajectories]
    network: CVNetwork = copy.deepcopy(result.encoder).eval()
    raw = [result.variables(trajectory).astype(np.float64) for trajectory in data.trajectories]
    model, score, validation = fit_and_score(raw, data, max(1, round(settings.lag / data.interval_ps)))
    network.set_output_map(model.mean_0, model.left)
    save_network(network, folder / "slow_variables.safetensors", {"method": "spib", "seed": seed})
    write_arrays(folder / "states.npz", **{str(number): own for number, own in enumerate(states)})
    steps = result.refinements[-1].step
    epochs = steps * settings.batch_size / max(1, sum(part.stop - part.start for part in data.training))
    row = SeedScore(seed, score, validation, epochs, round(epochs))
    # Last of all: what this file is there for is that the others are complete.
    write_json(folder / "result.json", plain(row))
