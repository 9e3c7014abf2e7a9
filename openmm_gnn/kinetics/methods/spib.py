"""State Predictive Information Bottleneck: states and slow variables, each refined with the help of the other.

A network learns to predict from a frame the state a lag later, through a bottleneck of few variables. When the loss no
longer falls, every frame gets the state that the network predicts for it; empty states are dropped, and the network
learns again, until the states no longer change.

Source: Wang and Tiwary, J. Chem. Phys. 154, 134111 (2021), doi:10.1063/5.0038198, arXiv 2011.10127.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from openmm_gnn.base.errors import DataError, NonFiniteError, at_least, positive, whole
from openmm_gnn.base.files import write_arrays, write_json
from openmm_gnn.base.specs.tokens import CVNetworkSpec
from openmm_gnn.base.worker_processes import ProgressBar
from openmm_gnn.kinetics.data import AnalysisData
from openmm_gnn.kinetics.lagged_pairs import LaggedPairs
from openmm_gnn.kinetics.methods.interface import Learned, SeedScore, network_spec, slow_variables
from openmm_gnn.kinetics.methods.spib_network import SpibNetwork
from openmm_gnn.kinetics.settings import AnalysisSettings
from openmm_gnn.kinetics.token_trajectories import TokenTrajectory, check_together, frames_at, input_statistics
from openmm_gnn.kinetics.vamp import fit_and_score
from openmm_gnn.learning.step_order import StepOrder
from openmm_gnn.networks.tokens.cv_network import CVNetwork
from openmm_gnn.networks.weights import load_cv_network, save_network

TITLE = "SPIB"
ROUND_STEPS = 50
QUICK_REFINEMENTS = 3
INITIAL_STATES = 10
MOST_INITIAL_FRAMES, INITIAL_BYTES = 50_000, 2**30
"""Frames of the components and clusters of the first states, and memory of their features, at most; the frames are
evenly spaced."""
MOST_IDLE = 4
"""Trainings in a row that leave a single state, after which no other is expected."""
PLATEAU = 0.1, 0.95
"""Entropy of the predicted states, at most, and loss, at least, over the entropy of the states that are learned, where
the network still predicts the largest state for nearly every frame."""


@dataclass(frozen=True)
class SpibSettings:
    """Settings of a training; the encoder is in its spec, whose num_outputs is the number of variables z."""

    num_states: int = 10
    """Initial number of states; refinement drops those that become empty."""
    beta: float = 1e-3
    """Weight of the information that z keeps of the frame."""
    learning_rate: float = 1e-3
    batch_size: int = 500
    """Pairs per step; a step on more of them takes longer and learns hardly more."""
    round_steps: int = 50
    """Steps per round; after each it is checked whether the loss still falls."""
    flat: float = 0.005
    """Relative decrease of the loss per round below which it counts as flat."""
    patience: int = 2
    """Flat rounds in a row before the states are refined."""
    most_rounds: int = 20
    """Rounds between two refinements, at most."""
    refinements: int = 15
    converged: float = 0.005
    """Share of frames whose state changes, below which refinement ends."""
    decoder_width: int = 32
    components: int = 10
    """Principal components of the tokens' scalars, in whose slow combinations the first states are clustered."""

    def __post_init__(self) -> None:
        whole(self, 2, "num_states", "batch_size")
        whole(self, 1, "round_steps", "patience", "most_rounds", "components", "decoder_width")
        whole(self, 0, "refinements")
        at_least(self, 0, "beta", "flat", "converged")
        positive(self, "learning_rate")


@dataclass(frozen=True)
class SpibRefinement:
    """The record of one refinement of the states."""

    step: int
    loss: float
    reconstruction: float
    divergence: float
    """Means over the last round."""
    num_states: int
    """States that are left."""
    changed: float
    """Share of frames whose state has changed."""


@dataclass(frozen=True)
class SpibResult:
    """The trained network, and the states of the training trajectories."""

    lag_ps: float
    seed: int
    network: SpibNetwork
    refinements: tuple[SpibRefinement, ...]
    states: tuple[np.ndarray, ...]
    """(frames,) states of each training trajectory; 0 is the most populated."""
    order: np.ndarray
    """(states,) the network's own number of each state."""

    @property
    def encoder(self) -> CVNetwork:
        """The network from frames to the variables z."""
        encoder = self.network.encoder
        assert isinstance(encoder, CVNetwork)
        return encoder

    @property
    def num_states(self) -> int:
        return len(self.order)

    def variables(self, trajectory: TokenTrajectory) -> np.ndarray:
        """(frames, latent_dim) means of z."""
        return slow_variables(self.encoder, trajectory)

    def states_of(self, trajectory: TokenTrajectory) -> np.ndarray:
        """(frames,) states of a trajectory, which may be a new one."""
        return np.argsort(self.order)[_network_states(self.network, self.variables(trajectory))]


def fit(settings: AnalysisSettings, data: AnalysisData, folder: Path, progress: bool) -> Learned:
    """Train every seed that is not complete; the best is that whose variables score highest on held-out frames.

    The variables z have no order and no scale: they are turned into the slow directions of their span, with mean 0 and
    variance 1, which changes neither the states nor the information in the variables.
    """
    found = []
    for seed in range(settings.used_networks):
        home = folder / f"seed-{seed}"
        if not (home / "result.json").is_file():
            _fit_seed(settings, data, seed, home, progress)
        found.append(SeedScore(**json.loads((home / "result.json").read_text())))
    best = max(found, key=lambda seed: seed.validation)
    home = folder / f"seed-{best.seed}"
    with np.load(home / "states.npz") as stored:
        states = [stored[str(number)] for number in range(len(data.runs))]
    return Learned(load_cv_network(home / "slow_variables.safetensors"), found, best.seed, states=states)


def _fit_seed(settings: AnalysisSettings, data: AnalysisData, seed: int, folder: Path, progress: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    training = SpibSettings(
        num_states=settings.states or INITIAL_STATES,
        batch_size=settings.batch_size or SpibSettings.batch_size,
        round_steps=min(ROUND_STEPS, settings.used_steps),
        most_rounds=max(1, settings.used_steps // ROUND_STEPS),
        refinements=QUICK_REFINEMENTS if settings.quick else SpibSettings.refinements,
    )
    spec, held_out = network_spec(settings, data), data.cut(data.validation)
    done = itertools.count(1)
    with ProgressBar(
        training.refinements + 1, progress, title=f"network {seed + 1} of {settings.used_networks}"
    ) as bar:

        def show(refinement: SpibRefinement) -> None:
            changed = f"{100 * refinement.changed:.1f} % of the frames changed theirs"
            said = f"loss {refinement.loss:.3f}, {refinement.num_states} states, {changed}"
            bar.update(next(done), text=f"step {refinement.step}  {said}")

        result = train_spib(spec, data.cut(data.training), settings.lag, training, seed, None, held_out, show)
    states = [result.states_of(trajectory) for trajectory in data.trajectories]
    network = copy.deepcopy(result.encoder).eval()
    raw = [result.variables(trajectory).astype(np.float64) for trajectory in data.trajectories]
    model, score, validation = fit_and_score(raw, data, data.in_frames(settings.lag))
    network.set_output_map(model.mean_0, model.left)
    save_network(network, folder / "slow_variables.safetensors", {"method": "spib", "seed": seed})
    write_arrays(folder / "states.npz", **{str(number): own for number, own in enumerate(states)})
    frames = sum(part.stop - part.start for part in data.training)
    epochs = result.refinements[-1].step * min(1.0, training.batch_size / max(1, frames))
    row = SeedScore(seed, score, validation, epochs, round(epochs))
    # The last file of all: it says that the others are complete.
    write_json(folder / "result.json", asdict(row))


@torch.random.fork_rng(devices=[])
def train_spib(
    spec: CVNetworkSpec,
    training: Sequence[TokenTrajectory],
    lag_ps: float,
    settings: SpibSettings | None = None,
    seed: int = 0,
    initial_states: Sequence[np.ndarray] | None = None,
    validation: Sequence[TokenTrajectory] = (),
    progress: Callable[[SpibRefinement], None] | None = None,
) -> SpibResult:
    """Learn states and variables together.

    Args:
        spec: the encoder; num_outputs is the number of variables, usually 2.
        training: trajectories; frames without a partner a lag later only get their states.
        initial_states: (frames,) integers from 0 of each trajectory, those for validation last; None: clusters of slow
            components.
        validation: trajectories whose loss ends the training of a round, and whose lowest loss decides which weights
            are kept. Without them it is the loss of training: a network overfits to few frames, and its states are
            then stretches of time.
        progress: called after every refinement.
    Raises:
        DataError: naming the trajectory that is too short or does not fit the others, or if fewer than 2 states last.
        SpecError: if the spec has other tokens than the trajectories.
        NonFiniteError: if the training diverged.
    """
    settings = settings or SpibSettings()
    trajectories = [*training, *validation]
    check_together(trajectories, spec)
    pairs = LaggedPairs(training, lag_ps)
    held_out = LaggedPairs(validation, lag_ps) if validation else None
    torch.manual_seed(seed)
    labels = list(initial_states or initial_clusters(trajectories, lag_ps, settings, seed))
    if [len(one) for one in labels] != [len(one) for one in trajectories]:
        raise DataError("the initial states are of other trajectories: give one state per frame")
    used = np.unique(np.concatenate(labels))
    if len(used) < 2:
        raise DataError(f"all frames are in state {used.tolist()}: give at least two states")
    labels = [np.searchsorted(used, one) for one in labels]
    encoder = CVNetwork(spec)
    statistics = input_statistics(training)
    encoder.set_input_statistics(statistics.scalar_mean, statistics.scalar_std, statistics.vector_scale)
    # Before anything is learned, any frame represents its state as well as another: take the first.
    first = np.unique(np.concatenate(labels), return_index=True)[1]
    network = SpibNetwork(encoder, *frames_at(trajectories, first), spec.num_outputs, settings.decoder_width)
    batches = StepOrder(len(pairs), min(settings.batch_size, len(pairs)), 1, seed)
    log: list[SpibRefinement] = []
    step, idle, refined = 0, 0, network.state_dict()
    while len(log) <= settings.refinements:
        step, losses = _learn(network, pairs, held_out, labels, batches, step, settings)
        means = [slow_variables(encoder.eval(), one) for one in trajectories]
        found = [_network_states(network, one) for one in means]
        changed = float(np.mean(np.concatenate(found) != np.concatenate(labels)))
        kept = np.unique(np.concatenate(found))
        most, least = (factor * _entropy(labels) for factor in PLATEAU)
        plateau = _entropy(found) < most and losses[1] > least
        if plateau or len(kept) < 2:  # it learns on, with the states as they are
            idle += 1
            if idle < MOST_IDLE:
                continue
            if log:
                network.load_state_dict(refined)
                break
            raise DataError(
                f"of {network.num_states} states one is left after {step} steps: nothing is slow at a lag of "
                f"{pairs.lag_ps:g} ps; give a shorter lag, another learning rate or a lower beta"
            )
        idle = 0
        labels = [np.searchsorted(kept, one) for one in found]
        nearest = _nearest_to_means(np.concatenate(means), np.concatenate(labels))
        network.keep_states(torch.from_numpy(kept), *frames_at(trajectories, nearest))
        refined = copy.deepcopy(network.state_dict())
        log.append(SpibRefinement(step, *losses, len(kept), changed))
        if progress is not None:
            progress(log[-1])
        if changed < settings.converged:
            break
    labels = labels[: len(training)]
    population = np.bincount(np.concatenate(labels), minlength=network.num_states)
    order = np.argsort(-population, kind="stable")
    states = tuple(np.argsort(order)[one] for one in labels)
    return SpibResult(pairs.lag_ps, seed, network.eval(), tuple(log), states, order)


def _entropy(states: Sequence[np.ndarray]) -> float:
    populations = np.unique(np.concatenate(states), return_counts=True)[1]
    shares = populations / populations.sum()
    return float(-(shares * np.log(shares)).sum())


def initial_clusters(
    trajectories: Sequence[TokenTrajectory], lag_ps: float, settings: SpibSettings, seed: int
) -> list[np.ndarray]:
    """(frames,) initial states of each trajectory: k-means in the slowest components of the scalars."""
    from deeptime.decomposition import TICA

    from openmm_gnn.kinetics.markov import discretise

    statistics = input_statistics(trajectories)
    mean, std = statistics.scalar_mean.flatten().numpy(), statistics.scalar_std.flatten().numpy()
    moving = std > 0
    if not moving.any():
        raise DataError(f"no scalar of {trajectories[0].name} changes: give initial states")

    def standardised(tokens: np.ndarray) -> np.ndarray:
        return (tokens[:, :, 0].reshape(len(tokens), -1).astype(np.float64)[:, moving] - mean[moving]) / std[moving]

    pairs = LaggedPairs(trajectories, lag_ps)
    sample = pairs.batch(pairs.evenly_spaced(MOST_INITIAL_FRAMES, INITIAL_BYTES))
    # Principal components first: among hundreds of scalars, chance alone makes combinations that look slow.
    x, y = (ends.numpy() for ends in sample.ends(torch.from_numpy(standardised(sample.tokens.numpy()))))
    directions = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)[2][: settings.components].T
    model = TICA(lagtime=pairs.lag_frames).fit_fetch((x @ directions, y @ directions))
    slow = [np.asarray(model.transform(standardised(one.tokens) @ directions)) for one in trajectories]
    return discretise(slow, settings.num_states, seed)


def _learn(
    network: SpibNetwork,
    pairs: LaggedPairs,
    held_out: LaggedPairs | None,
    labels: Sequence[np.ndarray],
    batches: StepOrder,
    step: int,
    settings: SpibSettings,
) -> tuple[int, tuple[float, float, float]]:
    """Train until the loss is flat; the step, and the means of the last round."""
    _, future, _ = pairs.pairs_of(labels[: len(pairs.trajectories)])
    states = torch.nn.functional.one_hot(torch.from_numpy(future), network.num_states).float()
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    network.train()
    lowest, flat_rounds, best = float("inf"), 0, copy.deepcopy(network.state_dict())
    means = (float("nan"), float("nan"), float("nan"))
    for _ in range(settings.most_rounds):
        total = np.zeros(3)
        for _ in range(settings.round_steps):
            numbers = np.asarray(batches.frames_of(step))
            tokens, coordinates, weights = pairs.first_frames(numbers)
            z_mean = network.encode(tokens, coordinates)
            loss = network.loss(z_mean, network.sample(z_mean), states[numbers], settings.beta, weights)
            if not bool(torch.isfinite(loss.total)):
                raise NonFiniteError(
                    f"the loss became {float(loss.total.detach())} after {step} steps: lower the learning rate, now "
                    f"{settings.learning_rate:g}"
                )
            optimizer.zero_grad()
            loss.total.backward()
            optimizer.step()
            total += [float(part.detach()) for part in loss]
            step += 1
        mean_loss, reconstruction, divergence = (total / settings.round_steps).tolist()
        means = (mean_loss, reconstruction, divergence)
        judged = mean_loss if held_out is None else _held_out_loss(network, held_out, labels, settings.beta)
        flat_rounds = flat_rounds + 1 if judged > lowest - settings.flat * abs(lowest) else 0
        if judged < lowest:
            lowest, best = judged, copy.deepcopy(network.state_dict())
        if flat_rounds >= settings.patience:
            break
    if held_out is not None:
        network.load_state_dict(best)
    return step, means


def _held_out_loss(network: SpibNetwork, held_out: LaggedPairs, labels: Sequence[np.ndarray], beta: float) -> float:
    """The loss of at most MOST_INITIAL_FRAMES pairs, at the means of z."""
    _, future, _ = held_out.pairs_of(labels[-len(held_out.trajectories) :])
    numbers = held_out.evenly_spaced(MOST_INITIAL_FRAMES, INITIAL_BYTES)
    tokens, coordinates, weights = held_out.first_frames(numbers)
    states = torch.nn.functional.one_hot(torch.from_numpy(future[numbers]), network.num_states).float()
    network.eval()
    with torch.no_grad():
        means = network.encode(tokens, coordinates)
        loss = network.loss(means, means, states, beta, weights).total
    network.train()
    return float(loss)


def _network_states(network: SpibNetwork, means: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network.states_of(torch.from_numpy(means)).numpy()


def _nearest_to_means(means: np.ndarray, states: np.ndarray) -> np.ndarray:
    """The frame, for each state, of the member nearest to the mean of its members."""
    found = []
    for state in range(int(states.max()) + 1):
        members = np.flatnonzero(states == state)
        distances = np.linalg.norm(means[members] - means[members].mean(axis=0), axis=1)
        found.append(members[np.argmin(distances)])
    return np.array(found)
