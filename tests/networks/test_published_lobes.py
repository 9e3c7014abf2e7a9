"""Our CV network against what the published code makes of the same weights, with its slips put back and without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from published_lobes import lobe_network, stored_lobe
from torch import Tensor

from openmm_gnn.learning.training.frames import random_rotation
from openmm_gnn.networks.tokens.cv_network import CVNetwork

LOBES = {
    "lobe_eqsdpa_nomerge": 0.0787,
    "lobe_eqsdpa_tmm5": 0.0473,
    "lobe_scalar_tmm5": 0.2867,
    "lobe_dinner_qkconv_tmm5_cheapgnn": 0.0497,
    "lobe_dinner_qkconv_tmm5_geomgnn_chiral": 0.0340,
}
"""For each how far our network, without the published norm and filling, is from the published outputs at most."""


def inputs(arrays: dict[str, np.ndarray], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Tokens, and places from angstrom to nm."""
    return torch.from_numpy(arrays["tokens"]).to(dtype), torch.from_numpy(arrays["ca_coords"]).to(dtype) / 10


def difference(network: CVNetwork, given: tuple[Tensor, Tensor], expected: np.ndarray) -> float:
    with torch.no_grad():
        return float((network(*given) - torch.from_numpy(expected)).abs().max())


@pytest.mark.parametrize("name", LOBES)
def test_with_the_published_slips_the_outputs_are_the_published_ones(geom2vec_data: Path, name: str) -> None:
    config, weights, arrays = stored_lobe(geom2vec_data / f"{name}.npz")
    network = lobe_network(config, weights, slips=True)
    given = inputs(arrays)
    assert difference(network, given, arrays["output_f64"]) <= 1e-9
    alone = tuple(tensor[:1] for tensor in given)
    assert difference(network, alone, arrays["output_single_frame_f32"]) <= 1e-5
    assert difference(network.float(), inputs(arrays, torch.float32), arrays["output_f32"]) <= 1e-5


@pytest.mark.parametrize("name", LOBES)
def test_without_the_slips_the_outputs_differ_by_what_the_slips_are(geom2vec_data: Path, name: str) -> None:
    config, weights, arrays = stored_lobe(geom2vec_data / f"{name}.npz")
    found = difference(lobe_network(config, weights, slips=False), inputs(arrays), arrays["output_f64"])
    assert found == pytest.approx(LOBES[name], rel=0.01)


@pytest.mark.parametrize("name", LOBES)
def test_the_published_norm_is_not_equivariant_and_ours_is(geom2vec_data: Path, name: str) -> None:
    config, weights, arrays = stored_lobe(geom2vec_data / f"{name}.npz")
    tokens, places = inputs(arrays)
    turn = torch.from_numpy(random_rotation(np.random.default_rng(1)))
    turned = tokens.clone()
    turned[:, :, 1:] = torch.einsum("xy,btyh->btxh", turn, tokens[:, :, 1:])
    changes = {}
    for slips in (True, False):
        network = lobe_network(config, weights, slips)
        with torch.no_grad():
            expected = network(tokens, places).numpy()
        changes[slips] = difference(network, (turned, places @ turn.T), expected)
        single = difference(network, (tokens[:1], places[:1]), expected[:1])
        assert single <= 1e-12 or (slips and config["equi_rep"])
    assert changes[False] <= 1e-9
    if config["equi_rep"]:
        assert changes[True] >= 1e-4
