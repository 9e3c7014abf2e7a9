"""What PyTorch's compilers are told of every operator, shapes, dtypes and changed arguments, is what it does."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from exported_forces import example
from small_encoders import small_encoder
from torch.utils._python_dispatch import TorchDispatchMode

import openmm_gnn.kernels.operators  # noqa: F401
from openmm_gnn.base.specs.encoder import Architecture, NeighborRule
from openmm_gnn.features.learned_cv import LearnedCV
from openmm_gnn.forces.modules.cv_evaluation import CompiledEvaluation, cv_evaluation
from openmm_gnn.forces.modules.cv_module import CVModule
from openmm_gnn.forces.modules.exports import eager_module
from openmm_gnn.forces.modules.openmm_module import OpenMMModule
from openmm_gnn.kernels.encoder_messages import activated_table
from openmm_gnn.networks.force_model import ForceModel

KNOWN = torch._C._dispatch_get_all_op_names()
OPERATORS = sorted(name.removeprefix("openmm_gnn::") for name in KNOWN if name.startswith("openmm_gnn::"))


class Recorder(TorchDispatchMode):
    """Keeps the first arguments of every operator of ours that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, tuple[Any, ...]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "openmm_gnn":
            kept = tuple(one.detach().clone() if isinstance(one, torch.Tensor) else one for one in args)
            self.calls.setdefault(func._schema.name.removeprefix("openmm_gnn::"), kept)
        return func(*args, **(kwargs or {}))


def encoders() -> None:
    """Edges of each kind and messages of each network, forth, and back as in training."""
    numbers, positions = torch.tensor([6, 7, 8, 6, 7]), torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    for architecture in Architecture:
        encoder = small_encoder(architecture, neighbor_rule=NeighborRule.NEAREST)
        with torch.no_grad():
            encoder(numbers, positions)
        if architecture is not Architecture.VISNET:
            trained = encoder.requires_grad_(True).train()
            trained(numbers, positions)[0].square().sum().backward()
    rows, bias = torch.ones(4, 2, 16, requires_grad=True), torch.ones(16, requires_grad=True)
    activated_table(rows, bias).sum().backward()


def learned_cv() -> None:
    """A whole CV, and its stages."""
    cv, start = example("cv-alanine-dipeptide").network, example("cv-alanine-dipeptide").start
    assert isinstance(cv, LearnedCV)
    module = CVModule(cv, start.topology).eval()
    evaluation = cv_evaluation(module, (0, 1), torch.device("cpu"))
    assert isinstance(evaluation, CompiledEvaluation)
    read = torch.from_numpy(start.positions)[module.read_atoms]
    evaluation.values(read, None)
    evaluation.forces(torch.eye(2).double().numpy())
    edges = evaluation._search.edges(read, None)
    assert edges is not None
    evaluation._search.forces(edges, torch.ones_like(edges.vectors), edges.distances, edges.centred)


@cache
def calls() -> dict[str, tuple[Any, ...]]:
    """Arguments of every operator that the CPU has, as networks give them."""
    with Recorder() as recorder:
        encoders()
        learned_cv()
        for name in ("gamd-tip3p", *(f"energy-{architecture.value}" for architecture in Architecture)):
            one = example(name)
            box = one.start.box_vectors
            inputs = torch.from_numpy(one.start.positions), None if box is None else torch.from_numpy(box)
            eager_module(one.network, one.start.topology)(*inputs)
            assert isinstance(one.network, ForceModel)
            OpenMMModule(one.network, one.start.topology)(*inputs)
    return recorder.calls


@pytest.mark.parametrize("name", OPERATORS)
def test_the_compilers_know_what_an_operator_returns_and_changes(name: str) -> None:
    operator = getattr(torch.ops.openmm_gnn, name).default
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"openmm_gnn::{name}", "CPU"):
        assert torch._library.simple_registry.singleton.find(f"openmm_gnn::{name}").fake_impl.kernel is not None
        pytest.skip("the CPU has no such operator: that it has a shape is all that can be said here")
    torch.library.opcheck(operator, calls()[name], test_utils=["test_schema", "test_faketensor"])
