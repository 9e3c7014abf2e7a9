"""A CV learned from windowed tokens sees the same windows wherever it is evaluated."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from finite_differences import finite_difference_deviation
from learned_cvs import chain, rounding_of_values, small_encoder, untrained_cv, values_of
from openmm import app

from openmm_gnn.base.errors import DataError, TopologyError
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.features.featurizer_settings import WHOLE, GraphContext
from openmm_gnn.features.learned_cv import LearnedCV, load_learned_cv, save_learned_cv
from openmm_gnn.forces.modules.cv_module import CVEnergyModule, CVModule, cv_energy_module
from openmm_gnn.forces.modules.openmm_module import frozen_deviation, translation_deviation
from openmm_gnn.reporters.embedding_store import EmbeddingStore

TRICLINIC = np.array([[2.1, 0.0, 0.0], [0.6, 2.2, 0.0], [-0.5, 0.8, 2.0]])
SYSTEM = chain(12)
CV = untrained_cv(SYSTEM, context="window", window=1)


@pytest.mark.parametrize("box", [None, TRICLINIC], ids=["open", "triclinic"])
def test_values_are_those_of_the_featurizer_in_windows(box: np.ndarray | None) -> None:
    module, exact = torch.jit.script(CVModule(CV, SYSTEM.topology).eval()), CVModule(CV, SYSTEM.topology, torch.float64)
    featurizer = Featurizer(CV.encoder, SYSTEM.topology, dtype="float64", context="window", window=1)
    tokens = torch.from_numpy(featurizer.features(SYSTEM.positions, box))
    places = torch.from_numpy(featurizer.coordinates(SYSTEM.positions, box)).double()
    with torch.no_grad():
        truth = copy.deepcopy(CV.network).double()(tokens[None], places[None])[0].numpy()
    assert np.abs(truth - values_of(replace(CV, context=WHOLE), SYSTEM, SYSTEM.positions, box)).max() > 1e-2
    generator = np.random.default_rng(3)
    for _ in range(3):
        positions = SYSTEM.positions
        if box is not None:
            positions = positions + generator.integers(-2, 3, size=positions.shape) @ box
        given = torch.from_numpy(positions), None if box is None else torch.from_numpy(box)
        np.testing.assert_allclose(exact(*given), truth, atol=1e-6)  # coordinates come as float32
        np.testing.assert_allclose(module(*given), truth, atol=rounding_of_values(CV))


@pytest.mark.parametrize("periodic", [False, True])
def test_forces_are_the_negative_gradient_through_all_windows_of_an_atom(periodic: bool) -> None:
    box = torch.from_numpy(TRICLINIC) if periodic else None
    module = CVEnergyModule(CVModule(CV, SYSTEM.topology, torch.float64), 1, "")
    positions = torch.from_numpy(SYSTEM.positions)
    assert finite_difference_deviation(module, positions, box, step=1e-5, num_components=36) < 1e-6
    assert translation_deviation(module, positions, box) < 1e-9
    assert float(module(positions, box)[1].sum(dim=0).abs().max()) < 1e-9


def test_freezing_leaves_the_forces_as_they_are() -> None:
    eager = CVEnergyModule(CVModule(CV, SYSTEM.topology), 0, "")
    scripted = cv_energy_module(CV, SYSTEM.topology)
    with torch.no_grad():
        for _ in range(3):
            assert frozen_deviation(scripted, eager, torch.from_numpy(SYSTEM.positions), None) < 1e-5


def test_a_topology_whose_bonds_make_other_windows_is_refused() -> None:
    broken = app.Topology()
    molecule, atoms = broken.addChain(), []
    for residue in SYSTEM.topology.residues():
        made = broken.addResidue(residue.name, molecule)
        atoms += [broken.addAtom(atom.name, atom.element, made) for atom in residue.atoms()]
    for number, bond in enumerate(SYSTEM.topology.bonds()):
        if number != 5:  # between the third residue and the fourth
            broken.addBond(atoms[bond[0].index], atoms[bond[1].index])
    with pytest.raises(TopologyError, match="other bonds join the atoms"):
        torch.jit.script(CVModule(CV, broken).eval())


def test_a_saved_cv_keeps_its_windows(tmp_path: Path) -> None:
    loaded = load_learned_cv(save_learned_cv(CV, tmp_path / "cv.safetensors"))
    assert loaded.context == GraphContext("window", 1, (6,)) == CV.context
    positions = torch.from_numpy(SYSTEM.positions)
    np.testing.assert_array_equal(
        torch.jit.script(CVModule(loaded, SYSTEM.topology).eval())(positions),
        torch.jit.script(CVModule(CV, SYSTEM.topology).eval())(positions),
    )


def test_the_windows_of_a_store_become_those_of_the_cv(tmp_path: Path) -> None:
    frames = SYSTEM.positions + 0.02 * np.random.default_rng(1).normal(size=(20, 12, 3)).cumsum(axis=1)
    stores = []
    for name, context, window in (("one", "window", 1), ("two", "window", 2), ("three", "whole", None)):
        featurizer = Featurizer(small_encoder(), SYSTEM.topology, context=context, window=window)
        store = EmbeddingStore.create(tmp_path / name, featurizer.describe(), 6, 16, "float32")
        for step, frame in enumerate(frames):
            store.append(step, float(step), None, featurizer.features(frame), featurizer.coordinates(frame))
        store.close()
        stores.append(EmbeddingStore.open(tmp_path / name))
    cv = LearnedCV.from_store(stores[0], CV.network, small_encoder())
    assert cv.context == CV.context
    assert LearnedCV.from_store(stores[2], CV.network, small_encoder()).context == WHOLE
    series = np.array([values_of(cv, SYSTEM, frame, None) for frame in frames])
    np.testing.assert_allclose(cv.ranges.mean, series.mean(0), atol=1e-4)
    for other in stores[1:]:
        with pytest.raises(DataError, match=r"differ in \['context'\]"):
            LearnedCV.from_store([stores[0], other], CV.network, small_encoder())
