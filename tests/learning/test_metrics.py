"""Force errors against numpy on made-up forces, and the unit factor against OpenMM's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from openmm import unit

from openmm_gnn.base.units import MEV_PER_ANGSTROM_PER_KJ_MOL_NM
from openmm_gnn.learning.training.frames import ForceErrorMeter


def test_the_factor_to_mev_per_angstrom_is_openmms() -> None:
    ev = unit.BOLTZMANN_CONSTANT_kB.value_in_unit(unit.joule / unit.kelvin) / 8.617333262145e-5  # joule per eV
    per_mole = unit.AVOGADRO_CONSTANT_NA.value_in_unit(unit.mole**-1)
    expected = 1000.0 / (per_mole * ev / 1000.0) / 10.0
    assert expected == pytest.approx(MEV_PER_ANGSTROM_PER_KJ_MOL_NM, rel=1e-8)


def test_figures_equal_numpys() -> None:
    generator = np.random.default_rng(0)
    reference = generator.normal(size=(7, 40, 3)) * 50
    predicted = reference + generator.normal(size=reference.shape) * 5
    meter = ForceErrorMeter()
    for ours, theirs in zip(predicted, reference, strict=True):
        meter.add(torch.from_numpy(ours), torch.from_numpy(theirs))
    errors = meter.errors()
    factor = 1000 / 96.48533212331002 / 10
    difference = (predicted - reference) * factor
    norms = np.linalg.norm(predicted, axis=-1) * np.linalg.norm(reference, axis=-1)
    cosines = (predicted * reference).sum(-1) / norms
    assert errors.mae == pytest.approx(np.abs(difference).mean())
    assert errors.rmse == pytest.approx(np.sqrt((difference**2).mean()))
    assert errors.relative_error == pytest.approx(np.abs(difference).mean() / errors.mean_force)
    assert errors.mean_cosine == pytest.approx(cosines.mean())
    assert (cosines > errors.cosine_5_percent).mean() == pytest.approx(0.95, abs=0.01)
    assert errors.mean_force == pytest.approx(np.linalg.norm(reference * factor, axis=-1).mean())
    assert errors.net_force == pytest.approx(np.linalg.norm(predicted.sum(1) * factor, axis=-1).mean() / 40)
    assert errors.num_frames == 7


def test_errors_of_no_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="no frame"):
        ForceErrorMeter().errors()
