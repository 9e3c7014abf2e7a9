"""The encoder that the package brings: small, covariant, with its recipe, and good on what it never saw."""

from __future__ import annotations

from pathlib import Path

import openmm.app
import pytest
import torch

from openmm_gnn.models.encoder import Encoder
from openmm_gnn.models.encoder_files import load_encoder, shipped_encoders
from openmm_gnn.pretraining.denoising import denoising_error
from openmm_gnn.pretraining.denoising_checks import solute

VILLIN = Path(openmm.app.__file__).parent / "data" / "test.pdb"
"""Villin headpiece in water, which comes with OpenMM."""


@pytest.fixture(scope="module", params=shipped_encoders())
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return load_encoder(request.param)


def test_there_is_one() -> None:
    assert "peptide-et" in shipped_encoders()


def test_it_carries_its_recipe_and_its_figures(encoder: Encoder) -> None:
    metadata = encoder.spec.metadata
    assert metadata["command"].startswith("openmm-gnn pretrain ")
    assert metadata["data"]["commands"][0].startswith("openmm-gnn conformers ")
    assert len(metadata["data"]["sha256"]) == 64
    assert metadata["data"]["validation_molecules"] >= 10
    assert metadata["recipe"]["num_steps"] >= metadata["step"] > 1000
    assert {"villin", "alanine dipeptide", "chignolin", "trp-cage"} <= set(metadata["data"]["left_out"])
    assert 0.2 < metadata["validation"]["validation_error"] < 0.5
    assert encoder.spec.elements == (6, 7, 8, 16)
    assert sum(weights.numel() for weights in encoder.parameters()) < 500_000


def test_a_protein_it_never_saw_is_denoised_as_well_as_it_says(encoder: Encoder) -> None:
    molecule = solute(VILLIN, encoder.spec)
    assert len(molecule[0]) > 250
    error = denoising_error(encoder, [molecule] * 3, encoder.spec.noise_scale, seed=5)
    assert error == pytest.approx(encoder.spec.metadata["denoising_error"]["villin.pdb"], abs=0.03)
    assert error < 0.55


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
