"""A running simulation watched by its stores: their state, and a VAMP-2 score of the slow motion seen so far.

Running moments of the features and of themselves a lag later are kept, and the score is taken from them
whenever it is asked for: Wu and Noe, J. Nonlinear Sci. 30, 23 (2020), eq. 33, with the constant function, so 1 means
nothing slow. A score of the data it was fitted to grows with the number of features; the validated score is fitted to
one half of the time and taken on the other. By chance alone it exceeds 1 by about dim^2 / frames.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.errors import DataError, SettingsError, SpecError, at_least, positive, whole
from openmm_gnn.base.figures import COLORS, QUIET_COLOR, figure_file, terminal_table
from openmm_gnn.base.growing_array import intact

if TYPE_CHECKING:
    from rich.table import Table

    from openmm_gnn.reporters.embedding_store import EmbeddingStore
    from openmm_gnn.reporters.store_follower import StoreStatus

POINTS = 25
"""Points of the curve of a score over the frames that are there at the first look."""
BLOCK_LAGS = 10
"""Length in lags of the alternating blocks that fit and validate."""


@dataclass(frozen=True)
class ScoreRow:
    """The scores after a number of frames; NaN where there are too few of them."""

    time_ps: float
    num_frames: int
    score: float
    """Score on the data it was fitted to."""
    validated: float
    """Score fitted to one half and taken on the other, mean of both directions."""


class LiveVamp:
    """A score of frames that come in portions; it is that of all of them together."""

    def __init__(self, lag_frames: int, dim: int = 5, epsilon: float = 1e-6) -> None:
        """
        Args:
            lag_frames: frames from x(t) to x(t + lag).
            dim: number of slow functions in the score.
            epsilon: variance below which a direction is left out, in the square of the observables' unit.
        Raises:
            SpecError: for a lag or dimension below 1.
        """
        if lag_frames < 1 or dim < 1:
            raise SpecError(f"a lag of {lag_frames} frames and {dim} dimensions: give 1 or more of each")
        self.lag_frames, self.dim, self.epsilon = lag_frames, dim, epsilon
        self.num_frames = 0
        self._last: np.ndarray | None = None
        self._halves = np.zeros((2, 1, 1))
        """Moments of the pairs of each half."""

    def begin_trajectory(self) -> None:
        """Start a new trajectory: no pair connects its frames with those before."""
        if self._last is not None:
            self._last = self._last[:0]

    def update(self, observables: np.ndarray) -> None:
        """Add the next frames.

        Args:
            observables: (frames, n); the last `lag_frames` of them are kept for the pairs to come.
        Raises:
            DataError: if n is not that of the frames before.
        """
        from openmm_gnn.kinetics.vamp import pair_moments

        new = np.asarray(observables, np.float64)
        if self._last is None:
            self._last = np.empty((0, new.shape[1]))
            self._halves = np.zeros((2, 1 + 2 * new.shape[1], 1 + 2 * new.shape[1]))
        if new.ndim != 2 or new.shape[1] != self._last.shape[1]:
            raise DataError(f"observables of shape {new.shape} after {self._last.shape[1]} of them per frame")
        frames = np.concatenate([self._last, new])
        first = self.num_frames - len(self._last)
        num_pairs = len(frames) - self.lag_frames
        if num_pairs > 0:
            x, y = frames[:num_pairs], frames[self.lag_frames :]
            halves = (first + np.arange(num_pairs)) // (BLOCK_LAGS * self.lag_frames) % 2
            for half in (0, 1):
                self._halves[half] += pair_moments(x[halves == half], y[halves == half])
        self._last = frames[-self.lag_frames :]
        self.num_frames += len(new)

    def score(self) -> float:
        """VAMP-2 of all pairs; NaN with fewer than two pairs."""
        return self._score(self._halves.sum(axis=0), self._halves.sum(axis=0), 2)

    def validated_score(self) -> float:
        """VAMP-2 fitted to every second block and taken on the others, mean of both directions; NaN for small halves.

        Pairs that straddle the border of two blocks belong to the block of x(t).
        """
        first, second = self._halves[0], self._halves[1]
        return (self._score(first, second, BLOCK_LAGS) + self._score(second, first, BLOCK_LAGS)) / 2

    def _score(self, fitted: np.ndarray, tested: np.ndarray, fewest: int) -> float:
        """The score of the functions of some moments on others; NaN where either has fewer pairs than this."""
        from openmm_gnn.kinetics.vamp import covariances_of, fit_vamp, held_out_score

        if min(fitted[0, 0], tested[0, 0]) < fewest:
            return float("nan")
        try:
            model = fit_vamp(covariances_of(fitted), self.epsilon, truncate=True, dim=self.dim)
            return held_out_score(model, covariances_of(tested), epsilon=self.epsilon, truncate=True)
        except DataError:  # nothing varies
            return float("nan")


class StoreScores:
    """The scores along a store that may still grow; `advance` adds the new frames."""

    def __init__(
        self, store: EmbeddingStore, lag_ps: float, dim: int = 5, observables: str = "mean", every: int = 100
    ) -> None:
        """
        Args:
            lag_ps: simulated time between x(t) and x(t + lag), ps; rounded to whole frames.
            observables: "mean" or "tokens", see `Observables`; many numbers need many frames.
            every: number of frames between two rows of scores.
        Raises:
            SpecError: if the lag is not above 0.
        """
        if not lag_ps > 0:
            raise SpecError(f"the lag is {lag_ps} ps: give a time above 0")
        self.rows: list[ScoreRow] = []
        self._store, self._lag_ps, self._dim = store, lag_ps, dim
        self._observables, self._every = observables, every
        self._vamp: LiveVamp | None = None
        self._interval_ps = 0.0
        self._last: np.ndarray | None = None
        """The last frame that was added."""

    def advance(self) -> list[ScoreRow]:
        """Add the frames since the last call; the rows so far.

        A store that was cut by a restart is read again from its start.

        Raises:
            DataError: if the frames have no times.
        """
        records = self._store.records
        if self._vamp is not None and self._changed(records):
            self._vamp, self._last, self.rows = None, None, []
        if self._vamp is None:
            if len(records) < 2:
                return self.rows
            self._interval_ps = float(np.median(np.diff(records["time"][:100])))
            if not self._interval_ps > 0:
                raise DataError(f"{self._store.path} has no times, so a lag means nothing: featurize with them")
            self._vamp = LiveVamp(max(1, round(self._lag_ps / self._interval_ps)), self._dim)
        for start in range(self._vamp.num_frames, len(records), self._every):
            part = np.array(records[start : start + self._every])
            if not intact(part).all():
                break  # a restart is overwriting them: the next call reads them
            self._take(part)
        return self.rows

    def _take(self, part: np.ndarray) -> None:
        from openmm_gnn.reporters.store_exports import observables_of

        assert self._vamp is not None
        before = part["time"][0] - self._interval_ps if self._last is None else self._last["time"]
        steps = np.diff(part["time"], prepend=before)
        gaps = np.flatnonzero(np.abs(steps - self._interval_ps) > 0.01 * self._interval_ps)
        for piece in np.split(np.arange(len(part)), gaps):
            if len(piece) and piece[0] in gaps:
                self._vamp.begin_trajectory()  # frames are missing: no pair goes across
            if len(piece):
                self._vamp.update(observables_of(part["embedding"][piece], self._observables))
        self._last = part[-1]
        scores = self._vamp.score(), self._vamp.validated_score()
        self.rows.append(ScoreRow(float(part["time"][-1]), self._vamp.num_frames, *scores))

    def _changed(self, records: np.ndarray) -> bool:
        assert self._vamp is not None
        count = self._vamp.num_frames
        return len(records) < count or (self._last is not None and records["crc"][count - 1] != self._last["crc"])


def save_scores(curves: dict[str, list[ScoreRow]], path: Path | str) -> Path:
    """Draw the scores of one store or several over simulated time into a PNG (or whatever the path's ending says)."""
    with figure_file(path, 8.0, 4.5, "Slow motion seen so far (1: none)") as figure:
        axes = figure.subplots()
        for number, (name, rows) in enumerate(curves.items()):
            times, color = [row.time_ps / 1000 for row in rows], COLORS[number % len(COLORS)]
            prefix = f"{name}, " if name else ""
            validated, fitted = ([getattr(row, one) for row in rows] for one in ("validated", "score"))
            axes.plot(times, validated, "o-", color=color, markersize=3.5, label=f"{prefix}validated")
            style: Any = {"color": color, "linewidth": 0.8, "alpha": 0.7, "markersize": 3.5}
            axes.plot(times, fitted, "s--", label=f"{prefix}of the data it was fitted to", **style)
        if not any(math.isfinite(row.validated) for rows in curves.values() for row in rows):
            words = f"no validated score yet: each half needs {BLOCK_LAGS} pairs of frames"
            axes.text(0.5, 0.5, words, ha="center", transform=axes.transAxes, color=QUIET_COLOR)
        axes.axhline(1, color=QUIET_COLOR, linewidth=0.6)
        axes.set(xlabel="simulated time (ns)", ylabel="VAMP-2 score")
        axes.legend()
    return Path(path)


@dataclass(frozen=True)
class WatchSettings:
    """How often to look at a run, and what to look at."""

    refresh: float = 2.0
    """Time between two looks with --follow, s."""
    timeout: float | None = None
    """Time without a new frame after which --follow ends, s. Default: no limit."""
    check: int = 100
    """Number of the newest frames whose checksums are compared."""
    lag: float | None = None
    """Lag time, ps, of a VAMP-2 score, which tells how much slow motion the features have seen. Default: no score."""
    dimensions: int = 5
    """Number of slow functions that are scored with --lag."""
    plot: Path | None = None
    """File of a figure of the score over simulated time, with --lag. Default: no figure."""

    def __post_init__(self) -> None:
        at_least(self, 0.05, "refresh")
        whole(self, 0, "check")
        whole(self, 1, "dimensions")
        positive(self, "timeout", "lag")
        if self.plot is not None and self.lag is None:
            raise SettingsError(self, "plot", "give the lag of the score with --lag")


@dataclass(frozen=True)
class Watched:
    """What the last look at a run has found."""

    statuses: dict[str, StoreStatus]
    """The stores of the run."""
    scores: dict[str, ScoreRow | None]
    """The last scores of each store, if a lag was given."""
    words: tuple[Any, ...]
    """A table, and a line for each thing that is wrong."""

    @property
    def healthy(self) -> bool:
        """Whether all frames that were checked are whole and finite."""
        return all(status.healthy for status in self.statuses.values())


def watch(directory: Path, settings: WatchSettings, follow: bool = False, shown: bool = True) -> Watched:
    """Look at the stores of a run, once or until it has ended.

    Args:
        shown: show each look on the terminal.
    Raises:
        DataError: if there is no store.
    """
    from rich.console import Console
    from rich.live import Live

    from openmm_gnn.reporters.embedding_store import EmbeddingStore
    from openmm_gnn.reporters.store_follower import State, status_of

    stores, scores = EmbeddingStore.replicas(directory), {}
    if settings.lag is not None:
        scores = {
            name: StoreScores(store, settings.lag, settings.dimensions, every=min(100, max(1, len(store) // POINTS)))
            for name, store in stores.items()
        }
    count, news = -1, time.monotonic()
    with Live(console=Console(quiet=not (shown and follow)), auto_refresh=False, transient=True) as live:
        while True:
            statuses, cells = {name: status_of(store, settings.check) for name, store in stores.items()}, {}
            for name, score in scores.items():
                score.advance()
                last = score.rows[-1] if score.rows else None
                words = f"{_number(last.validated)} ({_number(last.score)})" if last else "-"
                cells[name] = {"VAMP-2 (on its own data)": words}
            table = status_table(directory, statuses, cells)
            live.update(table, refresh=True)
            curves = {name: score.rows for name, score in scores.items() if score.rows}
            if settings.plot is not None and curves:
                save_scores(curves, settings.plot)
            total = sum(status.num_frames for status in statuses.values())
            if total != count:
                count, news = total, time.monotonic()
            if not follow or all(status.state is State.CLOSED for status in statuses.values()):
                break
            if settings.timeout is not None and time.monotonic() - news > settings.timeout:
                break
            time.sleep(settings.refresh)
    said: list[Any] = [table]
    for name, status in statuses.items():
        for frames, words in (
            (status.damaged, "fail their checksum: the file is damaged, copy it again"),
            (status.not_finite, "have a NaN or infinity: look at the simulation there"),
        ):
            if frames:
                which = ", ".join(map(str, frames[:10]))
                said.append(f"{stores[name].path}: frames {which} {words}")
    if settings.plot is not None and not curves:
        said.append("No score yet: too few frames for the lag; no figure was drawn.")
    ends = {name: score.rows[-1] if score.rows else None for name, score in scores.items()}
    return Watched(statuses, ends, tuple(said))


def status_table(
    run: Path, statuses: Mapping[str, StoreStatus], more: Mapping[str, Mapping[str, str]] | None = None
) -> Table:
    """The stores of a run for the terminal, one beside the other; `more` are further cells of each, by heading."""
    from rich.table import Table

    from openmm_gnn.reporters.store_follower import State

    colors = {State.WRITING: "green", State.CLOSED: "cyan", State.STOPPED: "yellow"}
    headings = ["store", "state", "frames", "last step", "time", "frames/s", "ns/day"]
    headings += ["last frame", "waiting", "health"]
    headings += next(iter((more or {}).values()), {})
    rows = []
    for name, status in statuses.items():
        color = colors[status.state]
        checked = f"{status.num_checked} frames checked"
        rows.append(
            [
                name or run.name,
                f"[{color}]{status.state.value}[/]",
                f"{status.num_frames:,}",
                "-" if status.last_step is None else f"{status.last_step:,}",
                "-" if math.isnan(status.last_time_ps) else f"{status.last_time_ps / 1000:.3f} ns",
                _number(status.frames_per_second),
                _number(status.ns_per_day),
                _duration(status.age_seconds),
                str(status.num_waiting),
                f"[green]{checked}[/]"
                if status.healthy
                else f"[red]{len(status.damaged) + len(status.not_finite)} of {checked}[/]",
            ]
        )
        rows[-1] += (more or {}).get(name, {}).values()
    if len(rows) == 1:  # a table as wide as that fits few terminals
        table = Table(title=str(run), title_justify="left", show_header=False)
        for heading, cell in zip(headings, rows[0], strict=True):
            table.add_row(heading, cell)
        return table
    left = [headings.index(name) for name in ("store", "state", "health")]
    return terminal_table(str(run), headings, rows, left)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(0.0, seconds):.1f} s ago"
