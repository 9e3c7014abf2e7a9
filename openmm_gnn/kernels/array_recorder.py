"""What PyTorch computes, written down as instructions on arrays in one memory; kernels/array_program.py runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, auto
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class NotRecordable(Exception):
    """A function has no program: it makes an operation that has no instruction, or asks for numbers."""


class Operation(IntEnum):
    """Operations of instructions, in the order of `ArrayOperation` in csrc/programs/cpu/array_program.h."""

    COPY = 0
    ADD = auto()
    MULTIPLY = auto()
    DIVIDE = auto()
    LARGER = auto()
    SMALLER = auto()
    SQUARE_ROOT = auto()
    POWER = auto()
    EXPONENTIAL = auto()
    SIGMOID = auto()
    SIGMOID_BACK = auto()
    SILU = auto()
    SILU_BACK = auto()
    GELU = auto()
    GELU_BACK = auto()
    THRESHOLD_BACK = auto()
    WHERE = auto()
    EQUAL = auto()
    LESS = auto()
    SUM = auto()
    PRODUCT = auto()
    NORMALIZE = auto()
    NORMALIZE_BACK = auto()
    SOFTMAX = auto()
    SOFTMAX_BACK = auto()
    TAKE_ROWS = auto()
    ADD_ROWS = auto()


_BY_PLACE = range(Operation.COPY, Operation.LESS + 1)
_MOST_DIMENSIONS = 6


@dataclass
class RecordedArray:
    """Memory of one storage, in numbers."""

    size: int
    values: Tensor | None = None
    """(size,) of a constant; None of what is computed."""
    offset: int = -1
    first: int = -1
    """Instruction that first writes it."""
    last: int = -1


@dataclass
class Instruction:
    operation: Operation
    operands: list[tuple[RecordedArray, Tensor]]
    """The result first; the tensors say offset and strides, all have one number of dimensions."""
    sizes: list[int]
    rows: list[int] = field(default_factory=list)


class Recorder(TorchDispatchMode):
    """Writes down what PyTorch computes from variables."""

    def __init__(self, writers: Mapping[str, Callable[..., None]], same_for_all: frozenset[str]) -> None:
        """
        Args:
            writers: by names of PyTorch's operations, what writes their instructions.
            same_for_all: names of operations whose results do not depend on the numbers of what comes in.
        """
        super().__init__()
        self._writers, self._same_for_all = writers, same_for_all
        self.instructions: list[Instruction] = []
        self._arrays: dict[int, RecordedArray] = {}
        self._alive: list[Any] = []
        """Whatever has been seen: storages are known by their addresses, which must not be used again."""
        self._packed: dict[tuple[Any, ...], tuple[RecordedArray, Tensor]] = {}

    # ---- arrays ------------------------------------------------------------------------------------------------------

    def hold(self, tensor: Any) -> None:
        """Keep a tensor until the recording ends."""
        self._alive.append(tensor)

    def variable(self, tensor: Tensor) -> RecordedArray:
        """The array of a tensor whose numbers change from run to run."""
        self.hold(tensor)
        array = RecordedArray(tensor.untyped_storage().nbytes() // tensor.element_size())
        self._arrays[tensor.untyped_storage().data_ptr()] = array
        return array

    def depends(self, tensor: Tensor) -> bool:
        """Whether a tensor's numbers change from run to run."""
        array = self._arrays.get(tensor.untyped_storage().data_ptr())
        return array is not None and array.values is None

    def array_of(self, tensor: Tensor) -> RecordedArray:
        """The array of a tensor, a constant if it is not known."""
        address = tensor.untyped_storage().data_ptr()
        if address not in self._arrays:
            self.hold(tensor)
            flat = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
            self._arrays[address] = RecordedArray(flat.numel(), flat.detach().to(torch.float32))
        return self._arrays[address]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # otherwise PyTorch imports its compiler, seconds, so as not to compile what nobody compiles

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.hold((args, kwargs, result))
        tensors = [one for one in _flat([*args, *kwargs.values()]) if isinstance(one, Tensor)]
        if not any(self.depends(one) for one in tensors) or func.name().partition(".")[0] in self._same_for_all:
            return result
        results = [one for one in _flat([result]) if isinstance(one, Tensor)]
        if not results or func._schema.is_mutable or not all(one.numel() for one in results):
            raise NotRecordable(f"{func} asks for numbers, changes a tensor, or finds none")
        known = {one.untyped_storage().data_ptr() for one in tensors}
        if all(one.untyped_storage().data_ptr() in known for one in results):
            return result  # a view
        write = self._writers.get(func.name().removeprefix("aten::").removesuffix(".default"))
        if write is None or any(one.dtype not in (torch.float32, torch.bool) for one in results):
            raise NotRecordable(f"{func} of {[one.dtype for one in results]} has no instruction")
        for one in results:
            self.variable(one)
        try:
            write(self, result, *args, **kwargs)
        except (TypeError, AssertionError) as error:
            raise NotRecordable(f"{func} in this form has no instruction: {error}") from error
        return result

    # ---- instructions ------------------------------------------------------------------------------------------------

    def write(self, operation: Operation, to: Tensor, *operands: Tensor | float, rows: Sequence[int] = ()) -> None:
        """Write an instruction whose operands have the shape of the result, or are repeated to it."""
        if to.numel() == 0:
            return
        tensors = [to, *(self.repeated(one, to.shape) for one in operands)]
        self.write_as(operation, list(to.shape), tensors, rows)

    def write_as(
        self, operation: Operation, sizes: Sequence[int], tensors: Sequence[Tensor], rows: Sequence[int] = ()
    ) -> None:
        """Write an instruction with operands whose strides are as given."""
        if len(sizes) > _MOST_DIMENSIONS:
            raise NotRecordable(f"{len(sizes)} dimensions")
        found = [(self.array_of(one), one) for one in tensors]
        number = len(self.instructions)
        for array, _ in found:
            array.first = number if array.first < 0 else array.first
            array.last = number
        self.instructions.append(Instruction(operation, found, list(sizes), list(rows)))

    def repeated(self, operand: Tensor | float, shape: torch.Size) -> Tensor:
        """A tensor with strides for this shape; a number as a constant."""
        if not isinstance(operand, Tensor):
            operand = self.number(float(operand))
        return operand.detach().expand(shape)

    def number(self, value: float) -> Tensor:
        """A constant of one number."""
        made = torch.tensor(value, dtype=torch.float32)
        self.hold(made)
        return made

    def new(self, shape: Sequence[int]) -> Tensor:
        """A tensor for a result in between."""
        made = torch.empty(list(shape))
        self.variable(made)
        return made

    def matrix(self, tensor: Tensor) -> Tensor:
        """(B, k, n) as the product takes it without a copy, if it is constant."""
        if self.depends(tensor):
            return tensor
        address = tensor.untyped_storage().data_ptr()
        key = (address, tensor.storage_offset(), tensor.shape, tensor.stride())
        if key not in self._packed:
            columns = -(-tensor.shape[2] // 16) * 16
            made = torch.zeros((*tensor.shape[:2], columns))
            made[:, :, : tensor.shape[2]] = tensor.detach()
            self._packed[key] = (self.array_of(made), made[:, :, : tensor.shape[2]])
        return self._packed[key][1]

    # ---- memory ------------------------------------------------------------------------------------------------------

    def place(self, kept: Sequence[RecordedArray], turn: int) -> int:
        """Give every array its place: constants and what is kept for good, the others while they are needed.

        Args:
            turn: number of the first instruction of the way back; what it reads of the way forth is kept for good, so
                that it can be run again.
        """
        used = {id(one): one for line in self.instructions for one, _ in line.operands}
        used |= {id(one): one for one in kept}
        end = 0
        for array in used.values():
            if array.values is not None or any(array is one for one in kept):
                array.offset, end = end, end + _rounded(array.size)
        free: list[tuple[int, int]] = []  # size, offset
        ends: dict[int, list[RecordedArray]] = {}
        for number, line in enumerate(self.instructions):
            for array, _ in line.operands:
                if array.offset >= 0:
                    continue
                size = _rounded(array.size)
                fits = min((one for one in free if one[0] >= size), default=None)
                if fits is None:
                    array.offset, end = end, end + size
                else:
                    free.remove(fits)
                    array.offset = fits[1]
                    if fits[0] > size:
                        free.append((fits[0] - size, fits[1] + size))
                ends.setdefault(array.last, []).append(array)
            ended = [one for one in ends.pop(number, []) if not one.first < turn <= one.last]
            free += [(_rounded(array.size), array.offset) for array in ended]
        return max(end, 1)

    def write_constants(self, memory: Tensor) -> None:
        """Write the constants into the memory."""
        for line in self.instructions:
            for array, _ in line.operands:
                if array.values is not None:
                    memory[array.offset : array.offset + array.size] = array.values
        for array in self._arrays.values():
            if array.values is not None and array.offset >= 0:
                memory[array.offset : array.offset + array.size] = array.values

    def program(self) -> tuple[list[int], list[int]]:
        """The integers of all instructions, and where each begins, the end last."""
        numbers: list[int] = []
        starts = [0]
        for line in self.instructions:
            strides = [list(tensor.stride()) for _, tensor in line.operands]
            sizes: list[int] = [int(size) for size in line.sizes]
            if line.operation in _BY_PLACE or line.operation == Operation.SUM:
                sizes, strides = _joined(sizes, strides)
            body = [*sizes]
            for (array, tensor), steps in zip(line.operands, strides, strict=True):
                body += [array.offset + int(tensor.storage_offset()), *steps]
            body += line.rows
            numbers += [int(line.operation), 4 + len(body), len(sizes), len(line.operands), *body]
            starts.append(len(numbers))
        return numbers, starts


def _rounded(size: int) -> int:
    return -(-max(size, 1) // 16) * 16


def _flat(values: Sequence[Any]) -> list[Any]:
    return [leaf for one in values for leaf in (_flat(one) if isinstance(one, list | tuple) else [one])]


def _joined(sizes: list[int], strides: list[list[int]]) -> tuple[list[int], list[list[int]]]:
    """The same places with as few dimensions as possible, at least one."""
    kept = [d for d, size in enumerate(sizes) if size != 1]
    new_sizes: list[int] = []
    new_strides: list[list[int]] = [[] for _ in strides]
    for d in kept:
        joins = bool(new_sizes) and all(
            own[-1] == given[d] * sizes[d] for own, given in zip(new_strides, strides, strict=True)
        )
        if joins:
            new_sizes[-1] *= sizes[d]
        else:
            new_sizes.append(sizes[d])
        for own, given in zip(new_strides, strides, strict=True):
            if joins:
                own[-1] = given[d]
            else:
                own.append(given[d])
    return (new_sizes, new_strides) if new_sizes else ([1], [[0] for _ in strides])
