"""Learned CVs: saved and loaded they are the same, and what does not belong together is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learned_cvs import chain, small_encoder, untrained_cv

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.features.learned_cv import LearnedCV, OutputRanges, load_learned_cv, outputs_of_store, save_learned_cv
from openmm_gnn.networks.weights import read_bundle, save_network, write_bundle
from openmm_gnn.reporters.embedding_store import EmbeddingStore

NUM_FRAMES = 120


def store_of(path: Path, featurizer: Featurizer, positions: np.ndarray) -> EmbeddingStore:
    store = EmbeddingStore.create(path, featurizer.describe(), featurizer.num_tokens, featurizer.width, "float32")
    for step, (tokens, places) in enumerate(
        zip(featurizer.features(positions), featurizer.coordinates(positions), strict=True)
    ):
        store.append(step, float(step), None, tokens, places)
    store.close()
    return EmbeddingStore.open(path)


def frames() -> np.ndarray:
    noise = 0.03 * np.random.default_rng(5).normal(size=(NUM_FRAMES, *chain().positions.shape))
    return chain().positions + noise.cumsum(axis=1)


def test_a_saved_cv_is_the_same_after_loading(tmp_path: Path) -> None:
    cv = untrained_cv(chain())
    loaded = load_learned_cv(save_learned_cv(replace(cv, metadata={"from": "a test"}), tmp_path / "cv.safetensors"))
    assert loaded.encoder_hash == cv.encoder_hash
    assert (loaded.tokens, loaded.ranges, loaded.selection) == (cv.tokens, cv.ranges, cv.selection)
    assert loaded.metadata == {"from": "a test"}
    tokens, places = torch.randn(4, 3, 4, 16), torch.randn(4, 3, 3)
    torch.testing.assert_close(loaded.network(tokens, places), cv.network(tokens, places), rtol=0, atol=0)


def test_ranges_are_those_of_all_frames_of_all_stores(tmp_path: Path) -> None:
    featurizer, network = Featurizer(small_encoder(), chain().topology), untrained_cv(chain()).network
    stores = [
        store_of(tmp_path / "one", featurizer, frames()[:70]),
        store_of(tmp_path / "two", featurizer, frames()[70:]),
    ]
    cv = LearnedCV.from_store(stores, network, small_encoder())
    tokens = torch.from_numpy(featurizer.features(frames()))
    outputs = network(tokens, torch.from_numpy(featurizer.coordinates(frames()))).double().numpy()
    np.testing.assert_allclose(cv.ranges.minimum, outputs.min(0), atol=1e-5)
    np.testing.assert_allclose(cv.ranges.maximum, outputs.max(0), atol=1e-5)
    np.testing.assert_allclose(cv.ranges.std, outputs.std(0), atol=1e-5)
    np.testing.assert_allclose(outputs_of_store(network, stores[0]), outputs[:70], atol=1e-5)


def test_the_fluctuation_is_that_within_a_basin() -> None:
    generator = np.random.default_rng(0)
    jumping = 0.1 * generator.normal(size=(4000, 1)) + 3.0 * (np.arange(4000) // 1000 % 2)[:, None]
    ranges = OutputRanges.of_series([jumping])
    assert ranges.std[0] > 1.0
    assert ranges.fluctuation[0] == pytest.approx(0.1, rel=0.1)


def test_a_store_of_another_encoder_is_refused(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", Featurizer(small_encoder(), chain().topology), frames())
    with pytest.raises(DataError, match="give the encoder"):
        LearnedCV.from_store(store, untrained_cv(chain()).network, small_encoder(cutoff=6.0))


def test_a_network_of_other_tokens_is_refused() -> None:
    with pytest.raises(SpecError, match="takes 2 tokens"):
        replace(untrained_cv(chain()), network=untrained_cv(chain(4)).network)


def test_an_output_that_never_changes_is_refused() -> None:
    with pytest.raises(SpecError, match="output 1 is 0.0 in every frame"):
        OutputRanges.of_series([np.stack([np.arange(9.0), np.zeros(9)], axis=1)])


def test_other_and_damaged_files_are_refused(tmp_path: Path) -> None:
    cv = untrained_cv(chain())
    network = save_network(cv.network, tmp_path / "network.safetensors")
    with pytest.raises(DataError, match="no learned CV: .* a CV network's: load it with load_cv_network"):
        load_learned_cv(network)
    path = save_learned_cv(cv, tmp_path / "cv.safetensors")
    text, weights = read_bundle(path)
    weights["encoder.network.norm.weight"] = weights["encoder.network.norm.weight"] + 1
    with pytest.raises(DataError, match="is not the one it was saved with"):
        load_learned_cv(write_bundle(weights, text, tmp_path / "changed.safetensors"))
    document = json.loads(text)
    del document["ranges"]
    with pytest.raises(DataError, match="ranges"):
        load_learned_cv(write_bundle(weights, json.dumps(document), tmp_path / "short.safetensors"))
