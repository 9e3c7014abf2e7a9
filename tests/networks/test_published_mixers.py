"""SubFormer, SubMixer and SubGVP against what the published code, before its version 1, makes of the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from published_lobes import load_legacy
from torch import Tensor

from openmm_gnn.networks.tokens.residue_graph import SubGVP
from openmm_gnn.networks.tokens.token_mixers import SubFormer, SubMixer, position_encoding

TOKENS, WIDTH = 12, 16
Arrays = dict[str, np.ndarray]


@pytest.fixture
def stored(geom2vec_data: Path) -> Arrays:
    with np.load(geom2vec_data / "legacy_mixers.npz") as arrays:
        return dict(arrays)


def difference(found: Tensor, expected: np.ndarray) -> float:
    assert tuple(found.shape) == expected.shape
    return float((found.detach() - torch.from_numpy(expected)).abs().max())


def subformer(stored: Arrays) -> tuple[SubFormer, Tensor]:
    """The mixer, and the tokens with their places in the sequence."""
    module = load_legacy(SubFormer(WIDTH, 2, 4, 0.1, own_token=True), stored, "subformer")
    return module, torch.from_numpy(stored["x"]) + position_encoding(TOKENS, WIDTH)


def test_places_in_the_sequence_are_encoded_as_in_the_published_code(stored: Arrays) -> None:
    assert difference(position_encoding(TOKENS, WIDTH), stored["subformer_pos_emb"]) <= 1e-6


def test_subformer_gives_what_the_published_one_gives(stored: Arrays) -> None:
    module, tokens = subformer(stored)
    mixed = module(tokens)
    assert difference(mixed[:, 0], stored["subformer_out_cls"]) <= 1e-5
    assert difference(mixed[:, 1:].mean(dim=1), stored["subformer_out"]) <= 1e-5


def test_attention_maps_of_subformer_are_the_published_ones(stored: Arrays) -> None:
    module, tokens = subformer(stored)
    assert difference(module.attention_maps(tokens)[1], stored["subformer_attn_layer1_cls"]) <= 1e-6
    module.own_token = None
    assert difference(module.attention_maps(tokens)[0], stored["subformer_attn_layer0_pool_mean_no_cls"]) <= 1e-6


def test_submixer_gives_what_the_published_one_gives(stored: Arrays) -> None:
    module = load_legacy(SubMixer(TOKENS, WIDTH, 2, 0.1), stored, "submixer")
    assert difference(module(torch.from_numpy(stored["x"])).mean(dim=1), stored["submixer_out"]) <= 1e-5


@pytest.mark.parametrize("gated", [True, False], ids=["gated", "ungated"])
def test_subgvp_gives_what_the_published_one_gives(stored: Arrays, gated: bool) -> None:
    name = "subgvp_gated" if gated else "subgvp_ungated"
    module = load_legacy(SubGVP(WIDTH, 2, 0.8, 0.1, gated=gated, smooth=False), stored, name)
    places = torch.from_numpy(stored["ca"]) / 10
    scalars, vectors = module(torch.from_numpy(stored["x"]), torch.from_numpy(stored["v"]), places)
    if gated:
        assert difference(scalars.sum(dim=1), stored["subgvp_gated_sum_s"]) <= 1e-5
        assert difference(vectors.sum(dim=1), stored["subgvp_gated_sum_v"]) <= 1e-5
    else:
        assert difference(scalars, stored["subgvp_ungated_skip_s"]) <= 1e-5
        assert difference(vectors, stored["subgvp_ungated_skip_v"]) <= 1e-5
    sources, targets, _ = module.edges(places)
    assert sorted(zip(sources.tolist(), targets.tolist(), strict=True)) == sorted(
        map(tuple, stored["subgvp_edges"].T.tolist())
    )
