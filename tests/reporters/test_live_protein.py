"""A real encoder in a real simulation: villin in explicit water, its residues embedded while it moves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_gnn import EmbeddingReporter, EmbeddingStore
from openmm_gnn.features.featurizer import Featurizer

VILLIN = Path(app.__file__).parent / "data" / "test.pdb"
"""Villin in explicit water with chloride, 8,867 atoms; a file of OpenMM's."""


class Keeper:
    """Positions and boxes as OpenMM reports them, molecules wrapped into the box."""

    def __init__(self) -> None:
        self.frames: list[tuple[np.ndarray, np.ndarray]] = []

    def describeNextReport(self, simulation: app.Simulation) -> dict:
        return {"steps": 2 - simulation.currentStep % 2, "periodic": True, "include": ["positions"]}

    def report(self, simulation: app.Simulation, state: openmm.State) -> None:
        self.frames.append(
            (
                np.array(state.getPositions(asNumpy=True)._value),
                np.array(state.getPeriodicBoxVectors(asNumpy=True)._value),
            )
        )


def test_residues_of_a_solvated_protein_are_embedded_live(tmp_path: Path) -> None:
    pdb = app.PDBFile(str(VILLIN))
    system = app.ForceField("amber14-all.xml", "amber14/tip3pfb.xml").createSystem(
        pdb.topology, nonbondedMethod=app.CutoffPeriodic, nonbondedCutoff=0.8 * unit.nanometer, constraints=app.HBonds
    )
    integrator = openmm.LangevinMiddleIntegrator(300, 1.0, 0.002)
    simulation = app.Simulation(pdb.topology, system, integrator, openmm.Platform.getPlatformByName("CPU"))
    simulation.context.setPositions(pdb.positions)
    featurizer, keeper = Featurizer("peptide-et", pdb.topology), Keeper()
    with (
        EmbeddingReporter(tmp_path / "thread", 2, featurizer, dtype="float32") as first,
        EmbeddingReporter(tmp_path / "process", 2, featurizer, worker="process") as second,
    ):
        simulation.reporters += [first, second, keeper]
        simulation.step(6)
        assert first.store.meta["system"]["num_particles"] == 8867
        assert np.load(tmp_path / "process" / "pending.npy").dtype["positions"].shape == (289, 3)
    stores = EmbeddingStore.replicas(tmp_path)
    expected = np.stack([featurizer.features(*frame) for frame in keeper.frames])
    scale = np.abs(expected).max()
    assert stores["thread"].embeddings.shape == (3, 35, 4, 64)
    # The reporter's positions are unwrapped, the keeper's wrapped: features are the same in any periodic image.
    assert np.abs(stores["thread"].embeddings - expected).max() < 1e-5 * scale
    assert np.abs(stores["process"].embeddings - expected).max() < 6e-4 * scale
    alpha_carbons = [atom.index for atom in pdb.topology.atoms() if atom.name == "CA"]
    stored = stores["thread"].coordinates[-1]
    wrapped = keeper.frames[-1][0][alpha_carbons]
    edges = np.diag(keeper.frames[-1][1])
    offset = (stored - wrapped) / edges
    assert offset == pytest.approx(np.round(offset), abs=1e-4)
    assert np.linalg.norm(np.diff(stored, axis=0), axis=1).max() < 0.42  # one chain, whole
    assert stores["thread"].meta["description"]["tokens"]["labels"][0] == "0:LEU1"


def test_a_featurizer_of_another_selection_does_not_go_on_with_the_store(tmp_path: Path, geom2vec_data: Path) -> None:
    pdb = app.PDBFile(str(VILLIN))
    checkpoint = geom2vec_data / "tensornet_l3_h64_rbf32_r5.pth"
    EmbeddingReporter(tmp_path, 2, Featurizer(checkpoint, pdb.topology)).close()
    other = Featurizer(checkpoint, pdb.topology, selection="backbone")
    with pytest.raises(ValueError, match=r"selection: None stored, 'backbone' given"):
        EmbeddingReporter(tmp_path, 2, other, append=True)
    another = Featurizer(geom2vec_data / "et_l6_h64_rbf64_r75.pth", pdb.topology)
    with pytest.raises(ValueError, match=r"'tensornet_l3_h64_rbf32_r5.pth' stored, 'et_l6_h64_rbf64_r75.pth' given"):
        EmbeddingReporter(tmp_path, 2, another, append=True)
