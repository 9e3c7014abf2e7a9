"""Features that a force call made, in a store, against those of the reporter that takes positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openmm
import openmm.app
import pytest
import torch

from openmm_gnn.base.errors import NonFiniteError
from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.forces.backends import available_backends
from openmm_gnn.forces.python_call import feature_force
from openmm_gnn.networks.encoders.encoder import Encoder
from openmm_gnn.reporters.embedding_reporter import EmbeddingReporter, FeatureForceReporter
from openmm_gnn.reporters.embedding_store import EmbeddingStore

BOX = np.diag([2.5, 2.6, 2.7])


class Springs:
    """A simulation of three residues on springs in a box, with a FeatureForce."""

    def __init__(self, backend: Any) -> None:
        topology, system, springs = openmm.app.Topology(), openmm.System(), openmm.HarmonicBondForce()
        chain = topology.addChain()
        for _ in range(3):
            residue = topology.addResidue("LIG", chain)
            for name in ("C1", "C2", "O1"):
                atom = topology.addAtom(name, openmm.app.Element.getBySymbol(name[0]), residue)
                system.addParticle(12)
                if atom.index:
                    springs.addBond(atom.index - 1, atom.index, 0.15, 1e4)
                    topology.addBond(list(topology.atoms())[-2], atom)
        springs.setUsesPeriodicBoundaryConditions(True)
        system.addForce(springs)
        system.setDefaultPeriodicBoxVectors(*[openmm.Vec3(*row) for row in BOX])
        torch.manual_seed(3)
        spec = EncoderSpec(Architecture.TORCHMD_ET, num_layers=1, cutoff=5.0, width=16, num_radial=8, num_heads=2)
        self.seeing = feature_force(Featurizer(Encoder(spec).requires_grad_(False), topology), True, backend)
        system.addForce(self.seeing.force)
        integrator = openmm.VerletIntegrator(0.002)
        self.seeing.leave_out_of(integrator)
        platform = openmm.Platform.getPlatformByName("Reference")
        self.simulation = openmm.app.Simulation(topology, system, integrator, platform)
        self.simulation.context.setPositions(0.1 * np.random.default_rng(4).normal(size=(9, 3)).cumsum(0))
        self.simulation.context.setVelocitiesToTemperature(300, 5)


@pytest.mark.parametrize("backend", available_backends())
def test_both_reporters_store_the_same(tmp_path: Path, backend: Any) -> None:
    run = Springs(backend)
    with (
        FeatureForceReporter(tmp_path / "seen", 5, run.seeing, dtype="float32") as seeing,
        EmbeddingReporter(tmp_path / "read", 5, run.seeing.featurizer, dtype="float32", worker=None) as reading,
    ):
        run.simulation.reporters += [seeing, reading]
        assert seeing.describeNextReport(run.simulation)["include"] == []  # nothing comes to the host
        run.simulation.step(32)
    seen, read = EmbeddingStore.open(tmp_path / "seen"), EmbeddingStore.open(tmp_path / "read")
    assert seen.steps.tolist() == read.steps.tolist() == [5, 10, 15, 20, 25, 30]
    np.testing.assert_array_equal(seen.times_ps, read.times_ps)
    np.testing.assert_array_equal(seen.boxes, read.boxes)
    np.testing.assert_allclose(seen.embeddings, read.embeddings, atol=1e-5)
    np.testing.assert_allclose(seen.coordinates, read.coordinates, atol=1e-6)
    assert np.abs(np.diff(seen.embeddings, axis=0)).max() > 1e-3


@pytest.mark.parametrize("backend", available_backends())
def test_a_restart_gives_the_steps_of_a_run_never_stopped(tmp_path: Path, backend: Any) -> None:
    run = Springs(backend)
    with FeatureForceReporter(tmp_path / "features", 5, run.seeing) as reporter:
        run.simulation.reporters.append(reporter)
        run.simulation.step(12)
        run.simulation.saveCheckpoint(str(tmp_path / "checkpoint"))
        run.simulation.step(13)
    before = np.array(EmbeddingStore.open(tmp_path / "features").embeddings)
    again = Springs(backend)
    again.simulation.loadCheckpoint(str(tmp_path / "checkpoint"))
    with FeatureForceReporter(tmp_path / "features", 5, again.seeing, append=True) as reporter:
        again.simulation.reporters.append(reporter)
        with pytest.warns(UserWarning, match="3 frames past step 12 dropped"):
            again.simulation.step(13)
    store = EmbeddingStore.open(tmp_path / "features")
    assert store.steps.tolist() == [5, 10, 15, 20, 25]
    np.testing.assert_allclose(store.embeddings.astype(float), before.astype(float), atol=2e-3)


@pytest.mark.parametrize("backend", available_backends())
def test_an_atom_that_blew_up_stops_the_run_in_words(tmp_path: Path, backend: Any) -> None:
    run = Springs(backend)
    with FeatureForceReporter(tmp_path / "features", 5, run.seeing) as reporter:
        run.simulation.reporters.append(reporter)
        run.simulation.step(6)
        positions = np.array(run.simulation.context.getState(positions=True).getPositions(asNumpy=True)._value)
        positions[2] = np.nan
        run.simulation.context.setPositions(positions)
        with pytest.raises(NonFiniteError, match="features of step 10: the position of atom"):
            run.simulation.step(6)
    assert EmbeddingStore.open(tmp_path / "features").steps.tolist() == [5]
