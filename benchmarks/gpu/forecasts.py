"""What was forecast for a GPU before any kernel of ours had run on one, beside what was measured.

Forecasts are for an H200 (copies of 4.3 TB/s): from instructions of the kernels' loops (instruction_counts.py), bytes
that move, and what such kernels reach of both limits. A figure outside its range means that the kernel is not bound by
what it was thought to be.

    python benchmarks/gpu/forecasts.py benchmarks/results/nvidia-h200.json
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Forecast:
    """One figure of a table."""

    what: str
    table: str
    row: str
    path: tuple[str, ...]
    """Keys in the row, one inside the other."""
    low: float
    high: float
    unit: str
    target: float | None = None
    """What was asked for, in the same unit: at most this, or at least where `more_is_better`."""
    over: str | None = None
    """Key of the row by whose figure this one is divided."""
    more_is_better: bool = False


FORECASTS = (
    Forecast("copy", "ceilings", "all", ("copy_GB_per_s",), 4000, 4500, "GB/s"),
    Forecast("product, float32", "ceilings", "all", ("float32_TFLOP_per_s",), 45, 60, "TFLOP/s"),
    Forecast("pairs of 10^6 shuffled atoms", "neighbor_pairs", "1000000 atoms, shuffled", ("ms", "ours"),
             0.4, 0.8, "ms", 0.6),
    Forecast("the same over its floor", "neighbor_pairs", "1000000 atoms, shuffled", ("ours_over_floor",),
             2.5, 5.5, "", 4),
    Forecast("pairs of 10^6 sorted atoms", "neighbor_pairs", "1000000 atoms, sorted", ("ms", "ours"),
             0.35, 0.7, "ms", 0.6),
    Forecast("skin list, 10^6 atoms, nothing moves", "neighbor_pairs", "1000000 atoms, shuffled",
             ("ms", "list with skin, in a graph"), 0.5, 0.9, "ms"),
    Forecast("skin list, 774 atoms", "neighbor_pairs", "774 atoms, shuffled", ("ms", "list with skin, in a graph"),
             0.015, 0.04, "ms"),
    Forecast("all pairs over cells, 2000 atoms", "neighbor_pairs", "crossover, 2000 atoms", ("all pairs",),
             0.7, 1.5, "", 1, "cells"),
    Forecast("all pairs over cells, 6000 atoms", "neighbor_pairs", "crossover, 6000 atoms", ("all pairs",),
             2, 5, "", None, "cells"),
    Forecast("messages of GAMD, width 128", "tile_sums", "width 128", ("messages_TFLOP_per_s",), 18, 28, "TFLOP/s"),
    Forecast("edges of GAMD, width 128", "tile_sums", "width 128", ("edges_TFLOP_per_s",), 15, 28, "TFLOP/s"),
    Forecast("list's share of a step, 12,282 atoms", "force_step", "12282 atoms, node", ("list_share",),
             0.01, 0.05, "", 0.05),
    Forecast("plain GAMD over ours, 12,282 atoms", "force_step", "12282 atoms, node", ("plain_over_ours",),
             3, 8, "", 5, more_is_better=True),
    Forecast("step of VectorGAMD, 774 atoms", "row_sums", "774 atoms, whole step", ("ms", "step, in a graph"),
             0.3, 0.9, "ms"),
    Forecast("with pair term, as one operator", "row_sums", "774 atoms, whole step", ("ms", "operator, in a graph"),
             0.15, 0.4, "ms"),
    Forecast("TIP3P's with charges, one operator", "row_sums", "774 atoms, whole step",
             ("ms", "with charges, in a graph"), 0.12, 0.35, "ms"),
)  # fmt: skip


def measured(document: dict[str, Any], forecast: Forecast) -> float | None:
    """The figure that a forecast is of; None where it was not measured."""
    row = document.get("tables", {}).get(forecast.table, {}).get("rows", {}).get(forecast.row)
    try:
        value = row
        for key in forecast.path:
            value = value[key]
        return float(value if forecast.over is None else value / row[forecast.over])
    except (TypeError, KeyError):
        return None


def verdict(value: float | None, forecast: Forecast) -> str:
    """How a measurement lies to its forecast, and to what was asked for."""
    if value is None:
        return "not measured"
    place = "below" if value < forecast.low else "above" if value > forecast.high else "as forecast"
    if forecast.target is None:
        return place
    meets = value >= forecast.target if forecast.more_is_better else value <= forecast.target
    return f"{place}; target {forecast.target:g} {'met' if meets else 'NOT met'}"


def table_of(document: dict[str, Any]) -> Table:
    """Forecast beside measurement."""
    table = Table(title="forecast for an H200, and measured")
    for heading in ("", "forecast", "measured", "unit", ""):
        table.add_column(heading, justify="right" if heading in ("forecast", "measured") else "left")
    for forecast in FORECASTS:
        value = measured(document, forecast)
        found = "" if value is None else f"{value:.3g}"
        range_of = f"{forecast.low:g} .. {forecast.high:g}"
        table.add_row(forecast.what, range_of, found, forecast.unit, verdict(value, forecast))
    return table


if __name__ == "__main__":
    Console(width=130).print(table_of(json.loads(Path(sys.argv[1]).read_text())))
