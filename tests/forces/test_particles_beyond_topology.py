"""Particles of a System that its topology lacks, such as dummies of restraints: refused with a remedy that works."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
from openmm import app

from openmm_gnn.base.errors import SpecError, in_words
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.features.learned_cv import load_learned_cv
from openmm_gnn.forces.backends import Backend, available_backends
from openmm_gnn.forces.cv_force import BiasForce, cv_force
from openmm_gnn.forces.python_call import feature_force
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.reporters.embedding_reporter import EmbeddingReporter, FeatureForceReporter

BACKENDS = available_backends()
PEPTIDE = load_system("alanine-dipeptide")
REMEDY = r"from a topology that has every particle of the System, dummies too \(named DUM, without an element\)"
REPORTED = r"the featurizer is made for 22 .* has 23: .* an atom for each particle, dummies too \(named DUM, without"


@cache
def featurizer_of(dummy: bool) -> Featurizer:
    return Featurizer("biomolecule-et-small", topology_of(dummy))


class Flat:
    """A bias of zero."""

    def value_and_gradient(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        return 0.0, np.zeros_like(values)


def topology_of(dummy: bool) -> app.Topology:
    topology = copy.deepcopy(PEPTIDE.topology)
    if dummy:
        topology.addAtom("DUM", None, topology.addResidue("DUM", topology.addChain()))
    return topology


def restrained() -> tuple[openmm.System, np.ndarray]:
    """The peptide's atoms, one of them on a spring to a massless dummy, and their positions, (23, 3) nm."""
    system, spring = openmm.System(), openmm.HarmonicBondForce()
    for mass in PEPTIDE.masses:
        system.addParticle(mass)
    spring.addBond(8, system.addParticle(0.0), 0.0, 1000.0)
    system.addForce(spring)
    positions = np.asarray(PEPTIDE.start(1))
    return system, np.vstack([positions, positions[8]])


def evaluated(system: openmm.System, positions: np.ndarray) -> float:
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions)
    return float(context.getState(energy=True).getPotentialEnergy()._value)


def test_a_featurizer_names_the_remedy() -> None:
    positions = restrained()[1]
    with pytest.raises(
        SpecError, match=r"\(23, 3\) came in, the topology has 22 .* every particle of the System, dumm"
    ):
        featurizer_of(False).features(positions)
    expected = featurizer_of(False).features(positions[:-1])
    assert np.array_equal(featurizer_of(True).features(positions), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_cv_names_the_remedy(backend: Backend) -> None:
    (system, positions), (free, _) = restrained(), restrained()
    system.addForce(cv_force("alanine-dipeptide", topology_of(False), backend=backend))
    with pytest.raises(Exception, match=f"23 positions came in, .* for 22 particles: make it again {REMEDY}") as caught:
        evaluated(system, positions)
    assert in_words(caught.value).count("\n") == 0
    free.addForce(cv_force("alanine-dipeptide", topology_of(True), backend=backend))
    alone = copy.deepcopy(PEPTIDE.system)
    for index in reversed(range(alone.getNumForces())):
        alone.removeForce(index)
    alone.addForce(cv_force("alanine-dipeptide", topology_of(False), backend=backend))
    # 1e-5: the same float32 graph, its sums in another order.
    assert evaluated(free, positions) == pytest.approx(evaluated(alone, positions[:-1]), abs=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda dummy: feature_force(featurizer_of(dummy), periodic=False),
        lambda dummy: BiasForce(load_learned_cv("alanine-dipeptide"), topology_of(dummy), Flat(), periodic=False),
    ],
    ids=["features", "bias"],
)
def test_forces_that_call_python_name_the_remedy(make: Callable[[bool], Any]) -> None:
    system, positions = restrained()
    with pytest.raises(SpecError, match=f"is made for 22 particles, the System has 23: make it {REMEDY}"):
        make(False).add_to(system)
    assert system.getNumForces() == 1
    fitting, late = make(True), make(False)
    fitting.add_to(copy.deepcopy(system))
    system.addForce(late.force)  # by hand, or before the System had all its particles
    with pytest.raises(Exception, match=f"23 positions came in, .* for 22 particles: make it again {REMEDY}"):
        evaluated(system, positions)


@pytest.mark.parametrize("in_force", [False, True])
def test_reporters_name_the_remedy(in_force: bool, tmp_path: Path) -> None:
    for dummy in (False, True):
        system, positions = restrained()
        if in_force:
            seeing = feature_force(featurizer_of(True), periodic=False)
            seeing.add_to(system)
            seeing.featurizer = featurizer_of(dummy)
            reporter: EmbeddingReporter = FeatureForceReporter(tmp_path / str(dummy), 1, seeing)
        else:
            reporter = EmbeddingReporter(tmp_path / str(dummy), 1, featurizer_of(dummy))
        platform = openmm.Platform.getPlatformByName("Reference")
        simulation = app.Simulation(topology_of(dummy), system, openmm.VerletIntegrator(1e-4), platform)
        simulation.context.setPositions(positions)
        with reporter:
            simulation.reporters.append(reporter)
            if dummy:
                simulation.step(2)
                reporter.flush()
                assert reporter.store.last_step == 2
            else:
                with pytest.raises(SpecError, match=REPORTED):
                    simulation.step(2)
