"""A bias along a learned CV keeps the energy: the CV has no jumps, and one that has is refused."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from learned_cvs import chain, untrained_cv

from openmm_gnn.base.errors import SpecError
from openmm_gnn.features.learned_cv import LearnedCV, load_learned_cv
from openmm_gnn.forces.cv_force import BiasForce, cv_force
from openmm_gnn.forces.modules.cv_module import CVModule
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.networks.weights import in_form

NAME = "alanine-dipeptide"
CV = load_learned_cv(NAME)


class Umbrella:
    """140 (s - 1)^2 kJ/mol along the first variable, whose basins lie around 0 and 3: there it changes fastest."""

    def value_and_gradient(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        return float(140 * (values[0] - 1) ** 2), np.array([280 * (values[0] - 1)])


def published(cv: LearnedCV) -> LearnedCV:
    """The same networks by the rule of the published encoders."""
    return dataclasses.replace(cv, encoder=in_form(cv.encoder, "nearest"))


def energies_of(cv: LearnedCV | None, steps: int, every: int = 5) -> np.ndarray:
    """Total energy, kJ/mol, along a run at constant energy with steps of 0.5 fs from 300 K, under the umbrella."""
    peptide = load_system(NAME)
    system = peptide.system
    force = None
    if cv is not None:
        force = BiasForce(cv, peptide.topology, Umbrella(), (0,), allow_jumps=True)
        force.add_to(system)
    integrator = openmm.VerletIntegrator(0.0005)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    integrator.setConstraintTolerance(1e-10)
    context.setPositions(peptide.start(1))
    openmm.LocalEnergyMinimizer.minimize(context)
    context.setVelocitiesToTemperature(300, 1)
    energies = []
    for _ in range(steps // every):
        integrator.step(every)
        state = context.getState(energy=True)
        energies.append(state.getPotentialEnergy()._value + state.getKineticEnergy()._value)
    if force is not None:
        force.check()
    return np.array(energies)


@pytest.mark.slow
def test_the_energy_under_an_umbrella_is_kept() -> None:
    """Over 0.2 ps as without a bias, where it stays within 0.05 kJ/mol; a CV that jumps gains several in that time."""
    free, biased, jumping = (energies_of(cv, 400) for cv in (None, CV, published(CV)))
    assert np.ptp(free) < 0.1 and np.ptp(biased) < 0.2
    assert abs(biased[-20:].mean() - biased[:20].mean()) < 0.05
    assert np.ptp(jumping) > 1.0


def test_the_force_of_the_bias_is_continuous_and_the_gradient_of_its_energy() -> None:
    """Along a line on which another atom comes within the encoder's cutoff; float64."""
    peptide = load_system(NAME)
    module = CVModule(CV, peptide.topology, torch.float64)
    positions = torch.from_numpy(peptide.start(1))
    moved = int(module.read_atoms[0])
    line = torch.zeros_like(positions)
    line[moved] = torch.tensor([1.0, 0.4, -0.2], dtype=torch.float64)

    def value_and_slope(distance: float) -> tuple[float, float, int]:
        read = (positions + distance * line).index_select(0, module.read_atoms)
        centred, _ = module.prepared(read, None)
        edges = module.encoder.edges(centred)[0].shape[1]
        centred.requires_grad_()
        value = module.values(centred, None)[0]
        (gradient,) = torch.autograd.grad(value, centred)
        slope = (gradient * line.index_select(0, module.read_atoms)[: len(gradient)]).sum() * module.per_nm
        return float(value.detach()), float(slope), edges

    near, far = 0.0, 0.3
    first, last = value_and_slope(near)[2], value_and_slope(far)[2]
    assert first != last
    while far - near > 1e-13:
        middle = 0.5 * (near + far)
        near, far = (middle, far) if value_and_slope(middle)[2] == first else (near, middle)
    before, after = value_and_slope(near), value_and_slope(far)
    assert before[2] != after[2]
    assert abs(before[0] - after[0]) < 1e-9 and abs(before[1] - after[1]) < 1e-7 * max(1.0, abs(before[1]))
    for distance in (near - 1e-3, near, 0.05):
        step = 1e-6
        slope = (value_and_slope(distance + step)[0] - value_and_slope(distance - step)[0]) / (2 * step)
        assert value_and_slope(distance)[1] == pytest.approx(slope, rel=1e-5, abs=1e-5)


def test_a_cv_that_jumps_is_refused_in_words() -> None:
    topology = chain().topology
    cv = published(untrained_cv(chain()))
    makers: list[Any] = [partial(cv_force, cv, topology), partial(BiasForce, cv, topology, Umbrella())]
    for make in makers:
        with pytest.raises(SpecError, match="32 neighbours at most, which change, and messages .* end at a step"):
            make()
        make(allow_jumps=True)
    half = dataclasses.replace(cv, encoder=in_form(cv.encoder, "full", smooth=False))
    with pytest.raises(SpecError, match="heat the molecule: messages of torchmd-et end .*--neighbor-rule fading"):
        half.check_continuous()
    dataclasses.replace(cv, encoder=in_form(cv.encoder, "full")).check_continuous()
