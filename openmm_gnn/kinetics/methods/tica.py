"""TICA: slow variables that are linear in the invariants of the tokens, as a network of one layer.

The invariants are the scalars and the lengths of the vectors, as `observables_of` has them. TICA is the reversible case
of VAMP: Perez-Hernandez et al., J. Chem. Phys. 139, 015102 (2013), doi 10.1063/1.4811489.

A large protein has more invariants than a trajectory has frames. Of n invariants and N pairs of frames, chance alone
makes combinations with a correlation of 2 sqrt(n / N (1 - n / N)) over a lag, and from n = N / 2 on of 1: Wachter, Ann.
Stat. 8, 937 (1980), doi 10.1214/aos/1176345134. Then, and where a covariance of all invariants is too large, TICA is
that of the leading principal components, which are found in the span of the frames.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.files import write_arrays
from openmm_gnn.kinetics.data import AnalysisData
from openmm_gnn.kinetics.lagged_pairs import LaggedPairs
from openmm_gnn.kinetics.methods.interface import Learned
from openmm_gnn.kinetics.settings import AnalysisSettings
from openmm_gnn.kinetics.token_trajectories import evenly_spaced, frames_at
from openmm_gnn.reporters.store_exports import observables_of

TITLE = "TICA"
EPSILON = 1e-6
"""Variance below which a direction is left out, as rounding."""
MOST_INVARIANTS = 4096
"""Invariants up to which TICA may be that of all of them."""
MOST_FRAMES, MOST_COMPONENTS = 2048, 1024
"""Frames that the principal components are found from, evenly spaced, and the components that are used, at most."""
PAIRS_PER_COMPONENT = 10
"""Pairs of frames for each principal component: chance then makes correlations of 0.6 at most."""
BLOCK_BYTES = 2**28
"""Memory of the invariants that are held at a time."""


class LinearVariables(nn.Module):
    """Tokens -> (invariants - mean) @ matrix."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, mean: Tensor, matrix: Tensor) -> None:
        """
        Args:
            mean: (tokens * 2 H,)
            matrix: (tokens * 2 H, K)
        """
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("matrix", matrix)

    def forward(self, tokens: Tensor, coordinates: Tensor) -> Tensor:
        """(B, T, 4, H) and (B, T, 3), which is not used -> (B, K)."""
        squared = tokens[:, :, 1:].square().sum(dim=2)
        lengths = torch.where(squared > 0, squared, torch.ones_like(squared)).sqrt() * (squared > 0)
        invariants = torch.cat([tokens[:, :, 0], lengths], dim=2).flatten(1)
        return (invariants - self.mean) @ self.matrix


def fit_tica(pairs: LaggedPairs, num_outputs: int) -> LinearVariables:
    """Fit slow variables with mean 0 and variance 1, the slowest first.

    Raises:
        DataError: if the invariants have fewer directions than outputs.
    """
    components = num_components(pairs, num_outputs)
    if components is None:
        mean, matrix = _fit_invariants(pairs, num_outputs)
    else:
        mean, matrix = _fit_components(pairs, components, num_outputs)
    return LinearVariables(torch.from_numpy(mean).float(), torch.from_numpy(np.ascontiguousarray(matrix)).float())


def num_components(pairs: LaggedPairs, num_outputs: int) -> int | None:
    """The number of principal components that TICA is taken of; None where it is that of all invariants."""
    _, tokens, _, width = pairs.trajectories[0].tokens.shape
    if 2 * tokens * width <= min(MOST_INVARIANTS, len(pairs) // 2):
        return None
    return min(MOST_COMPONENTS, max(num_outputs, len(pairs) // PAIRS_PER_COMPONENT))


def _fit_invariants(pairs: LaggedPairs, num_outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and directions from the covariance of the invariants, which grows portion by portion."""
    frame = pairs.trajectories[0].tokens[0]
    return _slow_directions(pairs, lambda rows: _invariants(pairs, rows, slice(None)), 16 * frame.size, num_outputs)


def _fit_components(pairs: LaggedPairs, components: int, num_outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and directions within the span of the leading principal components of the frames.

    With X the centred invariants, one frame per row, and D the weights of the frames, the components are
    X' sqrt(D) U / sqrt(L), U and L the eigenvectors and eigenvalues of sqrt(D) X X' sqrt(D).
    """
    from scipy.linalg import eigh

    ends = np.concatenate([pairs.starts, pairs.starts + pairs.lag_frames])
    shares = np.bincount(ends, None if pairs.weights is None else np.tile(pairs.weights, 2))
    used = np.flatnonzero(shares)
    basis = used[evenly_spaced(len(used), MOST_FRAMES)]
    shares = shares[basis] / shares[basis].sum()
    products, roots = _products(pairs, basis, basis, shares), np.sqrt(shares)[:, None]
    leading = [max(0, len(basis) - components), len(basis) - 1]
    values, vectors = eigh(roots * products * roots.T, overwrite_a=True, subset_by_index=leading)
    kept = values > EPSILON
    loadings = roots * vectors[:, kept] / np.sqrt(values[kept])
    others = np.setdiff1d(used, basis)
    coordinates = np.zeros((int(ends.max()) + 1, int(kept.sum())), np.float32 if len(others) else np.float64)
    coordinates[basis] = products @ loadings
    for start in range(0, len(others), MOST_FRAMES):
        rows = others[start : start + MOST_FRAMES]
        coordinates[rows] = _products(pairs, rows, basis, shares) @ loadings
    mean, matrix = _slow_directions(pairs, coordinates.__getitem__, 8 * coordinates.shape[1], num_outputs)
    coefficients = loadings @ np.column_stack([mean, matrix])
    parts = []
    for cut in _token_blocks(pairs, len(basis)):
        invariants = _invariants(pairs, basis, cut)
        center = shares @ invariants
        parts.append(np.column_stack([center, (invariants - center).T @ coefficients]))
    whole = np.concatenate(parts)
    # The coordinates of all frames need not have the mean 0 that those of the basis have.
    return whole[:, 0] + whole[:, 1], whole[:, 2:]


def _slow_directions(
    pairs: LaggedPairs, values_of: Callable[[np.ndarray], np.ndarray], bytes_of_frame: int, num_outputs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (n,) and matrix (n, outputs) by deeptime's TICA of the values (rows, n) of frames.

    Raises:
        DataError: if there are fewer directions than outputs.
    """
    from deeptime.decomposition import TICA
    from deeptime.numeric import ZeroRankError

    lag = pairs.lag_frames
    estimator = TICA.covariance_estimator(lag)
    for own in _portions(len(pairs), 2 * bytes_of_frame):
        x, y = (values_of(pairs.starts[own] + shift).astype(np.float64) for shift in (0, lag))
        estimator.partial_fit((x, y), weights=None if pairs.weights is None else pairs.weights[own])
    try:
        fitted = TICA(lagtime=lag, epsilon=EPSILON, scaling=None).fit_from_covariances(estimator).fetch_model()
    except ZeroRankError as error:
        raise DataError(
            "the features do not vary from frame to frame: nothing is slow, or the encoder is not trained"
        ) from error
    found = fitted.singular_vectors_left
    if found.shape[1] < num_outputs:
        raise DataError(
            f"the features have {found.shape[1]} independent directions, {num_outputs} outputs were asked for: ask for "
            "fewer"
        )
    return np.asarray(fitted.mean_0), found[:, :num_outputs]


def _products(pairs: LaggedPairs, rows: np.ndarray, basis: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(rows, basis) products of the invariants of frames, less the mean of the basis with these shares."""
    products, same = np.zeros((len(rows), len(basis))), np.array_equal(rows, basis)
    for cut in _token_blocks(pairs, len(rows) + len(basis)):
        right = _invariants(pairs, basis, cut)
        center = shares @ right
        right -= center
        products += (right if same else _invariants(pairs, rows, cut) - center) @ right.T
    return products


def _invariants(pairs: LaggedPairs, rows: np.ndarray, cut: slice) -> np.ndarray:
    """(rows, n) float64 invariants of some tokens in frames counted through all trajectories."""
    return observables_of(frames_at(pairs.trajectories, rows, cut)[0].numpy()).astype(np.float64)


def _token_blocks(pairs: LaggedPairs, num_frames: int) -> list[slice]:
    """Portions of the tokens whose features in so many frames fit into BLOCK_BYTES."""
    _, tokens, _, width = pairs.trajectories[0].tokens.shape
    return _portions(tokens, 32 * width * num_frames)


def _portions(count: int, bytes_of_one: int) -> list[slice]:
    """Slices of so many things, each of which fits into BLOCK_BYTES, or has one of them."""
    step = max(1, BLOCK_BYTES // bytes_of_one)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def fit(settings: AnalysisSettings, data: AnalysisData, folder: Path, progress: bool) -> Learned:
    """TICA of the training parts; there is nothing random in it, so it has no seeds."""
    file, pairs = folder / "tica.npz", LaggedPairs(data.cut(data.training), settings.lag)
    if not file.is_file():
        network = fit_tica(pairs, settings.outputs)
        write_arrays(file, mean=network.mean.numpy(), matrix=network.matrix.numpy())
    with np.load(file) as stored:
        network = LinearVariables(torch.from_numpy(stored["mean"]), torch.from_numpy(stored["matrix"]))
    components, words = num_components(pairs, settings.outputs), []
    if components is not None:
        words.append(
            f"TICA is that of the {components} leading principal components of the {len(network.mean)} invariants: "
            f"{len(pairs)} pairs of frames do not determine more, or memory does not hold them."
        )
    return Learned(network, warnings=words)
