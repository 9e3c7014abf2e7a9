"""The compiled evaluation of a CV against the module in float64 and its autograd, for every network and box."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from learned_cvs import chain, untrained_cv
from rounding import rounding_of_sum
from small_encoders import small_encoder

from openmm_gnn.base.specs.encoder import Architecture, NeighborRule
from openmm_gnn.base.specs.tokens import CVNetworkSpec, GraphConvolution, Mixer
from openmm_gnn.features.learned_cv import LearnedCV
from openmm_gnn.forces.modules.cv_evaluation import (
    AttentionStage,
    AutogradEvaluation,
    CompiledEvaluation,
    StagedEvaluation,
    cv_evaluation,
)
from openmm_gnn.forces.modules.cv_module import CVModule
from openmm_gnn.kernels.array_program import ArrayProgram
from openmm_gnn.networks.encoders.torchmd_et import TorchMDET
from openmm_gnn.networks.tokens.cv_network import CVNetwork

CPU = torch.device("cpu")
SYSTEM = chain(12)
BOXES = {
    "open": None,
    "wide": np.array([[3.0, 0.0, 0.0], [0.9, 2.8, 0.0], [-0.7, 1.1, 2.9]]),
    "narrow": np.diag([1.9, 0.9, 1.0]),
}
Evaluation = CompiledEvaluation | StagedEvaluation
TOLERANCE = 100 * rounding_of_sum(64, 1.0)
"""Of the largest: sums of 64 terms; the widths of norms and gates enlarge what comes in by up to 100."""


def cv_with(network: dict[str, Any] | None = None, encoder: dict[str, Any] | None = None, **changes: Any) -> LearnedCV:
    """A CV of random weights with another network, or another encoder."""
    cv = untrained_cv(SYSTEM, 3, **changes)
    if encoder is not None:
        cv = replace(cv, encoder=small_encoder(**{"cutoff": 8.0, **encoder}))
    if network is not None:
        torch.manual_seed(5)
        spec = CVNetworkSpec(6, 16, 3, **{"width": 16, "num_layers": 1, "num_heads": 2, **network})
        cv = replace(cv, network=CVNetwork(spec).requires_grad_(False).eval())
    return cv


def deviations(cv: LearnedCV, box: np.ndarray | None = None) -> tuple[Evaluation, float, float]:
    """The evaluation, and how far values and forces are from those of float64, over the largest."""
    staged = cv_evaluation(CVModule(cv, SYSTEM.topology).eval(), (2, 0), CPU)
    exact = CVModule(cv, SYSTEM.topology, torch.float64).eval()
    assert isinstance(staged, CompiledEvaluation | StagedEvaluation)
    generator = np.random.default_rng(4)
    of_values, of_forces = 0.0, 0.0
    for _ in range(2):
        positions = SYSTEM.positions + 0.01 * generator.normal(size=SYSTEM.positions.shape)
        if box is not None:
            positions = positions + generator.integers(-2, 3, size=positions.shape) @ box
        read, cell = torch.from_numpy(positions), None if box is None else torch.from_numpy(box)
        centred, scaled = exact.prepared(read, cell)
        outputs = exact.values(centred.requires_grad_(), scaled)[[2, 0]]
        slope = generator.normal(size=2)
        (gradient,) = torch.autograd.grad(outputs, centred, torch.from_numpy(slope))
        right, right_forces = outputs.detach().numpy(), -exact.per_nm * gradient
        found, (forces,) = staged.values(read, cell), staged.forces(slope[None])
        assert forces.dtype == read.dtype
        of_values = max(of_values, float(np.abs(found - right).max() / max(1.0, np.abs(right).max())))
        of_forces = max(of_forces, float((forces - right_forces).abs().max() / right_forces.abs().max()))
    return staged, of_values, of_forces


def check(cv: LearnedCV, box: np.ndarray | None = None) -> Evaluation:
    staged, of_values, of_forces = deviations(cv, box)
    assert of_values < TOLERANCE and of_forces < TOLERANCE
    return staged


@pytest.mark.parametrize("mixer", list(Mixer), ids=lambda mixer: mixer.value)
def test_values_and_forces_are_those_of_every_mixer(mixer: Mixer) -> None:
    staged = check(cv_with({"mixer": mixer}))
    near_in_space = mixer in (Mixer.SUBGVP, Mixer.SUBFORMER_GVP, Mixer.SUBMIXER_GVP)
    assert isinstance(staged, StagedEvaluation if near_in_space else CompiledEvaluation)


@pytest.mark.parametrize(
    "network",
    [
        {"mixer": "mlp", "global_token": True, "merging": "equivariant", "window": 2},
        {"mixer": "subformer", "merging": "scalar", "window": 2, "pooling": "token"},
        {"mixer": "mlp", "pooling": "flatten", "softmax": True, "head_layers": 3},
        {"mixer": "equivariant-attention", "local_attention": "chiral", "chains": (0, 0, 0, 1, 1, 1)},
        {"mixer": "mlp", "graph_convolution": GraphConvolution.CHIRAL},
        {"mixer": "mlp", "chiral": True},
    ],
    ids=["merged", "own token", "softmax", "chiral", "convolution", "mirror"],
)
def test_values_and_forces_are_those_of_other_networks(network: dict[str, Any]) -> None:
    check(cv_with(network))


@pytest.mark.parametrize(
    ("architecture", "rule"),
    [*((one, NeighborRule.FADING) for one in Architecture), (Architecture.TORCHMD_ET, NeighborRule.FULL)],
)
def test_values_and_forces_are_those_of_every_encoder(architecture: Architecture, rule: NeighborRule) -> None:
    # Of twelve atoms, where there is room for six, the reach is less than the cutoff.
    staged = check(cv_with(encoder={"architecture": architecture, "neighbor_rule": rule, "max_neighbors": 6}))
    compiled = architecture is Architecture.TORCHMD_ET
    assert isinstance(staged, CompiledEvaluation if compiled else StagedEvaluation)


@pytest.mark.parametrize("context", [{}, {"context": "window", "window": 1}], ids=["whole", "windows"])
@pytest.mark.parametrize("box", BOXES)
def test_values_and_forces_are_those_in_every_box(box: str, context: dict[str, Any]) -> None:
    staged = check(cv_with(**context), BOXES[box])
    assert staged.served == (box != "narrow")  # where an atom sees images, autograd does the step


def test_stages_are_the_same_as_both_operators_together() -> None:
    module = CVModule(cv_with(), SYSTEM.topology).eval()
    network = module.encoder.network
    assert isinstance(network, TorchMDET)
    tail = ArrayProgram(module.outputs, [torch.ones(12, 16), torch.ones(12, 3, 16), torch.rand(12, 3)])
    staged = StagedEvaluation(module, (0, 1, 2), AttentionStage(network, module.numbers), tail)
    together = cv_evaluation(module, (0, 1, 2), CPU)
    read, slopes = torch.from_numpy(SYSTEM.positions), np.array([[1.0, -0.5, 2.0], [0.0, 1.0, 0.0]])
    np.testing.assert_array_equal(staged.values(read, None), together.values(read, None))
    np.testing.assert_array_equal(staged.forces(slopes), together.forces(slopes))
    for row, forces in zip(slopes, together.forces(slopes), strict=True):  # again, and each alone
        np.testing.assert_array_equal(together.forces(row[None])[0], forces)


def test_other_rules_and_precisions_are_left_to_autograd() -> None:
    nearest = cv_with(encoder={"neighbor_rule": "nearest"})
    assert isinstance(cv_evaluation(CVModule(nearest, SYSTEM.topology).eval(), (0,), CPU), AutogradEvaluation)
    exact = CVModule(cv_with(), SYSTEM.topology, torch.float64).eval()
    assert isinstance(cv_evaluation(exact, (0,), CPU), AutogradEvaluation)
