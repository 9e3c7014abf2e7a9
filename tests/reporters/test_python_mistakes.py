"""What a user may get wrong in Python is said in a sentence, and objects say what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
import torch
from openmm import app, unit

from openmm_gnn import EmbeddingReporter, EmbeddingStore, Featurizer, gamd_force, load_system, neighbor_pairs
from openmm_gnn.base.errors import BackendError, SpecError, in_words
from openmm_gnn.graph.neighbor_list import NeighborList
from openmm_gnn.md.simulation_system import SimulationSystem
from openmm_gnn.reporters.embedding_reporter import FeatureForceReporter

ENCODER = "biomolecule-et-small"


@pytest.fixture(scope="module")
def peptide() -> SimulationSystem:
    return load_system("alanine-dipeptide")


@pytest.fixture(scope="module")
def featurizer(peptide: SimulationSystem) -> Featurizer:
    return Featurizer(ENCODER, peptide.topology)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (lambda featurizer: ("store", featurizer, 500), "its arguments are (file, reportInterval, featurizer)"),
        (lambda featurizer: (500, "store", featurizer), "given file=500, reportInterval='store'"),
        (lambda featurizer: ("store", 500, ENCODER), f"Featurizer('{ENCODER}', simulation.topology)"),
        (lambda featurizer: ("store", 500, featurizer.topology), f"Featurizer('{ENCODER}', simulation.topology)"),
        (lambda featurizer: ("store", 0, featurizer), "reportInterval is 0: give 1 step or more"),
    ],
)
def test_a_reporter_names_the_arguments_that_it_was_given(
    arguments: Callable[[Featurizer], tuple[Any, ...]],
    says: str,
    featurizer: Featurizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError) as refusal:
        EmbeddingReporter(*arguments(featurizer))
    assert says in str(refusal.value)
    assert not any(tmp_path.iterdir())


def test_a_reporter_of_a_force_wants_the_force(featurizer: Featurizer, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"given force=Featurizer\(.*: give feature_force\(featurizer, periodic\)"):
        FeatureForceReporter(tmp_path / "store", 5, featurizer)  # type: ignore[arg-type]


def test_a_reporter_says_what_it_is_and_that_it_was_closed(
    peptide: SimulationSystem, featurizer: Featurizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.002)
    simulation = app.Simulation(peptide.topology, peptide.system, integrator, openmm.Platform.getPlatform("Reference"))
    simulation.context.setPositions(peptide.start(1))
    with EmbeddingReporter("store", 5, featurizer) as reporter:
        said = "every 5 steps, EmbeddingStore('store': 0 frames of 3 x 4 x 64 float16)"
        assert repr(reporter) == f"EmbeddingReporter(open, {said})"
        simulation.reporters.append(reporter)
        simulation.step(10)
    stored = "EmbeddingStore('store': 2 frames of 3 x 4 x 64 float16, steps 5 to 10)"
    assert repr(reporter) == f"EmbeddingReporter(closed, every 5 steps, {stored})"
    assert repr(EmbeddingStore.open("store")) == stored
    with pytest.raises(SpecError, match="the reporter of store is closed: step inside its `with`, or take it out"):
        simulation.step(5)
    assert simulation.currentStep == 10 and len(EmbeddingStore.open("store")) == 2


def test_other_objects_say_what_they_are(peptide: SimulationSystem, featurizer: Featurizer) -> None:
    assert repr(featurizer) == (
        f"Featurizer({ENCODER}: 3 tokens of 10 atoms (heavy atoms) among 22 particles, features (tokens, 4, 64), "
        "float32 on cpu)"
    )
    assert repr(peptide) == (
        "SimulationSystem('alanine-dipeptide': 22 particles, no box, 300 K, langevin, steps of 4 fs)"
    )
    pairs = NeighborList(0.5, 0.05)
    pairs(torch.rand(7, 3))
    assert repr(pairs) == (
        "NeighborList(cutoff=0.5, skin=0.05, each pair once, up to 96 pairs per atom, 7 atoms so far)"
    )


@pytest.mark.parametrize(
    ("positions", "box", "says"),
    [
        (np.zeros((3, 3)), None, r"positions is a numpy.ndarray: give a tensor, torch.tensor\(positions\)"),
        (np.zeros((3, 3)) * unit.nanometer, None, r"positions is a openmm.Quantity: give a tensor"),
        ([[0.0, 0.0, 0.0]], None, r"positions is a builtins.list: give a tensor"),
        (torch.zeros(3, 3), np.eye(3), r"box_vectors is a numpy.ndarray: give a tensor"),
    ],
)
def test_what_is_no_tensor_is_named(positions: Any, box: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        neighbor_pairs(positions, 1.0, box)


def test_a_device_that_is_not_there_is_named(peptide: SimulationSystem) -> None:
    with pytest.raises(BackendError, match=r"device is 'gpu': give 'cpu', 'cuda' or 'cuda:N'"):
        Featurizer(ENCODER, peptide.topology, device="gpu")


def test_an_error_within_a_force_ends_in_a_sentence() -> None:
    fluid = load_system("argon")
    while fluid.system.getNumForces():
        fluid.system.removeForce(0)
    fluid.system.addForce(gamd_force("gamd-argon", fluid.topology, periodic=True))
    context = openmm.Context(fluid.system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
    positions = fluid.positions.copy()
    positions[3] = np.nan
    context.setPositions(positions)
    with pytest.raises(openmm.OpenMMException) as caught:
        context.getState(forces=True)
    sentence = "the position of atom 3 is (nan, nan, nan): it must be finite"
    assert sentence in str(caught.value).strip().splitlines()[-1]
    assert in_words(caught.value).startswith(sentence)
    if fluid.system.getForce(0).__class__.__name__ == "PythonForce":  # TorchForce adds TorchScript's traceback
        assert len(str(caught.value).strip().splitlines()) == 1
