"""Encoders as descriptors of molecules they were never trained on, beside dihedrals and distances.

Slow functions are fitted to one half of the runs and scored by VAMP-2 on the other half, both ways round: linear ones
of each descriptor, for several lags and numbers of functions, and a VAMPnet's at one lag.

    for seed in 1 2 3 4; do
        openmm-gnn simulate pentapeptide --platform Reference --steps 2500000 --stride 250 --seed $seed \\
            --out penta/seed-$seed
    done
    python benchmarks/studies/zero_shot.py penta/seed-* --cache penta-features --encoder biomolecule-et \\
        --encoder et_l6_h64_rbf64_r75.pth [--lags 5,10,20,50] [--net-lag 20] [--figure zero_shot.png] [--quick]

Source of the form of table and figure: "Pushing the limits of all-atom geometric graph neural networks", ICLR 2025,
OpenReview 4S2L519nIX, figures 2 and 3.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from openmm_gnn import EmbeddingStore, Featurizer
from openmm_gnn.base.figures import figure_file
from openmm_gnn.base.specs.tokens import CVNetworkSpec, Mixer, Pooling
from openmm_gnn.kinetics.lagged_pairs import LaggedPairs, split_by_time
from openmm_gnn.kinetics.methods.interface import slow_variables
from openmm_gnn.kinetics.methods.vampnet import train_vampnet
from openmm_gnn.kinetics.methods.vampnet_training import VampnetSettings
from openmm_gnn.kinetics.token_trajectories import TokenTrajectory, trajectory_of_arrays, trajectory_of_store
from openmm_gnn.kinetics.vamp import VampModel, fit_vamp, held_out_score, lagged_covariances
from openmm_gnn.reporters.trajectory_features import Reading, featurize_trajectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import save_results

RELATIVE_EPSILON = 1e-6
"""Directions of a descriptor with less of its largest variance are left out: they are rounding."""
MOST_DIMENSIONS = 4
"""Slow functions that are scored: the first of them, the first two, ..."""
VALIDATION_BLOCKS = 5
Descriptor = list[TokenTrajectory]
"""One trajectory of tokens per run."""


def movies_of(runs: list[Path], stride: int) -> list[mdtraj.Trajectory]:
    """The frames of each run, every `stride`-th."""
    return [mdtraj.load(str(run / "trajectory.dcd"), top=str(run / "topology.pdb"), stride=stride) for run in runs]


def as_scalars(name: str, values: np.ndarray, interval_ps: float) -> TokenTrajectory:
    """(frames, n) numbers as the scalars of one token."""
    tokens = np.zeros((len(values), 1, 4, values.shape[1]), np.float32)
    tokens[:, 0, 0] = values
    return trajectory_of_arrays(name, tokens, interval_ps)


def dihedrals(movie: mdtraj.Trajectory) -> np.ndarray:
    """(frames, n) cosines and sines of all phi and psi."""
    angles = np.hstack([mdtraj.compute_phi(movie)[1], mdtraj.compute_psi(movie)[1]])
    return np.hstack([np.cos(angles), np.sin(angles)])


def distances(movie: mdtraj.Trajectory) -> np.ndarray:
    """(frames, n) nm, between the backbone atoms and beta carbons of different residues."""
    table = movie.topology
    atoms = table.select("name N CA C O CB CH3")
    pairs = [
        (first, second)
        for place, first in enumerate(atoms)
        for second in atoms[place + 1 :]
        if table.atom(first).residue != table.atom(second).residue
    ]
    return mdtraj.compute_distances(movie, np.array(pairs))


def embeddings(encoder: str, runs: list[Path], cache: Path, reading: Reading) -> Descriptor:
    """Tokens of all runs by one encoder; stores that are there already are gone on with."""
    made = []
    for run in runs:
        folder = cache / Path(encoder).stem / run.name
        folder.parent.mkdir(parents=True, exist_ok=True)
        topology = mdtraj.load(str(run / "topology.pdb")).topology
        featurize_trajectory(run / "trajectory.dcd", folder, Featurizer(encoder, topology), reading)
        made.append(trajectory_of_store(EmbeddingStore.open(folder)))
    return made


def invariants(trajectory: TokenTrajectory) -> np.ndarray:
    """(frames, n) float32: scalars, and lengths of vectors, of all tokens; a descriptor without vectors has scalars."""
    scalars = trajectory.tokens[:, :, 0].astype(np.float32).reshape(len(trajectory), -1)
    lengths = np.sqrt(np.square(trajectory.tokens[:, :, 1:].astype(np.float32)).sum(axis=2)).reshape(
        len(trajectory), -1
    )
    return np.hstack([scalars, lengths]) if lengths.any() else scalars


def covariances_of(trajectories: Descriptor, series: list[np.ndarray], lag_ps: float) -> Any:
    """Of the pairs of frames that are a lag apart."""
    x, y, _ = LaggedPairs(trajectories, lag_ps).pairs_of(series)
    return lagged_covariances(torch.from_numpy(x), torch.from_numpy(y))


def scores(model: VampModel, test: Any) -> list[float]:
    """Held-out VAMP-2 of the first 1, 2, ... functions."""
    found = []
    for dim in range(1, MOST_DIMENSIONS + 1):
        cut = VampModel(
            model.mean_0, model.mean_t, model.left[:, :dim], model.right[:, :dim], model.singular_values[:dim]
        )
        found.append(held_out_score(cut, test, epsilon=1e-9))
    return found


def halves(count: int) -> list[tuple[list[int], list[int]]]:
    """Training and held-out runs: every other run, and the other way round."""
    even, odd = list(range(0, count, 2)), list(range(1, count, 2))
    return [(even, odd), (odd, even)]


def of(items: list[Any], numbers: list[int]) -> list[Any]:
    return [items[number] for number in numbers]


def linear_scores(descriptor: Descriptor, lag_ps: float) -> tuple[list[list[float]], list[VampModel]]:
    """(halves, dimensions) held-out scores of linear functions, and the functions."""
    series, found, models = [invariants(trajectory) for trajectory in descriptor], [], []
    spread = np.concatenate(series).std(axis=0)
    series = [values[:, spread > 0] / spread[spread > 0] for values in series]
    for training, held_out in halves(len(descriptor)):
        fitted = covariances_of(of(descriptor, training), of(series, training), lag_ps)
        epsilon = RELATIVE_EPSILON * float(torch.linalg.eigvalsh(fitted.c00)[-1])
        models.append(fit_vamp(fitted, epsilon, truncate=True, dim=MOST_DIMENSIONS))
        found.append(scores(models[-1], covariances_of(of(descriptor, held_out), of(series, held_out), lag_ps)))
    return found, models


def network_scores(
    descriptor: Descriptor, lag_ps: float, settings: VampnetSettings
) -> tuple[list[list[float]], list[list[np.ndarray]]]:
    """(halves, dimensions) held-out scores of a VAMPnet, and its functions along every run."""
    _, tokens, _, width = descriptor[0].tokens.shape
    spec = CVNetworkSpec(
        tokens, width, MOST_DIMENSIONS, Mixer.MLP, width=32, num_layers=1, dropout=0.0, pooling=Pooling.FLATTEN
    )
    found, functions = [], []
    for training, held_out in halves(len(descriptor)):
        parts = split_by_time(of(descriptor, training), lag_ps, 0.2, VALIDATION_BLOCKS)
        network = train_vampnet(spec, *parts, lag_ps, settings, progress=False).best.network
        series = [slow_variables(network, trajectory).astype(np.float64) for trajectory in descriptor]
        model = fit_vamp(covariances_of(of(descriptor, training), of(series, training), lag_ps), 1e-9, truncate=True)
        found.append(scores(model, covariances_of(of(descriptor, held_out), of(series, held_out), lag_ps)))
        functions.append([model.transform(torch.from_numpy(values)).numpy() for values in series])
    return found, functions


def draw(functions: dict[str, list[np.ndarray]], movies: list[mdtraj.Trajectory], path: Path) -> None:
    """The two leading functions of each descriptor, as means over bins of phi and psi of the middle residue."""
    phi = np.concatenate([mdtraj.compute_phi(movie)[1] for movie in movies])
    psi = np.concatenate([mdtraj.compute_psi(movie)[1] for movie in movies])
    middle = phi.shape[1] // 2
    x, y, bins = np.degrees(phi[:, middle]), np.degrees(psi[:, middle]), np.linspace(-180, 180, 73)
    counts = np.histogram2d(x, y, bins)[0]
    columns = math.ceil(len(functions) / 2)  # two bands, or the maps of seven descriptors would be tiny
    title = "The two leading functions of each descriptor: mean over the frames at each phi and psi"
    with figure_file(path, 2.9 * columns, 10.8, title) as figure:
        axes: Any = figure.subplots(4, columns, squeeze=False, sharex=True, sharey=True)
        for panel in axes.flat:
            panel.set_axis_off()
        for number, (name, series) in enumerate(functions.items()):
            values = np.concatenate(series)
            for row in range(2):
                panel = axes[2 * (number // columns) + row, number % columns]
                means = np.histogram2d(x, y, bins, weights=values[:, row])[0] / np.where(counts > 2, counts, np.nan)
                # The sign of a singular function means nothing: the side of the rarer frames is drawn positive.
                means *= np.sign(np.mean(values[:, row] ** 3)) or 1.0
                bound = float(np.nanpercentile(np.abs(means), 98))
                image = panel.imshow(
                    means.T, origin="lower", extent=(-180, 180, -180, 180), cmap="RdBu_r", vmin=-bound, vmax=bound
                )
                panel.set_axis_on()
                panel.set(xticks=(-180, 0, 180), yticks=(-180, 0, 180), xlabel="phi (degrees)", ylabel="psi (degrees)")
                panel.set_title(f"{name.replace('_', ' ')}\nfunction {row + 1}", fontsize=9)
                panel.label_outer()
                figure.colorbar(image, ax=panel, shrink=0.8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="directories of openmm-gnn simulate")
    parser.add_argument("--encoder", action="append", required=True, help="name or file; may be given several times")
    parser.add_argument("--cache", type=Path, required=True, help="directory that keeps the embeddings")
    parser.add_argument("--frame-time", type=float, default=1.0, help="ps between two frames of the trajectories")
    parser.add_argument("--stride", type=int, default=1, help="take every so many frames")
    parser.add_argument("--lags", default="5,10,20,50,100", help="ps, of the linear functions")
    parser.add_argument("--net-lag", type=float, default=20.0, help="ps, of the VAMPnets")
    parser.add_argument("--steps", type=int, default=200, help="of each VAMPnet, at most; 0: none")
    parser.add_argument("--figure", type=Path, help="draw the leading functions over phi and psi")
    parser.add_argument("--name", default="zero_shot", help="of the file of results")
    parser.add_argument("--quick", action="store_true", help="one lag, nothing is kept")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    if len(arguments.runs) < 2:
        raise SystemExit("give at least two runs: every other one is held out")
    lags = [arguments.net_lag] if arguments.quick else [float(lag) for lag in arguments.lags.split(",")]
    reading = Reading(stride=arguments.stride, frame_time_ps=arguments.frame_time)
    interval = arguments.frame_time * arguments.stride
    movies = movies_of(arguments.runs, arguments.stride)
    makers: dict[str, Callable[[], Descriptor]] = {
        kind.__name__: lambda kind=kind: [
            as_scalars(run.name, kind(movie), interval) for run, movie in zip(arguments.runs, movies, strict=True)
        ]
        for kind in (dihedrals, distances)
    }
    for encoder in arguments.encoder:
        makers[Path(encoder).stem] = lambda encoder=encoder: embeddings(
            encoder, arguments.runs, arguments.cache, reading
        )
    settings = VampnetSettings(
        num_steps=arguments.steps or 25, batch_size=2000, validate_every=25, patience=4, most_pairs=20_000
    )
    linear: dict[str, dict[str, list[list[float]]]] = {}
    networks: dict[str, list[list[float]]] = {}
    drawn: dict[str, list[np.ndarray]] = {}
    for name, make in makers.items():
        started = time.perf_counter()
        descriptor = make()
        linear[name] = {f"{lag:g}": linear_scores(descriptor, lag)[0] for lag in lags}
        if arguments.steps:
            networks[name], functions = network_scores(descriptor, arguments.net_lag, settings)
            drawn[name] = functions[0]
        console.print(f"{name}: {time.perf_counter() - started:.0f} s", linear[name], networks.get(name))
    table = Table(title="VAMP-2 on held-out runs, mean of both halves: 1, 2, 3, 4 functions")
    for column in ("descriptor", *(f"linear, {lag:g} ps" for lag in lags), f"VAMPnet, {arguments.net_lag:g} ps"):
        table.add_column(column)
    for name, by_lag in linear.items():
        cells = [*by_lag.values(), *([networks[name]] if name in networks else [])]
        table.add_row(name, *("  ".join(f"{score:.3f}" for score in np.mean(cell, axis=0)) for cell in cells))
    console.print(table)
    if arguments.figure and drawn:
        draw(drawn, movies, arguments.figure)
    results = {
        "runs": [run.name for run in arguments.runs],
        "frames": [len(movie) for movie in movies],
        "interval_ps": interval,
        "net_lag_ps": arguments.net_lag,
        "linear": linear,
        "vampnet": networks,
    }
    save_results(arguments.name, results, arguments.quick)


if __name__ == "__main__":
    main()
