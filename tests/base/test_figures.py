"""Figures: no legend stands on a curve, and letters have one size on a page."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from openmm_gnn.base.figures import Page, figure_file

X = np.linspace(0, 1, 50)


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("where", ["upper left", "upper right", "lower right", "best"])
def test_a_legend_does_not_stand_on_a_curve_or_a_band(where: str, scale: str, tmp_path: Path) -> None:
    with figure_file(tmp_path / "one.png", 4.0, 3.0, "Waves") as figure:
        axes = figure.subplots()
        axes.set_yscale(scale)
        for phase in range(6):
            wave = 2 + np.sin(8 * X + phase)
            axes.plot(X, wave, label=f"phase {phase}")
            axes.fill_between(X, 0.9 * wave, 1.1 * wave, alpha=0.2)
        axes.legend(loc=where)
    box = axes.get_legend().get_window_extent()
    highest = axes.transData.transform((0, 3.3))[1]
    assert box.y0 > highest and box.y1 < axes.bbox.y1


def test_a_legend_beside_the_curves_stays(tmp_path: Path) -> None:
    with figure_file(tmp_path / "one.png", 4.0, 3.0, "A line") as figure:
        axes = figure.subplots()
        axes.plot(X, X, label="rising")
        axes.axvline(0.1)
        axes.set_ylim(0, 1)
        axes.legend(loc="upper left")
    assert axes.get_ylim() == (0, 1)


def test_letters_have_one_size_on_a_page(tmp_path: Path) -> None:
    page = Page("title", "lead")
    page.section("figures")
    for name, width in (("narrow", 4.0), ("wide", 11.0)):
        with figure_file(tmp_path / f"{name}.png", width, 3.0, name) as figure:
            figure.subplots().plot(X, X)
        page.figure(tmp_path / f"{name}.png", name)
    shown = [float(text) for text in re.findall(r'style="width: (\d+)px', page.html())]
    assert shown == pytest.approx([88 * 4.0, 88 * 11.0], abs=1)
    assert matplotlib.rcParams["font.size"] == 10.0  # the style ends with the figure
