"""Tokens of geom2vec's public checkpoints against those that the published code makes of the same frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
import pytest

from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.networks.weights import load_encoder

CHECKPOINTS = {
    "et": "et_l6_h64_rbf64_r75.pth",
    "visnet": "visnet_l6_h64_rbf64_r75.pth",
    "tensornet": "tensornet_l3_h64_rbf32_r5.pth",
}


def topology_of(stored: Any) -> mdtraj.Topology:
    """The heavy atoms of a stored system, without bonds."""
    topology = mdtraj.Topology()
    chain = topology.add_chain("A")
    residues = [topology.add_residue(str(name), chain, resSeq=k) for k, name in enumerate(stored["residue_names"])]
    for number, residue, name in zip(stored["z"], stored["residue_index"], stored["atom_names"], strict=True):
        element = mdtraj.element.Element.getByAtomicNumber(int(number))
        topology.add_atom(str(name), element, residues[int(residue)])
    return topology


@pytest.mark.parametrize("architecture", CHECKPOINTS)
def test_small_molecule_tokens_agree_in_sum_and_mean(geom2vec_data: Path, architecture: str) -> None:
    stored = np.load(geom2vec_data / f"ala2_{architecture}_full.npz")
    for reduction in ("sum", "mean"):
        encoder = load_encoder(geom2vec_data / CHECKPOINTS[architecture], "full", smooth=False)
        given = (encoder, topology_of(stored))
        found = Featurizer(*given, reduction=reduction).features(stored["positions"] / 10)
        np.testing.assert_allclose(found, stored[f"tokens_{reduction}_f32"], atol=1e-4, rtol=0)
    exact = Featurizer(*given, dtype="float64").features(stored["positions"] / 10 + 3.0)
    np.testing.assert_allclose(exact, stored["tokens_sum_f64"], atol=1e-9, rtol=0)


@pytest.mark.parametrize(("architecture", "rule"), [("et", "index"), ("tensornet", "full"), ("visnet", "index")])
def test_protein_tokens_and_alpha_carbons_agree(geom2vec_data: Path, architecture: str, rule: str) -> None:
    stored = np.load(geom2vec_data / f"villin1vii_{architecture}_{rule}.npz")
    checkpoint = geom2vec_data / CHECKPOINTS[architecture]
    if rule == "full":
        featurizer = Featurizer(load_encoder(checkpoint, rule, smooth=False), topology_of(stored), coordinates="CA")
    else:
        featurizer = Featurizer(checkpoint, topology_of(stored), neighbor_rule=rule, coordinates="CA")
    assert featurizer.num_tokens == 36
    found = featurizer.features(stored["positions"] / 10)
    np.testing.assert_allclose(found, stored["tokens_sum_f32"], atol=1e-4, rtol=0)
    np.testing.assert_allclose(
        featurizer.coordinates(stored["positions"] / 10), stored["ca_coords"] / 10, atol=1e-6, rtol=0
    )
