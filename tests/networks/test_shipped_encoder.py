"""The encoder that the package brings: small, covariant, with its recipe, and good on what it never saw."""

from __future__ import annotations

from pathlib import Path

import openmm.app
import pytest
import torch

from openmm_gnn.learning.pretraining.denoising_meter import denoising_error, solute
from openmm_gnn.networks.encoders.encoder import Encoder
from openmm_gnn.networks.weights import ENCODERS, load_encoder, shipped_names

VILLIN = Path(openmm.app.__file__).parent / "data" / "test.pdb"
"""Villin headpiece in water, which comes with OpenMM."""


@pytest.fixture(scope="module", params=shipped_names(ENCODERS))
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return load_encoder(request.param)


ERRORS = {"biomolecule-et": 0.33, "biomolecule-et-small": 0.34, "peptide-et": 0.36}
"""Of denoising on villin, at most; geom2vec's ET leaves 0.37 there."""


def test_they_are_these() -> None:
    assert shipped_names(ENCODERS) == sorted(ERRORS)


def test_it_carries_its_recipe_and_its_figures(encoder: Encoder) -> None:
    metadata = encoder.spec.metadata
    assert metadata["command"].startswith("openmm-gnn pretrain ")
    assert all(command.startswith("openmm-gnn conformers ") for command in metadata["data"]["commands"])
    assert len(metadata["data"]["sha256"]) == 64
    assert metadata["data"]["validation_molecules"] >= 10
    assert metadata["recipe"]["num_steps"] >= metadata["step"] > 1000
    assert {"villin", "alanine dipeptide", "chignolin", "trp-cage"} <= set(metadata["data"]["left_out"])
    assert 0.2 < metadata["validation"]["validation_error"] < 0.5
    assert {6, 7, 8, 16} <= set(encoder.spec.elements)
    assert sum(weights.numel() for weights in encoder.parameters()) < 1_000_000


def test_what_began_with_the_weights_of_others_brings_their_licence(encoder: Encoder) -> None:
    metadata = encoder.spec.metadata
    assert ("license" in metadata) == ("source" in metadata) == (metadata["start"] is not None)
    if metadata["start"] is not None:
        assert "Permission is hereby granted" in metadata["license"]


def test_a_protein_it_never_saw_is_denoised_as_well_as_it_says(
    encoder: Encoder, request: pytest.FixtureRequest
) -> None:
    molecule = solute(VILLIN, encoder.spec)
    assert len(molecule[0]) > 250
    error = denoising_error(encoder, [molecule] * 3, encoder.spec.noise_scale, seed=5)
    assert error == pytest.approx(encoder.spec.metadata["denoising_error"]["villin.pdb"], abs=0.03)
    assert error < ERRORS[request.node.callspec.params["encoder"]]


def test_features_turn_with_the_molecule(encoder: Encoder) -> None:
    numbers, positions = solute(VILLIN, encoder.spec)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0].float()
    rotation *= torch.linalg.det(rotation).sign()
    with torch.no_grad():
        scalars, vectors = encoder(numbers, positions)
        turned = encoder(numbers, positions @ rotation.T + torch.tensor([3.0, -2.0, 1.0]))
    rotated = torch.einsum("xy,nyh->nxh", rotation, vectors)
    for found, expected in ((turned[0], scalars), (turned[1], rotated)):
        assert float((found - expected).norm() / expected.norm()) < 1e-5
