"""Scores at several lags beside the eigenvalues of a known Markov chain, and the runs they are taken from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hopping_runs import HOP, INTERVAL_PS, STRIDE, TEMPERATURE, HoppingRuns, spoiled

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.growing_array import GrowingArray
from openmm_gnn.base.specs.tokens import Merging
from openmm_gnn.base.units import BOLTZMANN_KJ_MOL_K
from openmm_gnn.kinetics.data import AnalysisData, Part, find_runs, lag_frames, read_data
from openmm_gnn.kinetics.free_energy import free_energy_line
from openmm_gnn.kinetics.settings import AnalysisSettings
from openmm_gnn.kinetics.vamp import held_out_slowness, score_lags
from openmm_gnn.runs.bias.records import FOLDER, META, RECORDS, VERSION, record_fields


@pytest.fixture(scope="module")
def hopping(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """Four runs of 3000 frames, and the shape of each frame."""
    folder, hopper = tmp_path_factory.mktemp("hopping"), HoppingRuns()
    return folder, [hopper.write(folder / f"run-{seed}", 1500, seed) for seed in range(4)]


def data_of(folder: Path) -> AnalysisData:
    return read_data(find_runs([folder]), [], lag_ps=2 * INTERVAL_PS)


def test_the_shape_itself_has_the_score_of_its_eigenvalue(hopping: tuple[Path, list[np.ndarray]]) -> None:
    folder, shapes = hopping
    found = score_lags("shape", [own[:, None].astype(float) for own in shapes], data_of(folder), [1, 2, 5, 10])
    truth = 1 + (1 - 2 * HOP) ** (2 * np.array([1, 2, 5, 10]))
    np.testing.assert_allclose(found.lags_ps, INTERVAL_PS * np.array([1, 2, 5, 10]))
    assert (np.abs(found.scores - truth) < 3 * found.spread + 0.01).all()
    assert (found.spread > 0).all() and (found.spread < 0.2).all()


def test_noise_scores_one_and_a_lag_that_is_too_long_nothing(hopping: tuple[Path, list[np.ndarray]]) -> None:
    folder, shapes = hopping
    noise = [np.random.default_rng(0).normal(size=(len(own), 2)) for own in shapes]
    found = score_lags("noise", noise, data_of(folder), [1, 5000])
    assert found.scores[0] == pytest.approx(1, abs=0.02)
    assert np.isnan(found.scores[1]) and np.isnan(found.spread[1])


def test_runs_are_held_out_as_wholes_or_in_time(hopping: tuple[Path, list[np.ndarray]]) -> None:
    folder, _ = hopping
    four = data_of(folder)
    assert four.roles == ["training", "training", "training", "validation"]
    assert four.training == (Part(0, 0, 1500), Part(1, 0, 1500), Part(2, 0, 1500))
    one = read_data(find_runs([folder / "run-1"]), [], lag_ps=2 * INTERVAL_PS)
    assert (one.training, one.validation) == ((Part(0, 0, 1000),), (Part(0, 1002, 1500),))
    given = read_data(find_runs([folder / "run-1"]), find_runs([folder / "run-2"]), lag_ps=2 * INTERVAL_PS)
    assert given.roles == ["training", "validation"]


def test_bad_runs_are_named_before_long_work(hopping: tuple[Path, list[np.ndarray]], tmp_path: Path) -> None:
    folder, _ = hopping
    hopper = HoppingRuns()
    hopper.write(tmp_path / "short", 20, seed=9)
    with pytest.raises(DataError, match=r"short.* has 20 frames without a gap.*shorter lag, or leave the run out"):
        read_data([*find_runs([folder]), *find_runs([tmp_path / "short"])], [], lag_ps=5 * INTERVAL_PS)
    hopper.write(tmp_path / "nan", 200, seed=9)
    spoiled(tmp_path / "nan", 17)
    with pytest.raises(DataError, match=r"nan.*frame 17.*NaN"):
        read_data(find_runs([tmp_path / "nan"]), [], lag_ps=INTERVAL_PS)


def test_biased_frames_have_the_weights_of_their_records(
    hopping: tuple[Path, list[np.ndarray]], tmp_path: Path
) -> None:
    """An OPES bias of kT ln 3 wherever the shape is 1: those frames weigh three times as much."""
    shapes = HoppingRuns().write(tmp_path / "biased", 500, seed=7)
    meta = {"version": VERSION, "settings": {"method": "opes"}, "temperature": TEMPERATURE}
    (tmp_path / "biased" / FOLDER).mkdir()
    (tmp_path / "biased" / FOLDER / META).write_text(json.dumps(meta))
    energies = BOLTZMANN_KJ_MOL_K * TEMPERATURE * np.log(3) * shapes
    writer = GrowingArray.open(tmp_path / "biased" / FOLDER / RECORDS, record_fields(1), anew=True)
    records = writer.empty_records(500)
    records["step"], records["bias"] = STRIDE * np.arange(1, 501), energies
    writer.append(records)
    writer.close()
    data = read_data(find_runs([tmp_path / "biased"]), [], lag_ps=INTERVAL_PS)
    assert data.log_weights is not None
    np.testing.assert_allclose(data.log_weights[0], np.log(3) * shapes)
    line = free_energy_line([shapes.astype(float)], TEMPERATURE, list(data.log_weights), bins=2)
    counts = np.bincount(shapes) * (1, 3)
    truth = -BOLTZMANN_KJ_MOL_K * TEMPERATURE * np.log(counts / counts.max())
    np.testing.assert_allclose(line.values, truth, atol=1e-9)
    with pytest.raises(DataError, match="run-1 was not biased, biased was"):
        read_data(find_runs([tmp_path / "biased", hopping[0] / "run-1"]), [], lag_ps=INTERVAL_PS)


def test_lags_are_whole_frames_around_that_of_the_training() -> None:
    assert lag_frames(AnalysisSettings(lag=10.0), 1.0, 1000) == [1, 2, 5, 10, 20, 40, 80]
    assert lag_frames(AnalysisSettings(lag=10.0, lags=(5, 7)), 2.0, 1000) == [2, 4, 5]
    assert lag_frames(AnalysisSettings(lag=10.0), 1.0, 110) == [1, 2, 5, 10, 20]
    with pytest.raises(DataError, match="a lag of 50 ps in a run of 200 ps"):
        lag_frames(AnalysisSettings(lag=10.0, lags=(50,)), 1.0, 200)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lag": 0.0}, "AnalysisSettings.lag is 0.0"),
        ({"lag": 1.0, "method": "pca"}, "AnalysisSettings.method is 'pca'"),
        ({"lag": 1.0, "states": 1}, "states is 1"),
        ({"lag": 1.0, "networks": 0}, "AnalysisSettings.networks is 0"),
        ({"lag": 1.0, "temperature": -3.0}, "AnalysisSettings.temperature is -3.0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(given: dict, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        AnalysisSettings(**given)


def test_a_merged_window_is_equivariant_unless_merging_is_given() -> None:
    assert AnalysisSettings(lag=1.0).merging is Merging.NONE
    assert AnalysisSettings(lag=1.0, merged_residues=3).merging is Merging.EQUIVARIANT
    with pytest.raises(SpecError, match="merged_residues is 3: give merging scalar or equivariant"):
        AnalysisSettings(lag=1.0, merged_residues=3, merging=Merging.NONE)


def test_settings_are_stored_with_units_and_plain_values() -> None:
    settings = AnalysisSettings(lag=3.0, method="spib", lags=(1, 2), mixer="subformer")  # type: ignore[arg-type]
    stored = json.loads(json.dumps(settings.to_json()))
    assert (stored["lag_ps"], stored["lags_ps"], stored["num_outputs"]) == (3.0, [1.0, 2.0], 2)
    assert (stored["method"], stored["mixer"], stored["temperature"]) == ("spib", "subformer", None)


def test_the_correlation_of_held_out_frames_tells_slow_from_fast(hopping: tuple[Path, list[np.ndarray]]) -> None:
    """The shape hops with a known chance; white noise forgets within one frame."""
    folder, shapes = hopping
    data = data_of(folder)
    noise = np.random.default_rng(3)
    variables = [np.stack([own, noise.normal(size=len(own))], axis=1) for own in shapes]
    found = held_out_slowness(variables, data, 2)
    assert found.lag_ps == 2 * INTERVAL_PS
    assert found.pairs == sum(part.stop - part.start - 2 for part in data.scored)
    # Two states with a chance of HOP to leave either: correlation (1 - 2 HOP)^lag, its error some 1 / sqrt(visits).
    assert found.correlations[0] == pytest.approx((1 - 2 * HOP) ** 2, abs=0.15)
    assert abs(found.correlations[1]) < 5 / np.sqrt(found.pairs)
    assert found.slow == (0,)
    assert "output 1, counted from 0, is not slow" in found.words_of(1)
