"""Saliency and attention over samples of real runs: every state has frames, rows of attention add up to 1."""

from __future__ import annotations

import numpy as np
import pytest
from hopping_runs import INTERVAL_PS, HoppingRuns

from openmm_gnn.base.specs.tokens import CVNetworkSpec, Merging, Mixer
from openmm_gnn.kinetics.report.data import SlowData, read_data
from openmm_gnn.kinetics.report.learn import Learned
from openmm_gnn.kinetics.report.residues import residue_attention, residue_saliency
from openmm_gnn.kinetics.report.runs import find_runs
from openmm_gnn.networks.tokens.cv_network import CVNetwork

FRAMES = 300


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SlowData:
    folder, hopper = tmp_path_factory.mktemp("hopping"), HoppingRuns()
    for seed in range(2):
        hopper.write(folder / f"run-{seed}", FRAMES, seed)
    return read_data(find_runs([folder]), [], INTERVAL_PS)


def learned(mixer: Mixer, merging: Merging = Merging.NONE, window: int = 1) -> Learned:
    spec = CVNetworkSpec(3, 64, num_outputs=2, mixer=mixer, width=16, num_layers=2, merging=merging, window=window)
    return Learned(CVNetwork(spec).eval(), [], None, [])


def test_a_rare_state_has_a_saliency_of_its_own_frames(data: SlowData) -> None:
    states = [np.zeros(FRAMES, int), np.zeros(FRAMES, int)]
    states[1][37] = 1
    found = residue_saliency(learned(Mixer.SUBMIXER), data, states, num_states=3)
    assert found.by_state.shape == (3, 2, 3) and found.labels == data.runs[0].labels
    assert np.isfinite(found.by_state[:2]).all() and np.isnan(found.by_state[2]).all()
    assert (found.overall > 0).all() and found.num_frames == 2 * FRAMES


@pytest.mark.parametrize("mixer", [Mixer.SUBFORMER, Mixer.EQUIVARIANT_ATTENTION])
def test_attention_of_a_residue_adds_up_to_one(data: SlowData, mixer: Mixer) -> None:
    weights = residue_attention(learned(mixer), data)
    assert weights is not None and weights.shape == (2, 3, 3)
    np.testing.assert_allclose(weights.sum(axis=2), 1, rtol=1e-5)


def test_networks_without_attention_per_residue_show_none(data: SlowData) -> None:
    assert residue_attention(learned(Mixer.SUBMIXER), data) is None
    merged = learned(Mixer.EQUIVARIANT_ATTENTION, Merging.EQUIVARIANT, window=3)
    assert residue_attention(merged, data) is None
