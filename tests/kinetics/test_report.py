"""The page and its warnings: nothing from elsewhere, all text escaped, numbers that are there, borders that are met."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from openmm_gnn.base.figures import Page, figure_file
from openmm_gnn.base.files import plain
from openmm_gnn.kinetics.markov import Interval, MarkovModel, MarkovSettings, estimate_markov_model
from openmm_gnn.kinetics.methods.interface import SeedScore
from openmm_gnn.kinetics.report.results import (
    connection_warnings,
    drift_warnings,
    duration,
    markov_json,
    seed_warnings,
    state_warnings,
    timescale_warnings,
    unconnected_parts,
    weight_warnings,
)

VOID = {"meta", "img"}


class Reader(HTMLParser):
    """Checks that every element is closed, and collects text and links."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.sources += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_a_page_is_one_file_of_closed_elements(tmp_path: Path) -> None:
    with figure_file(tmp_path / "figure.png", 2, 2, "x") as figure:
        figure.subplots().plot([0, 1])
    page = Page("Slow variables of <b>", "a & b")
    page.cards([("1.9", "score")])
    page.section("First", "warnings")
    page.words("5 < 6")
    page.points(["one", "two"])
    page.figure(tmp_path / "figure.png", 'a "line"')
    page.table(("state", "population"), [("1", "<script>"), ("2", "3 %")])
    page.command("openmm-gnn analyze")
    reader = Reader()
    reader.feed(page.write(tmp_path / "page.html").read_text())
    assert reader.open == []
    assert {"5 < 6", "<script>", "3 %", "a & b", "openmm-gnn analyze"} <= set(reader.text)
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in reader.sources)
    assert sum(source.startswith("data:") for source in reader.sources) == 1
    assert not re.search(r"https?://", page.html())


def test_json_has_no_arrays_and_no_nan() -> None:
    seed = SeedScore(1, 1.5, float("nan"), 3.0, 4)
    assert plain({"a": np.array([1.0, np.inf]), "b": (seed,), "c": Path("x"), "d": np.float32(0.5)}) == {
        "a": [1.0, None],
        "b": [{"seed": 1, "training": 1.5, "validation": None, "best_epoch": 3.0, "num_epochs": 4}],
        "c": "x",
        "d": 0.5,
    }


@pytest.fixture(scope="module")
def model() -> MarkovModel:
    """A model of two states, at a lag of 20 ps."""
    states = (np.random.default_rng(0).random(4000) < 0.05).cumsum() % 2
    return estimate_markov_model([states], 2, 10.0, MarkovSettings(samples=10, num_timescales=1))


def with_timescales(model: MarkovModel, values: list[list[float]]) -> MarkovModel:
    array = np.array(values)
    lags = np.array([10.0, 20.0, 40.0, 80.0])
    return replace(model, implied_lags_ps=lags, implied_timescales_ps=Interval(array, array, array))


def test_a_markov_model_is_json_without_nan(model: MarkovModel) -> None:
    unknown = with_timescales(model, [[np.nan], [100.0], [100.0], [np.inf]])
    found = json.loads(json.dumps(markov_json(unknown), allow_nan=False))
    assert found["states"]["populations"] == pytest.approx(model.populations.value.tolist())
    assert found["states"]["passage_low_ps"][0][1] == pytest.approx(model.passage_times_ps.low[0, 1])
    assert found["timescales"]["values_ps"] == [[None], [100.0], [100.0], [None]]
    assert found["timescales"]["lag_ps"] == 20.0
    assert found["prediction"]["times_ps"] == model.chapman_kolmogorov_lags_ps.tolist()


def test_frames_that_are_not_connected_are_named_with_their_share_and_runs(model: MarkovModel) -> None:
    parts = [np.zeros(600, int), np.ones(396, int), np.full(4, 2)]
    found = unconnected_parts(parts, ["a", "b", "c"])
    assert [(part.name, part.frames, part.share, part.runs) for part in found] == [
        ("U1", 396, 0.396, ["b"]),
        ("U, small parts", 4, 0.004, ["c"]),
    ]
    [words] = connection_warnings(replace(model, lost_samples=0), found)
    assert words.startswith("40 % of the frames are not connected") and "U1: 396 frames, 39.6 %, in b;" in words
    assert connection_warnings(replace(model, lost_samples=0), []) == []
    [lost] = connection_warnings(replace(model, lost_samples=7), [])
    assert lost.startswith("7 samples of the posterior are not connected")


def test_states_that_were_seldom_entered_are_named() -> None:
    assert state_warnings([10, 12], [500, 600]) == []
    [words] = state_warnings([40, 3], [500, 60])
    assert "State 2 was entered 3 times" in words and "(60 frames)" in words


def test_converged_timescales_are_not_warned_of(model: MarkovModel) -> None:
    assert timescale_warnings(with_timescales(model, [[1000.0], [1010.0], [1000.0], [1020.0]]), 1e6, 1) == []


def test_growing_short_and_hardly_seen_timescales_are_warned_of(model: MarkovModel) -> None:
    [growing] = timescale_warnings(with_timescales(model, [[50.0], [100.0], [200.0], [400.0]]), 1e6, 1)
    assert "grows from 100 ps at a lag of 20 ps to 400 ps at 80 ps" in growing
    [short] = timescale_warnings(
        with_timescales(model, [[1000.0, 9.0], [1000.0, 9.0], [1000.0, 18.0], [1000.0, 40.0]]), 1e6, 2
    )
    assert "Timescale 2 (9 ps) is shorter than the lag of 20 ps" in short
    [seldom] = timescale_warnings(with_timescales(model, [[1000.0]] * 4), 5000, 1)
    assert "last 5 ns together, 5.0 times the slowest timescale" in seldom


def test_seeds_that_disagree_and_training_by_heart_are_warned_of() -> None:
    def seed(training: float, validation: float) -> SeedScore:
        return SeedScore(0, training, validation, 1.0, 2)

    assert seed_warnings([seed(1.92, 1.90), seed(1.91, 1.90)]) == []
    [apart] = seed_warnings([seed(1.92, 1.90), seed(1.6, 1.5)])
    assert "score from 1.500 to 1.900" in apart
    [by_heart] = seed_warnings([seed(2.0, 1.5)])
    assert "training score 2.000 is well above the validated 1.500" in by_heart


def test_weights_of_few_frames_are_warned_of() -> None:
    assert weight_warnings([np.zeros(100), np.zeros(50)]) == []
    [words] = weight_warnings([np.concatenate([[50.0], np.zeros(99)])])
    assert "leave 1 effective frames of 100" in words


@pytest.mark.parametrize(("time", "words"), [(12.34, "12.3 ps"), (1234.0, "1.23 ns"), (2.5e6, "2.5 µs")])
def test_times_have_a_unit_that_suits_them(time: float, words: str) -> None:
    assert duration(time) == words


def test_a_bias_that_has_not_settled_is_named_with_how_much_it_changed() -> None:
    drifts = {"calm": np.array([0.9, -0.9]), "restless": np.array([2.5, -2.5, 2.5, -2.5])}
    [words] = drift_warnings(drifts)
    assert words.startswith("The bias of restless still changed by 2.5 kJ/mol")
    assert drift_warnings({}) == []
