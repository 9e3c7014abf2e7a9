"""Pretraining that begins with geom2vec's public weights: their head is used, and whose they were stays known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from openmm_gnn.base.errors import SpecError
from openmm_gnn.data.conformers.conformations import Split, check_elements
from openmm_gnn.data.conformers.conformers import make_conformations
from openmm_gnn.data.conformers.settings import PeptideSettings
from openmm_gnn.learning.pretraining.denoising import pretrain_on_molecules
from openmm_gnn.learning.pretraining.denoising_meter import denoising_error
from openmm_gnn.learning.pretraining.noisy_frames import MoleculeFrames
from openmm_gnn.learning.settings import DenoisingSettings
from openmm_gnn.networks.weights import load_encoder

CHECKPOINTS = ("et_l6_h64_rbf64_r75.pth", "visnet_l6_h64_rbf64_r75.pth", "tensornet_l3_h64_rbf32_r5.pth")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    made = PeptideSettings(longest=2, temperatures=(300.0,), frames=2, interval_ps=0.1)
    return make_conformations(tmp_path_factory.mktemp("data"), 4, made, processes=1, progress=False).split(4)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_training_goes_on_from_a_public_checkpoint(
    geom2vec_data: Path, split: Split, tmp_path: Path, name: str
) -> None:
    torch.set_num_threads(1)
    start = load_encoder(geom2vec_data / name)
    settings = DenoisingSettings(num_steps=2, batch_size=2, learning_rate=1e-5, warmup_steps=1, validate_every=1)
    bundle = pretrain_on_molecules(start.spec, *split, settings, tmp_path, progress=False, start=start)
    derived = load_encoder(bundle)
    assert derived.spec == start.spec
    moved = [not torch.equal(value, start.state_dict()[key]) for key, value in derived.named_parameters()]
    assert np.mean(moved) > 0.9
    frames = MoleculeFrames(split.validation, False, "angstrom")
    molecules = [frames[k] for k in range(len(frames))]
    before, after = (denoising_error(encoder, molecules, 0.2) for encoder in (start, derived))
    assert before < 0.75  # the head came along
    assert after == pytest.approx(before, abs=0.02)  # two small steps away
    assert derived.spec.metadata["source"] == f"geom2vec checkpoint {name}"
    assert "Copyright (c) 2024 Zihan Pengmei" in derived.spec.metadata["license"]


def test_the_notice_is_the_one_that_came_with_the_checkpoints(geom2vec_data: Path, tmp_path: Path) -> None:
    notice = load_encoder(geom2vec_data / CHECKPOINTS[0]).spec.metadata["license"]
    assert notice.split() == (geom2vec_data / "LICENSE.geom2vec").read_text().split()


def test_what_the_public_weights_have_not_met_is_refused(geom2vec_data: Path) -> None:
    spec = load_encoder(geom2vec_data / CHECKPOINTS[0]).spec
    check_elements(spec, (1, 6, 7, 8, 16))
    with pytest.raises(SpecError, match=r"atomic numbers \[34\]"):
        check_elements(spec, (6, 34))
    with pytest.raises(SpecError, match="the weights to start from belong to"):
        pretrain_on_molecules(
            dataclasses.replace(spec, width=32),
            [],
            [],
            DenoisingSettings(),
            "nowhere",
            start=load_encoder(geom2vec_data / CHECKPOINTS[0]),
        )
