"""Draws docs/figures/acceleration.png from the tables of docs/measured.md: python docs/figures/acceleration.py"""

from __future__ import annotations

import re
from pathlib import Path

from openmm_gnn.base.figures import COLORS, QUIET_COLOR, figure_file

FOLDER = Path(__file__).resolve().parent
MEASURED = (FOLDER.parent / "measured.md").read_text()


def ns_per_day(pattern: str) -> list[float]:
    """Numbers of one line of a table."""
    (found,) = re.findall(pattern, MEASURED)
    return [float(number) for number in (found if isinstance(found, tuple) else (found,))]


def row(beginning: str) -> list[float | None]:
    """The numbers of a row of the table of heating; None where there is none."""
    (line,) = [line for line in MEASURED.splitlines() if line.startswith(f"| {beginning} |")]
    cells = [cell.strip() for cell in line.strip("|").split("|")[1:]]
    return [float(cell) if cell else None for cell in cells]


accelerated, teacher = ns_per_day(r"([\d.]+) against ([\d.]+) ns/day")
(alone,) = ns_per_day(r"([\d.]+) ns/day \| same")
with figure_file(FOLDER / "acceleration.png", 9.0, 3.2, "AMOEBA water under the network gamd-amoeba-water") as figure:
    speed, heating = figure.subplots(1, 2)
    names = ["AMOEBA alone,\n2 fs", "accelerated,\n10 fs", "network alone,\nuncorrected"]
    bars = speed.bar(names, [teacher, accelerated, alone], color=[QUIET_COLOR, COLORS[1], COLORS[5]], width=0.6)
    speed.bar_label(bars, fmt="%.1f")
    speed.set(ylabel="ns/day", title="Speed, two CPU cores")
    for mass, color in (("1 Da", COLORS[0]), ("4 Da", COLORS[1])):
        points = [(step, heat) for step, heat in zip(row("outer step, fs"), row(f"hydrogens of {mass}"), strict=True)]
        points = [(step, heat) for step, heat in points if step is not None and heat is not None]
        heating.plot(*zip(*points, strict=True), "o-", color=color, label=f"hydrogens of {mass}")
    heating.set(
        xlabel="outer step (fs)",
        ylabel="heating (K/ps)",
        title="Which outer step is stable",
        ylim=(-0.8, 19.5),
    )
    heating.legend(ncols=2)
