"""A function with gradients inside as one graph of operators, in which the way back is written out.

The gradients of our operators are registered in Python. A module that asks for one therefore computes only where Python
runs and has imported them. So what is exported is traced: PyTorch runs the function once, on tensors without numbers,
and writes down every operator of the way forth and back. What is left calls operators alone, such as
`vector_messages_backward`, which any program has that loads the library. Sizes that depend on positions, such as the
number of pairs, stay open; the number of atoms is fixed, and so is the device, the CPU.
"""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import openmm_gnn.kernels.operators  # noqa: F401  (shapes and gradients)

OPEN_SIZE = 10007
"""Size of an example whose size stays open: a prime, which no other size of a network is or contains."""


def written_out(function: Callable[..., Any], examples: Sequence[Tensor]) -> torch.fx.GraphModule:
    """The graph of a function of tensors, gradients included.

    Args:
        function: tensors -> tensors; it may call `torch.autograd.grad`. It decides by no number of a tensor.
        examples: tensors of the shapes that it is called with; sizes of OPEN_SIZE are open.
    Raises:
        ValueError: if the graph depends on a size that should stay open.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # imports SymPy, seconds

    traced: torch.fx.GraphModule = make_fx(function, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*examples)
    for node in list(traced.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target is torch.ops.aten.detach.default:  # nothing is recorded in the graph
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)
        elif _is_ours(node.target):
            node.args = tuple(
                0 if argument.name == "num_threads" else given  # the operator asks the system
                for argument, given in zip(node.target._schema.arguments, node.args, strict=True)
            )
    for name, weight in list(traced.named_parameters()):  # programs would record gradients of parameters
        delattr(traced, name)
        traced.register_buffer(name, weight.detach())
    traced.graph.eliminate_dead_code()
    fixed = [node.name for node in traced.graph.nodes if OPEN_SIZE in _numbers(node.args) + _numbers(node.kwargs)]
    if fixed:
        raise ValueError(f"the size of an example is written into {fixed}: the graph would serve no other size")
    traced.recompile()
    return traced


def scripted(graph: torch.fx.GraphModule) -> torch.jit.ScriptModule:
    """A graph of `written_out` as TorchScript."""
    graph = torch.fx.GraphModule(graph, copy.deepcopy(graph.graph))  # the same weights
    for node in list(graph.graph.nodes):
        if node.target is torch.ops.aten.addmm.default and not node.kwargs:
            _without_addmm(graph.graph, node)
        elif isinstance(node.target, torch._ops.OpOverload):
            node.target = node.target.overloadpacket  # TorchScript finds the overload by the arguments
    graph.recompile()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The TorchScript type system")  # of a list that a graph keeps
        return torch.jit.script(graph)


def _without_addmm(graph: torch.fx.Graph, node: torch.fx.Node) -> None:
    """x w + b in two operators: of `addmm` TorchScript's executor takes the wrong shape once a module is frozen."""
    bias, *factors = node.args
    with graph.inserting_before(node):
        product = graph.call_function(torch.ops.aten.mm, tuple(factors))
        node.replace_all_uses_with(graph.call_function(torch.ops.aten.add, (product, bias)))
    graph.erase_node(node)


def operators_of(graph: torch.fx.GraphModule) -> list[str]:
    """Names of our operators that a graph calls, in alphabetical order."""
    names = {node.target._schema.name for node in graph.graph.nodes if _is_ours(node.target)}
    return sorted(name.removeprefix("openmm_gnn::") for name in names)


def _is_ours(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and target.namespace == "openmm_gnn"


def _numbers(values: Any) -> list[int]:
    if isinstance(values, int):
        return [operator.index(values)]
    if isinstance(values, dict):
        values = values.values()
    return [number for one in values for number in _numbers(one)] if isinstance(values, tuple | list) else []
