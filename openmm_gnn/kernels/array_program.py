"""A function of small arrays and its vector-Jacobian product, recorded once and run by one compiled operator.

An operation of PyTorch takes some microseconds however little there is to do, its gradient twice that, and a network on
a few tokens is a hundred of them. So the operations that one evaluation makes, forth and back, are written down as a
program (csrc/programs): memory for every array, and instructions that read and write it. Views cost nothing, they are
strides. What does not depend on the inputs is computed once.

The function must do the same operations whatever the numbers, on the CPU and in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import openmm_gnn.kernels.library  # noqa: F401  (loads the operators)
from openmm_gnn.kernels.array_operations import SAME_FOR_ALL, WRITERS
from openmm_gnn.kernels.array_recorder import NotRecordable, RecordedArray, Recorder

_ROUNDING = 1e-2
"""Share of the largest number: what float32 leaves of a network's norms, and far below what a wrong operation gives."""


class ArrayProgram:
    """A program of a function and of its vector-Jacobian product."""

    def __init__(self, function: Callable[..., Tensor], examples: Sequence[Tensor]) -> None:
        """
        Args:
            function: tensors -> one tensor (K,), differentiable.
            examples: float32 inputs, of the shapes of all later ones.
        Raises:
            NotRecordable: if it has no program, or one that does not give what PyTorch gives for the examples.
        """
        recorder = Recorder(WRITERS, SAME_FOR_ALL)
        inputs = [example.detach().clone().contiguous().requires_grad_() for example in examples]
        with torch.inference_mode(False), torch.enable_grad():
            given = [recorder.variable(one) for one in inputs]
            with recorder, sdpa_kernel(SDPBackend.MATH):
                outputs = function(*inputs)
                recorder.hold(outputs)
                turn = len(recorder.instructions)
                direction = torch.ones(outputs.shape, dtype=torch.float32)
                along = recorder.variable(direction)
                # Of a sum: given a direction as an argument, PyTorch imports SymPy.
                found = torch.autograd.grad([(outputs * direction).sum()], inputs, allow_unused=True)
                gradients = [None if one is None else one.contiguous() for one in found]
        results = [outputs, *(one for one in gradients if one is not None)]
        arrays = [recorder.array_of(one) for one in results]
        kept = [*given, along, *arrays]
        memory_size = recorder.place(kept, turn)
        self.memory = torch.zeros(memory_size)
        recorder.write_constants(self.memory)
        numbers, starts = recorder.program()
        self.program = torch.tensor(numbers, dtype=torch.int64)
        self._turn, self._end = starts[turn], starts[-1]
        self._inputs = [self._view(array, one) for array, one in zip(given, inputs, strict=True)]
        self._direction = self._view(along, direction)
        views = [self._view(array, one) for array, one in zip(arrays, results, strict=True)]
        self._outputs = views[0]
        left = iter(views[1:])
        self._gradients: list[Tensor | None] = [None if one is None else next(left) for one in gradients]
        again = [self.forward(*examples), *self.backward(torch.ones(outputs.shape))]
        for right, found_again in zip([outputs.detach(), *gradients], again, strict=True):
            if right is None or found_again is None:
                continue
            if not bool((right - found_again).abs().max() <= _ROUNDING * right.abs().max()):
                raise NotRecordable("its program does not compute what PyTorch does")

    def _view(self, array: RecordedArray, tensor: Tensor) -> Tensor:
        return self.memory.as_strided(tensor.shape, tensor.stride(), array.offset + tensor.storage_offset())

    def places(self) -> list[int]:
        """Where the memory has inputs, outputs, their number, the gradient by them, those by the inputs, or -1.

        Behind these stand the ends of the program's parts forth and back.

        Raises:
            NotRecordable: if what comes out does not stand in one piece.
        """
        outside = [*self._inputs, self._outputs, self._direction, *self._gradients]
        if not all(one is None or one.is_contiguous() for one in outside):
            raise NotRecordable("a result is in pieces")
        at = [-1 if one is None else int(one.storage_offset()) for one in outside]
        turn = len(self._inputs) + 1
        return [*at[:turn], self._outputs.numel(), *at[turn:], self._turn, self._end]

    def forward(self, *inputs: Tensor) -> Tensor:
        """The function's value, which is overwritten by the next call."""
        for place, given in zip(self._inputs, inputs, strict=True):
            place.copy_(given)
        torch.ops.openmm_gnn.run_array_program(self.program, self.memory, 0, self._turn)
        return self._outputs

    def backward(self, *directions: Tensor) -> list[Tensor | None]:
        """Gradients by the inputs of the last `forward`, None where there is none; the next call overwrites them.

        It may be called several times.

        Args:
            directions: one, (K,), the gradient by its value.
        """
        (direction,) = directions
        self._direction.copy_(direction)
        torch.ops.openmm_gnn.run_array_program(self.program, self.memory, self._turn, self._end)
        return self._gradients


@torch.library.register_fake("openmm_gnn::run_array_program")
def _run_array_program_fake(program: Tensor, memory: Tensor, begin: int, end: int) -> None:
    return None
