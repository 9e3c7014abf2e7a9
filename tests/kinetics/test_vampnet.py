"""Training VAMPnets on processes whose slow variables are known: scores, restored weights, resuming, refusals."""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from deeptime.decomposition import VAMP
from slow_tokens import hidden_series, slow_trajectory, tokens_of

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.specs.tokens import CVNetworkSpec, Mixer, Pooling
from openmm_gnn.kinetics.lagged_pairs import LaggedPairs
from openmm_gnn.kinetics.methods.interface import slow_variables
from openmm_gnn.kinetics.methods.vampnet import VampnetResult, train_vampnet
from openmm_gnn.kinetics.methods.vampnet_training import Vampnet, VampnetSettings, collected
from openmm_gnn.kinetics.token_trajectories import TokenTrajectory, trajectory_of_arrays
from openmm_gnn.kinetics.vamp import VampScore
from openmm_gnn.learning.trainer import BestWeights
from openmm_gnn.networks.weights import load_cv_network

LAG_PS = 10.0
"""Frames are 2 ps apart."""
SPEC = CVNetworkSpec(2, 4, 2, Mixer.MLP, width=16, num_layers=1, dropout=0.0, pooling=Pooling.FLATTEN)
SETTINGS = VampnetSettings(num_steps=120, batch_size=1000, validate_every=20, learning_rate=5e-3)
RATES = np.array([0.98, 0.97])
"""Both coordinates are slower than the square of the first, of rate 0.98^2 = 0.96: no seed ends at other functions."""


def run_of(frames: int, seed: int) -> TokenTrajectory:
    return slow_trajectory(frames, seed, rates=RATES)


TRAINING, VALIDATION = [run_of(4000, 1), run_of(3000, 2)], [run_of(5000, 3)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[VampnetResult, Path]:
    folder = tmp_path_factory.mktemp("vampnet")
    result = train_vampnet(
        SPEC, TRAINING, VALIDATION, LAG_PS, SETTINGS, (0, 1), folder, progress=False, provenance={"command": "test"}
    )
    return result, folder


def test_scores_come_near_those_of_the_exact_functions_on_the_same_data(
    trained: tuple[VampnetResult, Path],
) -> None:
    """The exact functions are the hidden coordinates: Hermite polynomials of them are the eigenfunctions."""
    first, second, third = (hidden_series(frames, seed, RATES) for frames, seed in ((4000, 1), (3000, 2), (5000, 3)))
    fitted = VAMP(lagtime=5, epsilon=1e-9).fit_from_timeseries([first, second]).fetch_model()
    tested = VAMP(lagtime=5, epsilon=1e-9).fit_from_timeseries([third]).fetch_model()
    exact_training, exact_validation = fitted.score(2), fitted.score(2, test_model=tested)
    # 20 seeds ended 0.01 to 0.06 below both; the margin is nearly twice that.
    for run in trained[0].runs:
        assert run.training_score == pytest.approx(exact_training, abs=0.1)
        assert run.validation_score == pytest.approx(exact_validation, abs=0.1)
        assert run.refitted_score >= run.validation_score - 1e-6
    assert trained[0].best.validation_score == max(run.validation_score for run in trained[0].runs)


def test_slow_variables_are_the_exact_functions_on_new_data(trained: tuple[VampnetResult, Path]) -> None:
    found = slow_variables(trained[0].best.network, run_of(3000, 9))
    correlations = np.corrcoef(found.T, hidden_series(3000, 9, RATES).T)[:2, 2:]
    assert abs(correlations[0, 0]) > 0.92 and abs(correlations[1, 1]) > 0.92  # 20 seeds: 0.96 to 0.99


def test_outputs_are_singular_functions_of_the_training_data(trained: tuple[VampnetResult, Path]) -> None:
    run = trained[0].best
    outputs = collected(run.network, LaggedPairs(TRAINING, LAG_PS), 10**6).covariances(False)
    torch.testing.assert_close(outputs.mean_0, torch.zeros(2, dtype=torch.float64), atol=1e-4, rtol=0)
    torch.testing.assert_close(outputs.c00, torch.eye(2, dtype=torch.float64), atol=1e-4, rtol=0)
    series = [slow_variables(run.network, one) for one in TRAINING]
    lag = 5
    theirs = VAMP(lagtime=lag, epsilon=1e-9).fit_from_timeseries([one.astype(np.float64) for one in series])
    values = theirs.fetch_model().singular_values
    np.testing.assert_allclose(run.singular_values, values, atol=1e-3)
    assert list(run.singular_values) == sorted(run.singular_values, reverse=True)
    expected = -LAG_PS / np.log(values)
    np.testing.assert_allclose(run.timescales_ps, expected, rtol=2e-2)


def test_the_restored_weights_have_the_best_score_that_was_logged(trained: tuple[VampnetResult, Path]) -> None:
    for run in trained[0].runs:
        scores = {row["step"]: row["validation_score"] for row in run.rows}
        assert run.best_step == max(scores, key=scores.__getitem__)
        assert run.validation_score == pytest.approx(max(scores.values()), abs=1e-6)
        assert len(scores) == 6 or max(scores) - run.best_step == 20 * SETTINGS.patience


def test_training_that_gets_worse_ends_early_and_keeps_its_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = Vampnet.training_step

    def spoiled(self: Vampnet, batch: object, number: int) -> torch.Tensor:
        loss = learn(self, batch, number)
        return loss if self.global_step < 40 else -loss  # from now on downhill

    monkeypatch.setattr(Vampnet, "training_step", spoiled)
    settings = replace(SETTINGS, num_steps=400, patience=2)
    run = train_vampnet(SPEC, TRAINING, VALIDATION, LAG_PS, settings, (0,), tmp_path, progress=False).best
    assert run.best_step <= 60 and run.rows[-1]["step"] == run.best_step + 40
    assert run.rows[-1]["validation_score"] < run.validation_score - 0.1
    assert run.validation_score == pytest.approx(max(row["validation_score"] for row in run.rows), abs=1e-6)


def test_what_is_complete_is_read_and_not_trained_again(
    trained: tuple[VampnetResult, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    result, folder = trained
    monkeypatch.delattr(lightning.Trainer, "fit")
    again = train_vampnet(SPEC, TRAINING, VALIDATION, LAG_PS, SETTINGS, (0, 1), folder, progress=False)
    for before, now in zip(result.runs, again.runs, strict=True):
        assert {**vars(before), "network": None} == {**vars(now), "network": None}
        values = [slow_variables(run.network, VALIDATION[0]) for run in (before, now)]
        np.testing.assert_array_equal(*values)
    saved = load_cv_network(folder / "seed-0" / "slow_variables.safetensors")
    assert saved.spec.metadata["command"] == "test" and saved.spec.metadata["lag_ps"] == LAG_PS
    with pytest.raises(DataError, match="seed-0 holds a training of other data"):
        train_vampnet(SPEC, TRAINING, VALIDATION, 2 * LAG_PS, SETTINGS, (0,), folder, progress=False)


def _train_one(directory: Path) -> VampnetResult:
    torch.set_num_threads(1)
    return train_vampnet(SPEC, TRAINING, VALIDATION, LAG_PS, SETTINGS, (0,), directory, progress=False)


def test_a_training_that_was_killed_goes_on_as_if_it_had_not_been(
    trained: tuple[VampnetResult, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = BestWeights.on_validation_end

    def killed(self: BestWeights, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        write(self, trainer, module)
        if trainer.global_step == 60:
            os._exit(9)

    with monkeypatch.context() as patch:
        patch.setattr(BestWeights, "on_validation_end", killed)
        process = multiprocessing.get_context("fork").Process(target=_train_one, args=(tmp_path,))
        process.start()
        process.join()
    assert process.exitcode == 9
    assert not (tmp_path / "seed-0" / "result.json").exists()
    run = _train_one(tmp_path).best
    whole = trained[0].runs[0]
    assert [row["step"] for row in run.rows] == [row["step"] for row in whole.rows]
    for row, expected in zip(run.rows, whole.rows, strict=True):
        assert row == pytest.approx(expected, abs=1e-5)
    assert json.loads((tmp_path / "seed-0" / "result.json").read_text())["run"]["best_step"] == whole.best_step


@pytest.mark.parametrize("score", [VampScore.VAMP1, VampScore.VAMPE])
def test_other_scores_can_be_the_loss(score: VampScore) -> None:
    settings = replace(SETTINGS, score=score)
    run = train_vampnet(SPEC, TRAINING, VALIDATION, LAG_PS, settings, progress=False).best
    values = RATES**5
    exact = 1 + float((values if score is VampScore.VAMP1 else values**2).sum())
    assert run.training_score == pytest.approx(exact, abs=0.2)


def test_memberships_leave_one_variable_less_than_states() -> None:
    spec = replace(SPEC, num_outputs=3, softmax=True)
    run = train_vampnet(spec, TRAINING, VALIDATION, LAG_PS, replace(SETTINGS, num_steps=40), progress=False).best
    assert run.network.num_outputs == len(run.singular_values) == 2


def test_weights_give_the_dynamics_of_the_weighted_frames() -> None:
    """Half of the data are a slow process, half noise of the same distribution that the weights leave out."""
    slow, noise = hidden_series(4000, 1, RATES), np.random.default_rng(0).normal(size=(4000, 2))
    trajectories = [
        replace(trajectory_of_arrays(name, tokens_of(series), 2.0), log_weights=np.full(4000, log_weight))
        for name, series, log_weight in (("slow", slow, 0.0), ("noise", noise, -30.0))
    ]
    settings = replace(SETTINGS, num_steps=60)
    weighted = train_vampnet(SPEC, trajectories, trajectories, LAG_PS, settings, progress=False).best
    plain = [replace(one, log_weights=None) for one in trajectories]
    unweighted = train_vampnet(SPEC, plain, plain, LAG_PS, settings, progress=False).best
    assert weighted.singular_values[0] == pytest.approx(RATES[0] ** 5, abs=0.06)
    assert unweighted.singular_values[0] < 0.6


def test_input_that_cannot_be_trained_on_is_refused() -> None:
    with pytest.raises(SpecError, match="3 tokens of width 4, the trajectories have 2 of width 4"):
        train_vampnet(replace(SPEC, num_tokens=3), TRAINING, VALIDATION, LAG_PS, SETTINGS, progress=False)
    with pytest.raises(DataError, match="trajectory 3 has 5000 frames without a gap, the lag is 5000"):
        train_vampnet(SPEC, [run_of(6000, 4)], VALIDATION, 10000.0, SETTINGS, progress=False)
    with pytest.raises(SpecError, match="seeds are"):
        train_vampnet(SPEC, TRAINING, VALIDATION, LAG_PS, SETTINGS, (1, 1), progress=False)
    with pytest.raises(SpecError, match="120 steps with a validation every 50"):
        replace(SETTINGS, validate_every=50)
