"""`openmm-gnn tail`: the live features of a run, how far, how fast, how healthy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from openmm_gnn.kinetics.live_vamp import StoreScores
    from openmm_gnn.reporters.embedding_store import EmbeddingStore


def tail(
    run: Annotated[Path, typer.Argument(help="An embedding store, or the directory of a run with one or several.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Look again until the writer has closed.")] = False,
    interval: Annotated[float, typer.Option(help="With --follow: seconds between two looks.", min=0.05)] = 2.0,
    timeout: Annotated[
        float | None, typer.Option(help="With --follow: end after so many seconds without a new frame.")
    ] = None,
    check: Annotated[int, typer.Option(help="Newest frames whose checksums are compared.", min=0)] = 100,
    vamp: Annotated[
        float | None, typer.Option(help="Lag in ps: score how much slow motion the features have seen (VAMP-2).")
    ] = None,
    dimensions: Annotated[int, typer.Option(help="With --vamp: slow functions that are scored.", min=1)] = 5,
    plot: Annotated[Path | None, typer.Option(help="With --vamp: figure of the score over simulated time.")] = None,
) -> None:
    """Show frames, rate, lag, last step and health of the live features of a run.

    Exits with 1 if a frame is damaged or has a NaN.
    """
    import time

    from rich.console import Console
    from rich.live import Live

    from openmm_gnn.kinetics.live_vamp import StoreScores
    from openmm_gnn.reporters.store_follower import State, status_of

    if plot is not None and vamp is None:
        raise typer.BadParameter("give the lag with --vamp", param_hint="--plot")
    stores = _stores_of(run)
    scores = {name: StoreScores(store, vamp, dimensions) for name, store in stores.items()} if vamp is not None else {}
    console = Console()
    healthy, count, news = True, -1, time.monotonic()
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            statuses = {name: status_of(store, check) for name, store in stores.items()}
            for score in scores.values():
                score.advance()
            live.update(_table(run, statuses, scores), refresh=True)
            if plot is not None:
                _draw(scores, plot)
            healthy = all(status.healthy for status in statuses.values())
            total = sum(status.num_frames for status in statuses.values())
            if total != count:
                count, news = total, time.monotonic()
            if not follow or all(status.state is State.CLOSED for status in statuses.values()):
                break
            if timeout is not None and time.monotonic() - news > timeout:
                break
            time.sleep(interval)
    for name, status in statuses.items():
        _complain(console, stores[name].path, status.damaged, "fail their checksum: the file is damaged, copy it again")
        _complain(console, stores[name].path, status.not_finite, "have a NaN or infinity: look at the simulation there")
    if plot is not None and not any(score.rows for score in scores.values()):
        console.print("No score yet: too few frames for the lag; no figure was drawn.")
    if not healthy:
        raise typer.Exit(1)


def _stores_of(run: Path) -> dict[str, EmbeddingStore]:
    """The stores of a run by name.

    Raises:
        DataError: if there are none.
    """
    from openmm_gnn.base.errors import DataError
    from openmm_gnn.reporters.embedding_store import EmbeddingStore

    stores = EmbeddingStore.replicas(run)
    if not stores:
        raise DataError(f"{run} holds no embedding store: give the directory that EmbeddingReporter writes to")
    return stores


def _table(run: Path, statuses: dict, scores: dict[str, StoreScores]) -> Table:
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
    if scores:
        headings.append("VAMP-2 (validated)")
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
                f"[green]{checked}[/]" if status.healthy else f"[red]{_faults(status)} of {checked}[/]",
            ]
        )
        if scores:
            found = scores[name].rows
            rows[-1].append(f"{_number(found[-1].score)} ({_number(found[-1].validated)})" if found else "-")
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


def _draw(scores: dict[str, StoreScores], plot: Path) -> None:
    from openmm_gnn.kinetics.live_vamp import save_scores

    curves = {name: score.rows for name, score in scores.items() if score.rows}
    if curves:
        save_scores(curves, plot)


def _faults(status: object) -> int:
    return len(status.damaged) + len(status.not_finite)  # type: ignore[attr-defined]


def _complain(console: object, path: Path, frames: tuple[int, ...], words: str) -> None:
    if frames:
        console.print(f"{path}: frames {', '.join(map(str, frames[:10]))} {words}", style="red")  # type: ignore[attr-defined]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(0.0, seconds):.1f} s ago"
