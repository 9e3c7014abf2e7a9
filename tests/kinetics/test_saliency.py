"""Saliency of functions whose gradient is known by hand; saliency and attention over samples of real runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hopping_runs import INTERVAL_PS, HoppingRuns
from torch import Tensor

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.specs.tokens import CVNetworkSpec, Merging, Mixer
from openmm_gnn.kinetics.data import AnalysisData, find_runs, read_data
from openmm_gnn.kinetics.methods.interface import Learned
from openmm_gnn.kinetics.report.figures import save_attention, save_saliency
from openmm_gnn.kinetics.report.saliency import feature_scales, residue_attention, residue_saliency, saliency
from openmm_gnn.networks.tokens.cv_network import CVNetwork

LABELS = ["A:ALA1", "A:GLY2"]
FRAMES = 300


def features(frames: int = 400) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(frames, 2, 4, 3)), generator.normal(size=(frames, 2, 3))


def test_a_linear_function_has_the_norm_of_its_coefficients() -> None:
    tokens, places = features()
    tokens[:, 0] *= 2.0  # twice the deviation: twice the saliency

    def network(given: Tensor, _: Tensor) -> Tensor:
        return torch.stack([3 * given[:, 0, 0, 0] + 4 * given[:, 0, 0, 1], given[:, 1, 0, 2]], dim=1)

    found = saliency(network, tokens, places, LABELS)
    spread = tokens[:, 0, 0].std(axis=0)
    assert found.overall[0, 0] == pytest.approx(np.hypot(3 * spread[0], 4 * spread[1]), rel=1e-5)
    assert found.overall[1, 1] == pytest.approx(tokens[:, 1, 0, 2].std(), rel=1e-5)
    assert found.overall[0, 1] == found.overall[1, 0] == 0


def test_states_are_averaged_apart() -> None:
    tokens, places = features()
    states = np.arange(len(tokens)) % 2

    def network(given: Tensor, _: Tensor) -> Tensor:
        return given[:, :1, 0, 0].square() / 2

    found = saliency(network, tokens, places, LABELS, states, num_states=3)
    gradients = np.abs(tokens[:, 0, 0, 0]) * tokens[:, 0, 0, 0].std()
    assert found.by_state[0, 0, 0] == pytest.approx(gradients[::2].mean(), rel=1e-5)
    assert found.by_state[1, 0, 0] == pytest.approx(gradients[1::2].mean(), rel=1e-5)
    assert np.isnan(found.by_state[2]).all()


def test_saliency_of_a_network_does_not_turn_with_the_molecule() -> None:
    tokens, places = features(50)
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    turned = tokens.copy()
    turned[:, :, 1:] = np.einsum("xy,ftyh->ftxh", turn, tokens[:, :, 1:])
    network = CVNetwork(CVNetworkSpec(2, 3, num_outputs=2, mixer=Mixer.MLP, width=8)).eval()
    np.testing.assert_allclose(feature_scales(tokens), feature_scales(turned), rtol=0.2)
    found = saliency(network, tokens, places, LABELS).overall
    assert (found > 0).all()
    # All frames are turned by one matrix, so the mean of the vectors is turned too and no scale changes.
    np.testing.assert_allclose(saliency(network, turned, places @ turn.T, LABELS).overall, found, rtol=1e-4)


def test_no_frames_and_infinite_gradients_are_refused() -> None:
    tokens, places = features(3)
    with pytest.raises(DataError, match="no frames"):
        saliency(lambda given, _: given[:, :1, 0, 0], tokens[:0], places[:0], LABELS)
    tokens[1, 0, 0, 0] = 0
    with pytest.raises(DataError, match="not finite in frame 1"):
        saliency(lambda given, _: given[:, :1, 0, 0].log(), np.abs(tokens), places, LABELS)


@pytest.mark.parametrize("count", [2, 30])
def test_figures_are_drawn_for_few_tokens_and_many(count: int, tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    generator = np.random.default_rng(0)
    tokens, places = generator.normal(size=(20, count, 4, 3)), generator.normal(size=(20, count, 3))
    network = CVNetwork(CVNetworkSpec(count, 3, num_outputs=2, mixer=Mixer.MLP, width=8)).eval()
    labels = [f"A:ALA{number}" for number in range(count)]
    found = saliency(network, tokens, places, labels, np.arange(20) % 2, 2)
    assert save_saliency(found, folder / "saliency.png").stat().st_size > 10_000
    weights = generator.dirichlet(np.ones(count), (2, count))
    assert save_attention(weights, labels, folder / "attention.png").stat().st_size > 10_000


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> AnalysisData:
    folder, hopper = tmp_path_factory.mktemp("hopping"), HoppingRuns()
    for seed in range(2):
        hopper.write(folder / f"run-{seed}", FRAMES, seed)
    return read_data(find_runs([folder]), [], INTERVAL_PS)


def learned(mixer: Mixer, merging: Merging = Merging.NONE, window: int = 1) -> Learned:
    spec = CVNetworkSpec(3, 64, num_outputs=2, mixer=mixer, width=16, num_layers=2, merging=merging, window=window)
    return Learned(CVNetwork(spec).eval())


def test_a_rare_state_has_a_saliency_of_its_own_frames(data: AnalysisData) -> None:
    states = [np.zeros(FRAMES, int), np.zeros(FRAMES, int)]
    states[1][37] = 1
    found = residue_saliency(learned(Mixer.SUBMIXER), data, states, num_states=3)
    assert found.by_state.shape == (3, 2, 3) and found.labels == data.runs[0].labels
    assert np.isfinite(found.by_state[:2]).all() and np.isnan(found.by_state[2]).all()
    assert (found.overall > 0).all() and found.num_frames == 2 * FRAMES


@pytest.mark.parametrize("mixer", [Mixer.SUBFORMER, Mixer.EQUIVARIANT_ATTENTION])
def test_attention_of_a_residue_adds_up_to_one(data: AnalysisData, mixer: Mixer) -> None:
    weights = residue_attention(learned(mixer), data)
    assert weights is not None and weights.shape == (2, 3, 3)
    np.testing.assert_allclose(weights.sum(axis=2), 1, rtol=1e-5)


def test_networks_without_attention_per_residue_show_none(data: AnalysisData) -> None:
    assert residue_attention(learned(Mixer.SUBMIXER), data) is None
    merged = learned(Mixer.EQUIVARIANT_ATTENTION, Merging.EQUIVARIANT, window=3)
    assert residue_attention(merged, data) is None
