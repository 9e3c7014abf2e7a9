"""Trajectories of residue tokens, from embedding stores or arrays, checked before anything is learned from them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import flattened
from openmm_gnn.base.growing_array import intact
from openmm_gnn.base.specs.tokens import CVNetworkSpec
from openmm_gnn.features.featurizer_settings import WHOLE
from openmm_gnn.reporters.embedding_store import EmbeddingStore

PRELOAD_BYTES = 2**31
"""Size up to which a store is read into memory; larger ones stay memory maps."""
CHUNK_FRAMES, CHUNK_BYTES = 2048, 2**27
"""Frames that are worked on at a time, at most, and the memory of their features in float32."""
_GAP = 0.01
"""Relative difference of a time between two frames from the usual one, above which it is a gap."""
_NAMES = ("encoder.name", "encoder.spec.metadata", "dtype")
"""Entries that may differ: they say where a model was found, and how its features were rounded."""


@dataclass(frozen=True)
class TokenTrajectory:
    """Frames of one trajectory in the order of time; there may be gaps, where a run was restarted."""

    name: str
    """Name in error messages: usually a path."""
    tokens: np.ndarray
    """(frames, T, 4, H); component 0 has the scalars, 1 to 3 the vectors' x, y, z; float16, float32 or float64."""
    coordinates: np.ndarray
    """(frames, T, 3) nm."""
    times_ps: np.ndarray
    """(frames,), increasing."""
    log_weights: np.ndarray | None = None
    """(frames,) logarithm of each frame's weight in the unbiased ensemble, up to a constant; None: all equal."""
    description: dict[str, Any] = field(default_factory=dict, compare=False)
    """Description of the features, `Featurizer.describe()`; trajectories used together must agree."""

    def __post_init__(self) -> None:
        frames = len(self.tokens)
        if self.tokens.ndim != 4 or self.tokens.shape[2] != 4:
            raise DataError(f"{self.name}: tokens of shape {self.tokens.shape}: give (frames, tokens, 4, width)")
        if self.coordinates.shape != (frames, self.tokens.shape[1], 3):
            raise DataError(
                f"{self.name}: coordinates of shape {self.coordinates.shape}: give {(frames, self.tokens.shape[1], 3)}"
            )
        if self.times_ps.shape != (frames,) or (self.log_weights is not None and self.log_weights.shape != (frames,)):
            raise DataError(f"{self.name}: there are {frames} frames, give as many times and log weights")
        if frames and np.isnan(self.times_ps).all():
            raise DataError(
                f"{self.name}: the frames have no times: give the same `openmm-gnn featurize` command once more, with "
                "--frame-time PS, which keeps the features"
            )
        steps = np.diff(self.times_ps)
        if frames > 1 and not (np.isfinite(self.times_ps).all() and (steps > 0).all()):
            raise DataError(f"{self.name}: the times do not increase, so a lag means nothing: featurize with times")
        if self.log_weights is not None and not np.isfinite(self.log_weights).all():
            frame = int(np.flatnonzero(~np.isfinite(self.log_weights))[0])
            raise DataError(f"{self.name}: the log weight of frame {frame} is {self.log_weights[frame]}: leave it out")

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def interval_ps(self) -> float:
        """The usual time between two frames; 0 if there are fewer than two."""
        return float(np.median(np.diff(self.times_ps))) if len(self) > 1 else 0.0

    @property
    def segments(self) -> np.ndarray:
        """(frames,) number of the uninterrupted piece that a frame belongs to."""
        gaps = np.abs(np.diff(self.times_ps) - self.interval_ps) > _GAP * self.interval_ps
        return np.concatenate([[0], np.cumsum(gaps)])[: len(self)]

    @property
    def pieces(self) -> list[slice]:
        """The frames of each uninterrupted piece."""
        borders = [0, *(np.flatnonzero(np.diff(self.segments)) + 1).tolist(), len(self)]
        return [slice(start, stop) for start, stop in itertools.pairwise(borders)]

    def part(self, start: int, stop: int) -> TokenTrajectory:
        """The frames from `start` up to `stop`, without copying them."""
        cut = slice(start, stop)
        return replace(
            self,
            name=f"{self.name}, frames {start} to {stop - 1}",
            tokens=self.tokens[cut],
            coordinates=self.coordinates[cut],
            times_ps=self.times_ps[cut],
            log_weights=None if self.log_weights is None else self.log_weights[cut],
        )

    @property
    def chunks(self) -> list[slice]:
        """The frames in portions of bounded size."""
        step = frames_in(CHUNK_BYTES, self.tokens, CHUNK_FRAMES)
        return [slice(start, start + step) for start in range(0, len(self), step)]

    def batches(self, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
        """Tokens and coordinates, portion by portion."""
        for cut in self.chunks:
            yield (
                torch.from_numpy(self.tokens[cut].astype(np.float32)).to(dtype),
                torch.from_numpy(self.coordinates[cut].astype(np.float32)).to(dtype),
            )


def trajectory_of_arrays(
    name: str,
    tokens: np.ndarray,
    interval_ps: float,
    coordinates: np.ndarray | None = None,
    log_weights: np.ndarray | None = None,
) -> TokenTrajectory:
    """A trajectory without gaps from arrays; without coordinates, all tokens are at the origin.

    Raises:
        DataError: naming it, for wrong shapes, frames that are not finite, or tokens that never change.
    """
    if coordinates is None:
        coordinates = np.zeros((*tokens.shape[:2], 3), np.float32)
    times = interval_ps * np.arange(len(tokens), dtype=np.float64)
    trajectory = TokenTrajectory(name, tokens, coordinates, times, log_weights)
    check_frames(trajectory)
    return trajectory


def trajectory_of_store(
    store: EmbeddingStore, num_frames: int | None = None, log_weights: np.ndarray | None = None
) -> TokenTrajectory:
    """The frames that a store has now, with their checksums compared.

    Args:
        num_frames: number of first frames to take; the store may grow meanwhile.
        log_weights: (frames,) log weights of those.
    Raises:
        DataError: naming the store and what to do, if a frame is damaged or not finite, or no frame differs.
    """
    records = store.records[:num_frames]
    if len(good := intact(records)) and not good.all():
        bad = np.flatnonzero(~good)
        raise DataError(
            f"{store.path}: {len(bad)} of {len(records)} frames fail their checksum, the first is frame {bad[0]} of "
            f"step {records['step'][bad[0]]}: copy the store again, or featurize the trajectory again"
        )
    tokens, coordinates = records["embedding"], records["coordinates"]
    if tokens.nbytes <= PRELOAD_BYTES:
        tokens = np.ascontiguousarray(tokens)
    trajectory = TokenTrajectory(
        str(store.path),
        tokens,
        np.array(coordinates),
        store.times_ps[: len(records)],
        log_weights,
        store.meta["description"],
    )
    check_frames(trajectory)
    return trajectory


def check_frames(trajectory: TokenTrajectory) -> None:
    """Check that all numbers are finite and that the frames differ.

    Raises:
        DataError: naming the trajectory and the frame, if a number is not finite or all frames are alike.
    """
    changes = False
    for cut in trajectory.chunks:
        tokens, coordinates = trajectory.tokens[cut], trajectory.coordinates[cut]
        good = np.isfinite(tokens).all(axis=(1, 2, 3)) & np.isfinite(coordinates).all(axis=(1, 2))
        if not good.all():
            frame = cut.start + int(np.flatnonzero(~good)[0])
            raise DataError(
                f"{trajectory.name}: frame {frame} at {trajectory.times_ps[frame]:g} ps has NaN or infinity: "
                "cut the trajectory before it, or featurize it again"
            )
        changes = changes or bool((tokens != trajectory.tokens[0]).any())
    if len(trajectory) > 1 and not changes:
        raise DataError(
            f"{trajectory.name}: the features are the same in all {len(trajectory)} frames: nothing moves, or the "
            "selection holds no atoms that do; featurize again"
        )


def check_together(trajectories: Sequence[TokenTrajectory], spec: CVNetworkSpec | None = None) -> None:
    """Check that trajectories can be used together, and by a network with this spec.

    Raises:
        DataError: if there are none, or naming two, if they differ in tokens, encoder, topology, context or interval.
        SpecError: if the spec has other tokens than the trajectories.
    """
    if not trajectories:
        raise DataError("there are no trajectories: give at least one store or array")
    first = trajectories[0]
    for other in trajectories[1:]:
        if other.tokens.shape[1:] != first.tokens.shape[1:]:
            raise DataError(
                f"{other.name} has tokens of shape {other.tokens.shape[1:]}, {first.name} of {first.tokens.shape[1:]}: "
                "featurize both with the same encoder and selection"
            )
        # A store that does not say its context is older than windows.
        before, now = (WHOLE.to_json() | flattened(one.description) for one in (first, other))
        names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        names = [name for name in names if not name.startswith(_NAMES)]
        if names:
            raise DataError(
                f"{other.name} and {first.name} have features of different origin ({', '.join(names)}): analyse them "
                "apart, or featurize both with the same encoder, topology and selection"
            )
        if len(other) > 1 and len(first) > 1 and abs(other.interval_ps - first.interval_ps) > _GAP * first.interval_ps:
            raise DataError(
                f"{other.name} has a frame every {other.interval_ps:g} ps, {first.name} every {first.interval_ps:g} "
                "ps: featurize both at the same interval"
            )
    if spec is not None and first.tokens.shape[1:] != (spec.num_tokens, 4, spec.input_width):
        raise SpecError(
            f"the spec has {spec.num_tokens} tokens of width {spec.input_width}, the trajectories have "
            f"{first.tokens.shape[1]} of width {first.tokens.shape[3]}: give those"
        )


def frames_at(
    trajectories: Sequence[TokenTrajectory], numbers: np.ndarray, cut: slice = slice(None)
) -> tuple[Tensor, Tensor]:
    """Tokens (n, T, 4, H) and coordinates (n, T, 3), float32, of frames counted through all trajectories.

    Args:
        cut: the tokens to take.
    """
    borders = np.cumsum([0, *map(len, trajectories)])
    owners = np.searchsorted(borders, numbers, side="right") - 1
    tokens = np.empty((len(numbers), *trajectories[0].tokens[:0, cut].shape[1:]), np.float32)
    coordinates = np.empty((*tokens.shape[:2], 3), np.float32)
    for owner in np.unique(owners):
        mine = owners == owner
        tokens[mine] = trajectories[owner].tokens[numbers[mine] - borders[owner], cut]
        coordinates[mine] = trajectories[owner].coordinates[numbers[mine] - borders[owner], cut]
    return torch.from_numpy(tokens), torch.from_numpy(coordinates)


def frames_in(memory: int, tokens: np.ndarray, most: int) -> int:
    """Frames, 1 to `most`, whose tokens (frames, T, 4, H) take so many bytes in float32."""
    return max(1, min(most, memory // (4 * int(np.prod(tokens.shape[1:])))))


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """At most `most` of the numbers 0 to count - 1, spread over all of them."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(np.int64))


def relative_weights(log_weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    """exp(log w - max) of each array, with the maximum over all of them."""
    highest = max(float(own.max()) for own in log_weights if len(own))
    return [np.exp(own - highest) for own in log_weights]


@dataclass(frozen=True)
class InputStatistics:
    """Statistics of the inputs, for `CVNetwork.set_input_statistics`."""

    scalar_mean: Tensor
    scalar_std: Tensor
    """Standard deviations; 0 where the scalar changes by rounding alone."""
    vector_scale: Tensor
    """Root mean square length of a vector; all (T, H), float64."""


def input_statistics(trajectories: Sequence[TokenTrajectory]) -> InputStatistics:
    """Statistics over all frames of all trajectories, in one pass."""
    count, shape = 0, trajectories[0].tokens.shape
    total, squares, lengths = (np.zeros((shape[1], shape[3])) for _ in range(3))
    origin = trajectories[0].tokens[0, :, 0].astype(np.float64)  # near the mean, so that little cancels
    resolution = 0.0
    for trajectory in trajectories:
        resolution = max(resolution, float(np.finfo(trajectory.tokens.dtype).eps))
        for cut in trajectory.chunks:
            tokens = trajectory.tokens[cut].astype(np.float64)
            scalars = tokens[:, :, 0] - origin
            count += len(tokens)
            total += scalars.sum(axis=0)
            squares += (scalars**2).sum(axis=0)
            lengths += (tokens[:, :, 1:] ** 2).sum(axis=(0, 2))
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    mean += origin
    std[std <= resolution * np.abs(mean)] = 0.0  # the last digit flickers: scaled up it would be noise
    return InputStatistics(*(torch.from_numpy(array) for array in (mean, std, np.sqrt(lengths / count))))
