"""Slow variables of alanine dipeptide from streamed embeddings, beside those from its backbone dihedrals.

Every trajectory is held out once, two at a time. All methods meet the same frames, train on the same parts and are
scored alike: slow functions fitted to the training trajectories, VAMP-2 of those functions on the held-out ones.

    for seed in 1 2 3 4 5 6; do
        openmm-gnn simulate alanine-dipeptide --platform Reference --steps 12500000 --stride 250 \\
            --features peptide-et --seed $seed --out ala2/seed-$seed
    done
    python benchmarks/studies/alanine_slow_variables.py ala2/seed-* [--lags 10,20,50] [--outputs 2,3] [--quick]
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import torch
from deeptime.decomposition import TICA
from rich.console import Console
from rich.table import Table

from openmm_gnn.base.specs.tokens import CVNetworkSpec, Mixer, Pooling
from openmm_gnn.kinetics.data import find_runs
from openmm_gnn.kinetics.lagged_pairs import LaggedPairs, split_by_time
from openmm_gnn.kinetics.markov import MarkovSettings, estimate_markov_model
from openmm_gnn.kinetics.methods.interface import slow_variables
from openmm_gnn.kinetics.methods.vampnet import train_vampnet
from openmm_gnn.kinetics.methods.vampnet_training import VampnetSettings
from openmm_gnn.kinetics.token_trajectories import TokenTrajectory, trajectory_of_arrays, trajectory_of_store
from openmm_gnn.kinetics.vamp import VampModel, fit_vamp, held_out_score, lagged_covariances

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import save_results

BASIN = (0.0, 120.0)
"""Of phi > 0, degrees: from 120 on a residue is in the extended basin, which goes over the border at 180."""
EPSILON = 1e-9
"""Variances of all variables here are near 1."""
VALIDATION_BLOCKS = 5
MARKOV_LAG_PS = 20.0


@dataclass(frozen=True)
class Run:
    """One trajectory in both descriptions, frame by frame the same."""

    embeddings: TokenTrajectory
    dihedrals: TokenTrajectory
    """One token: cos phi, cos psi, sin phi, sin psi."""
    angles: np.ndarray
    """(frames, 2) phi and psi in degrees."""

    @property
    def in_basin(self) -> np.ndarray:
        return (self.angles[:, 0] > BASIN[0]) & (self.angles[:, 0] < BASIN[1])


def load_runs(paths: list[Path], stride: int) -> list[Run]:
    """Frames that trajectory and store share by their step."""
    runs = []
    for run in find_runs(paths):
        frames = run.trajectory_frames[::stride]
        if run.directory is None or (frames < 0).any():
            raise SystemExit(f"{run.name}: the trajectory lacks frames of the features: give a directory of `simulate`")
        movie = mdtraj.load(str(run.directory.trajectory), top=str(run.directory.topology))[frames]
        angles = np.hstack([mdtraj.compute_phi(movie)[1], mdtraj.compute_psi(movie)[1]])
        scalars = np.hstack([np.cos(angles), np.sin(angles)]).astype(np.float32)
        tokens = np.zeros((len(scalars), 1, 4, 4), np.float32)
        tokens[:, 0, 0] = scalars
        whole = trajectory_of_store(run.store, run.num_frames)
        embeddings = TokenTrajectory(
            run.name, whole.tokens[::stride], whole.coordinates[::stride], whole.times_ps[::stride]
        )
        dihedrals = trajectory_of_arrays(run.name, tokens, embeddings.interval_ps)
        runs.append(Run(embeddings, dihedrals, np.degrees(angles)))
    return runs


def fitted(runs: list[Run], series: list[np.ndarray], lag_ps: float, dim: int | None) -> VampModel:
    """Slow functions in the span of the series' columns."""
    x, y, _ = LaggedPairs([run.embeddings for run in runs], lag_ps).pairs_of(series)
    return fit_vamp(lagged_covariances(torch.from_numpy(x), torch.from_numpy(y)), EPSILON, truncate=True, dim=dim)


def scored(model: VampModel, runs: list[Run], series: list[np.ndarray], lag_ps: float) -> float:
    """VAMP-2 of a model on trajectories."""
    x, y, _ = LaggedPairs([run.embeddings for run in runs], lag_ps).pairs_of(series)
    return held_out_score(model, lagged_covariances(torch.from_numpy(x), torch.from_numpy(y)), epsilon=EPSILON)


def spec_of(trajectory: TokenTrajectory, outputs: int) -> CVNetworkSpec:
    _, tokens, _, width = trajectory.tokens.shape
    return CVNetworkSpec(
        tokens, width, outputs, Mixer.MLP, width=32, num_layers=1, dropout=0.0, pooling=Pooling.FLATTEN
    )


def basin_accuracies(leading: list[np.ndarray], basins: list[np.ndarray], num_training: int) -> dict[str, float]:
    """How often one threshold on the leading variable, chosen on the training trajectories, tells the basin of phi."""
    values, truth = (np.concatenate(part[:num_training]) for part in (leading, basins))
    order = np.argsort(values)
    right_above = truth[order][::-1].cumsum()[::-1]
    wrong_below = truth[order].cumsum() - truth[order]
    correct = right_above + (np.arange(len(order)) - wrong_below)
    flipped = bool(correct.max() < len(order) - correct.min())
    threshold = values[order[int(correct.argmin() if flipped else correct.argmax())]]
    values, truth = (np.concatenate(part[num_training:]) for part in (leading, basins))
    found = (values >= threshold) != flipped
    sides = [float((found == truth)[truth == side].mean()) for side in (True, False) if (truth == side).any()]
    return {
        "accuracy": float((found == truth).mean()),
        "balanced": float(np.mean(sides)),
        "in_basin": float(truth.mean()),
    }


def compare(
    runs: list[Run], held_out: list[int], lag_ps: float, outputs: int, settings: VampnetSettings
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """All methods on one choice of held-out runs; the slow variables from embeddings of all runs, those last."""
    training = [run for number, run in enumerate(runs) if number not in held_out]
    order = [*training, *(runs[number] for number in held_out)]
    count = len(training)
    functions = {"linear, dihedrals": [run.dihedrals.tokens[:, 0, 0].astype(np.float64) for run in order]}
    tica = TICA(lagtime=round(lag_ps / runs[0].embeddings.interval_ps), dim=outputs)
    tica.fit(functions["linear, dihedrals"][:count])
    functions["TICA, dihedrals"] = [tica.transform(one) for one in functions["linear, dihedrals"]]
    seconds, validations = {}, {}
    for name, trajectories in (
        ("VAMPnet, dihedrals", [run.dihedrals for run in order]),
        ("VAMPnet, embeddings", [run.embeddings for run in order]),
    ):
        parts = split_by_time(trajectories[:count], lag_ps, 0.2, VALIDATION_BLOCKS)
        started = time.perf_counter()
        spec = spec_of(trajectories[0], outputs)
        # Four numbers per frame are cheap: their network gets more steps, so that it is not beaten for lack of them.
        more = dataclasses.replace(settings, num_steps=4 * settings.num_steps, patience=3 * settings.patience)
        chosen = more if name == "VAMPnet, dihedrals" else settings
        best = train_vampnet(spec, *parts, lag_ps, chosen, progress=False).best
        seconds[name], validations[name] = time.perf_counter() - started, best.validation_score
        functions[name] = [slow_variables(best.network, one).astype(np.float64) for one in trajectories]
    scores, models = {}, {}
    for name, series in functions.items():
        models[name] = fitted(training, series[:count], lag_ps, outputs)
        scores[name] = scored(models[name], order[count:], series[count:], lag_ps)
    slow = functions["VAMPnet, embeddings"]
    basins = basin_accuracies([one[:, 0] for one in slow], [run.in_basin for run in order], count)
    best_of_dihedrals = max(score for name, score in scores.items() if "dihedrals" in name)
    document = {
        "lag_ps": lag_ps,
        "outputs": outputs,
        "held_out": [runs[number].embeddings.name for number in held_out],
        "vamp_2": scores,
        "share_of_the_better_dihedral_score": scores["VAMPnet, embeddings"] / best_of_dihedrals,
        "share_without_the_constant": (scores["VAMPnet, embeddings"] - 1) / (best_of_dihedrals - 1),
        "phi_basin": basins,
        "validation": validations,
        "training_seconds": seconds,
    }
    return document, slow


def timescales(series: list[np.ndarray], interval_ps: float, clusters: int) -> dict[str, Any]:
    """Of a Markov model of all runs, ps, with 95 % intervals, and the populations of its three states."""
    settings = MarkovSettings(num_states=3, num_timescales=2, num_clusters=clusters)
    model = estimate_markov_model(series, round(MARKOV_LAG_PS / interval_ps), interval_ps, settings)
    found = {name: getattr(model.timescales_ps, name).tolist() for name in ("value", "low", "high")}
    return {**found, "populations": model.populations.value.tolist(), "lag_ps": model.lag_ps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="directories of openmm-gnn simulate --features")
    parser.add_argument("--lags", default="10,20,50", help="ps")
    parser.add_argument("--outputs", default="2,3")
    parser.add_argument("--steps", type=int, default=300, help="of each training, at most")
    parser.add_argument("--stride", type=int, default=1, help="take every so many frames")
    parser.add_argument("--quick", action="store_true", help="one lag, every tenth frame, nothing is kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    runs = load_runs(arguments.runs, 10 if arguments.quick else arguments.stride)
    if len(runs) < 4:
        raise SystemExit("give at least four runs: two are held out at a time")
    steps = 50 if arguments.quick else arguments.steps
    settings = VampnetSettings(num_steps=steps, batch_size=2000, validate_every=25, patience=4, most_pairs=20_000)
    lags, outputs = [20.0] if arguments.quick else map(float, arguments.lags.split(",")), arguments.outputs
    interval, clusters = runs[0].embeddings.interval_ps, 30 if arguments.quick else 100
    folds = [list(range(start, min(start + 2, len(runs)))) for start in range(0, len(runs), 2)]
    table = Table(title="VAMP-2 on held-out trajectories")
    for column in ("lag (ps)", "outputs", "held out", "linear", "TICA", "net, dihedrals", "net, embeddings", "share",
                   "phi basin"):  # fmt: skip
        table.add_column(column)
    dihedral = timescales([run.dihedrals.tokens[:, 0, 0].astype(float) for run in runs], interval, clusters)
    comparisons: list[dict[str, Any]] = []
    for lag, number, fold in itertools.product(lags, map(int, outputs.split(",")), folds):
        document, slow = compare(runs, fold, lag, number, settings)
        if lag == MARKOV_LAG_PS:
            document["markov"] = timescales(slow, interval, clusters)
        comparisons.append(document)
        share, basin = document["share_of_the_better_dihedral_score"], document["phi_basin"]
        figures = [f"{score:.3f}" for score in document["vamp_2"].values()]
        names = ", ".join(document["held_out"])
        table.add_row(f"{lag:g}", str(number), names, *figures, f"{share:.1%}", f"{basin['accuracy']:.4f}")
        console.print(document)
    console.print(table, f"Markov model of the dihedrals: {dihedral}")
    results = {
        "runs": [run.embeddings.name for run in runs],
        "frames": [len(run.angles) for run in runs],
        "stride": arguments.stride,
        "markov_of_dihedrals": dihedral,
        "comparisons": comparisons,
    }
    save_results("alanine_slow_variables", results, arguments.quick)


if __name__ == "__main__":
    main()
