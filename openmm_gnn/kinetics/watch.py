"""The live features of a run, looked at once or until their writer has closed."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from openmm_gnn.base.errors import SettingsError, at_least, positive, whole

if TYPE_CHECKING:
    from rich.table import Table

    from openmm_gnn.reporters.store_follower import StoreStatus


@dataclass(frozen=True)
class WatchSettings:
    """How often to look at a run, and what to look at."""

    follow: bool = False
    """Look again until the writer has closed."""
    interval: float = 2.0
    """Time between two looks with --follow, s."""
    timeout: float | None = None
    """Time without a new frame after which --follow ends, s. Default: it does not end."""
    check: int = 100
    """Number of the newest frames whose checksums are compared."""
    vamp: float | None = None
    """Lag time, ps: score by VAMP-2 how much slow motion the features have seen. Default: no score."""
    dimensions: int = 5
    """Number of slow functions that are scored with --vamp."""
    plot: Path | None = None
    """Figure of the score over simulated time, with --vamp. Default: none is drawn."""

    def __post_init__(self) -> None:
        at_least(self, 0.05, "interval")
        whole(self, 0, "check")
        whole(self, 1, "dimensions")
        positive(self, "timeout", "vamp")
        if self.plot is not None and self.vamp is None:
            raise SettingsError(self, "plot", "give the lag with --vamp")


def watch(directory: Path, settings: WatchSettings) -> bool:
    """Show the state of the stores of a run, and return whether all frames that were checked are whole and finite.

    Raises:
        DataError: if there is no store.
    """
    from rich.console import Console
    from rich.live import Live

    from openmm_gnn.kinetics.live_vamp import StoreScores, save_scores
    from openmm_gnn.reporters.embedding_store import EmbeddingStore
    from openmm_gnn.reporters.store_follower import State, status_of

    stores, scores = EmbeddingStore.replicas(directory), {}
    if settings.vamp is not None:
        scores = {name: StoreScores(store, settings.vamp, settings.dimensions) for name, store in stores.items()}
    console, count, news = Console(), -1, time.monotonic()
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            statuses, cells = {name: status_of(store, settings.check) for name, store in stores.items()}, {}
            for name, score in scores.items():
                score.advance()
                last = score.rows[-1] if score.rows else None
                words = f"{_number(last.score)} ({_number(last.validated)})" if last else "-"
                cells[name] = {"VAMP-2 (validated)": words}
            live.update(status_table(directory, statuses, cells), refresh=True)
            curves = {name: score.rows for name, score in scores.items() if score.rows}
            if settings.plot is not None and curves:
                save_scores(curves, settings.plot)
            total = sum(status.num_frames for status in statuses.values())
            if total != count:
                count, news = total, time.monotonic()
            if not settings.follow or all(status.state is State.CLOSED for status in statuses.values()):
                break
            if settings.timeout is not None and time.monotonic() - news > settings.timeout:
                break
            time.sleep(settings.interval)
    for name, status in statuses.items():
        for frames, words in (
            (status.damaged, "fail their checksum: the file is damaged, copy it again"),
            (status.not_finite, "have a NaN or infinity: look at the simulation there"),
        ):
            if frames:
                which = ", ".join(map(str, frames[:10]))
                console.print(f"{stores[name].path}: frames {which} {words}", style="red")
    if settings.plot is not None and not curves:
        console.print("No score yet: too few frames for the lag; no figure was drawn.")
    return all(status.healthy for status in statuses.values())


def status_table(
    run: Path, statuses: Mapping[str, StoreStatus], more: Mapping[str, Mapping[str, str]] | None = None
) -> Table:
    """The stores of a run for the terminal, one beside the other; `more` are further cells of each, by heading."""
    from rich.table import Table

    from openmm_gnn.reporters.store_follower import State

    colors = {State.WRITING: "green", State.CLOSED: "cyan", State.STOPPED: "yellow"}
    headings = [
        "store",
        "state",
        "frames",
        "last step",
        "time",
        "frames/s",
        "ns/day",
        "last frame",
        "waiting",
        "health",
    ]
    headings += [heading for heading in next(iter((more or {}).values()), {})]
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
    table = Table(title=str(run), title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("store", "state", "health") else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(0.0, seconds):.1f} s ago"
