"""PyTorch's operations as instructions of array programs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from openmm_gnn.kernels.array_recorder import Operation, Recorder


def _by_place(operation: Operation) -> Callable[..., None]:
    def write(recorder: Recorder, result: Tensor, *arguments: Any, **options: Any) -> None:
        count = {Operation.WHERE: 3, Operation.THRESHOLD_BACK: 3}.get(operation, len(arguments))
        assert not options and count == len(arguments)
        recorder.write(operation, result, *arguments)

    return write


def _add(recorder: Recorder, result: Tensor, first: Any, second: Any, alpha: float = 1) -> None:
    recorder.write(Operation.ADD, result, first, second, alpha)


def _subtract(recorder: Recorder, result: Tensor, first: Any, second: Any, alpha: float = 1) -> None:
    recorder.write(Operation.ADD, result, first, second, -alpha)


def _reversed_subtract(recorder: Recorder, result: Tensor, first: Any, second: Any, alpha: float = 1) -> None:
    recorder.write(Operation.ADD, result, second, first, -alpha)


def _negative(recorder: Recorder, result: Tensor, given: Tensor) -> None:
    recorder.write(Operation.MULTIPLY, result, given, -1.0)


def _reciprocal(recorder: Recorder, result: Tensor, given: Tensor) -> None:
    recorder.write(Operation.DIVIDE, result, 1.0, given)


def _inverse_root(recorder: Recorder, result: Tensor, given: Tensor) -> None:
    root = recorder.new(list(given.shape))
    recorder.write(Operation.SQUARE_ROOT, root, given)
    recorder.write(Operation.DIVIDE, result, 1.0, root)


def _power(recorder: Recorder, result: Tensor, given: Tensor, exponent: float) -> None:
    if exponent == 2:
        recorder.write(Operation.MULTIPLY, result, given, given)
    elif exponent == 1:
        recorder.write(Operation.COPY, result, given)
    else:
        recorder.write(Operation.POWER, result, given, exponent)


def _gelu(recorder: Recorder, result: Tensor, given: Tensor, approximate: str = "none") -> None:
    assert approximate == "none"
    recorder.write(Operation.GELU, result, given)


def _gelu_back(recorder: Recorder, result: Tensor, gradient: Tensor, given: Tensor, approximate: str = "none") -> None:
    assert approximate == "none"
    recorder.write(Operation.GELU_BACK, result, gradient, given)


def _relu(recorder: Recorder, result: Tensor, given: Tensor) -> None:
    recorder.write(Operation.LARGER, result, given, 0.0)


def _clamp(recorder: Recorder, result: Tensor, given: Tensor, low: Any = None, high: Any = None) -> None:
    for operation, limit in ((Operation.LARGER, low), (Operation.SMALLER, high)):
        if limit is not None:
            recorder.write(operation, result, given, limit)
            given = result
    assert given is result


def _masked_fill(recorder: Recorder, result: Tensor, given: Tensor, mask: Tensor, value: Any) -> None:
    recorder.write(Operation.WHERE, result, mask, value, given)


def _greater(recorder: Recorder, result: Tensor, given: Tensor, limit: Any) -> None:
    recorder.write(Operation.LESS, result, limit, given)


def _not_less(recorder: Recorder, result: Tensor, given: Tensor, limit: Any) -> None:
    recorder.write(Operation.LESS, result, given, limit)
    recorder.write(Operation.EQUAL, result, result, 0.0)


def _not_greater(recorder: Recorder, result: Tensor, given: Tensor, limit: Any) -> None:
    recorder.write(Operation.LESS, result, limit, given)
    recorder.write(Operation.EQUAL, result, result, 0.0)


def _logical_not(recorder: Recorder, result: Tensor, given: Tensor) -> None:
    recorder.write(Operation.EQUAL, result, given, 0.0)


def _copy(recorder: Recorder, result: Tensor, given: Tensor, *_: Any, **__: Any) -> None:
    recorder.write(Operation.COPY, result, given)


def _sum(
    recorder: Recorder, result: Tensor, given: Tensor, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> None:
    assert dtype in (None, torch.float32)
    wanted = range(given.dim()) if not dim else [dim] if isinstance(dim, int) else dim
    dims = {one % given.dim() for one in wanted} if given.dim() else set()
    kept = [1 if d in dims else size for d, size in enumerate(given.shape)]
    recorder.write(Operation.COPY, result, 0.0)
    recorder.write_as(
        Operation.SUM, list(given.shape) or [1], _same_rank([result.view(kept).expand(given.shape), given])
    )


def _mean(
    recorder: Recorder, result: Tensor, given: Tensor, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> None:
    _sum(recorder, result, given, dim, keepdim, dtype)
    recorder.write(Operation.DIVIDE, result, result, given.numel() / result.numel())


def _same_rank(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [one.detach() if one.dim() else one.detach().view(1) for one in tensors]


def _product(recorder: Recorder, result: Tensor, first: Tensor, second: Tensor, bias: Tensor | None = None) -> None:
    if result.dim() == 2:
        result, first, second = result.unsqueeze(0), first.unsqueeze(0), second.unsqueeze(0)
    batch, rows, depth = first.shape
    columns = second.shape[2]
    assert result.is_contiguous() and min(batch, rows, depth, columns) > 0
    shape = (batch, rows, depth, columns)
    operands = [
        result.unsqueeze(2).expand(shape),
        first.unsqueeze(3).expand(shape),
        recorder.matrix(second).unsqueeze(1).expand(shape),
    ]
    if bias is not None:
        assert bias.dim() == 1
        operands.append(bias.expand(shape))
    recorder.write_as(Operation.PRODUCT, shape, [one.detach() for one in operands])


def _product_with_bias(
    recorder: Recorder, result: Tensor, bias: Tensor, first: Tensor, second: Tensor, beta: float = 1, alpha: float = 1
) -> None:
    assert beta == alpha == 1
    _product(recorder, result, first, second, bias)


def _whole(recorder: Recorder, tensor: Tensor) -> Tensor:
    """The same numbers one behind the other."""
    if tensor.is_contiguous():
        return tensor
    made = recorder.new(tensor.shape)
    recorder.write(Operation.COPY, made, tensor)
    return made


def _normalize(
    recorder: Recorder, result: Any, given: Tensor, shape: Sequence[int], gain: Tensor, bias: Tensor, epsilon: float
) -> None:
    out, mean, scale = result
    width = math.prod(shape)
    assert gain is not None and bias is not None and out.is_contiguous() and epsilon >= 1e-12
    rows = [one.view(-1, 1).expand(-1, width) for one in (mean, scale)]
    given = _whole(recorder, given).view(-1, width)
    flat = [out.view(-1, width), *rows, given, *(one.view(1, -1).expand(given.shape) for one in (gain, bias))]
    recorder.write_as(Operation.NORMALIZE, given.shape, [one.detach() for one in flat], [round(epsilon * 1e12)])


def _normalize_back(
    recorder: Recorder, result: Any, gradient: Tensor, given: Tensor, shape: Sequence[int], mean: Tensor,
    scale: Tensor, gain: Tensor, bias: Any, wanted: Sequence[bool],
) -> None:  # fmt: skip
    width = math.prod(shape)
    assert list(wanted) == [True, False, False] and result[0].is_contiguous()
    rows = [_whole(recorder, one).view(-1, width) for one in (gradient, given)]
    single = [one.view(-1, 1).expand(-1, width) for one in (mean, scale)]
    flat = [result[0].view(-1, width), *rows, *single, gain.view(1, -1).expand(rows[0].shape)]
    recorder.write_as(Operation.NORMALIZE_BACK, rows[0].shape, [one.detach() for one in flat])


def _softmax(recorder: Recorder, result: Tensor, given: Tensor, dim: int, *_: Any) -> None:
    moved = [one.detach().movedim(dim, -1) for one in (result, given)]
    recorder.write_as(Operation.SOFTMAX, moved[0].shape, moved)


def _softmax_back(recorder: Recorder, result: Tensor, gradient: Tensor, output: Tensor, dim: int, *_: Any) -> None:
    moved = [one.detach().movedim(dim, -1) for one in (result, gradient, output)]
    recorder.write_as(Operation.SOFTMAX_BACK, moved[0].shape, moved)


def _concatenate(recorder: Recorder, result: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> None:
    start = 0
    for one in tensors:
        recorder.write(Operation.COPY, result.narrow(dim, start, one.shape[dim]), one)
        start += one.shape[dim]


def _stack(recorder: Recorder, result: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> None:
    for place, one in enumerate(tensors):
        recorder.write(Operation.COPY, result.select(dim, place), one)


def _slice_back(
    recorder: Recorder, result: Tensor, gradient: Tensor, sizes: Any, dim: int, start: int, end: int, step: int
) -> None:
    recorder.write(Operation.COPY, result, 0.0)
    index = [slice(None)] * (dim % result.dim()) + [slice(start, end, step)]
    recorder.write(Operation.COPY, result[tuple(index)], gradient)


def _select_back(recorder: Recorder, result: Tensor, gradient: Tensor, sizes: Any, dim: int, index: int) -> None:
    recorder.write(Operation.COPY, result, 0.0)
    recorder.write(Operation.COPY, result.select(dim, index), gradient)


def _pad(recorder: Recorder, result: Tensor, given: Tensor, pad: Sequence[int], value: float = 0) -> None:
    recorder.write(Operation.COPY, result, value)
    inner = result
    for place in range(len(pad) // 2):
        dim, before, behind = result.dim() - 1 - place, pad[2 * place], pad[2 * place + 1]
        first = max(-before, 0)  # a negative number of places is cut off
        count = given.shape[dim] - first - max(-behind, 0)
        given, inner = given.narrow(dim, first, count), inner.narrow(dim, max(before, 0), count)
    recorder.write(Operation.COPY, inner, given)


def _take_rows(recorder: Recorder, result: Tensor, given: Tensor, dim: int, index: Tensor) -> None:
    assert not recorder.depends(index)
    moved = [one.detach().movedim(dim, 0) for one in (result, given)]
    if result.numel():
        recorder.write_as(Operation.TAKE_ROWS, moved[0].shape, moved, index.tolist())


def _add_rows(
    recorder: Recorder, result: Tensor, given: Tensor, dim: int, index: Tensor, source: Tensor, alpha: float = 1
) -> None:
    assert not recorder.depends(index) and alpha == 1
    recorder.write(Operation.COPY, result, given)
    moved = [one.detach().movedim(dim, 0) for one in (result, source)]
    if source.numel():
        recorder.write_as(Operation.ADD_ROWS, moved[1].shape, moved, index.tolist())


def _cross(recorder: Recorder, result: Tensor, first: Tensor, second: Tensor, dim: int = -1) -> None:
    for place in range(3):
        one, two = (place + 1) % 3, (place + 2) % 3
        to = result.select(dim, place)
        back = recorder.new(to.shape)
        recorder.write(Operation.MULTIPLY, back, first.select(dim, two), second.select(dim, one))
        recorder.write(Operation.MULTIPLY, to, first.select(dim, one), second.select(dim, two))
        recorder.write(Operation.ADD, to, to, back, -1.0)


SAME_FOR_ALL = frozenset(
    {"aten::zeros_like", "aten::ones_like", "aten::full_like", "aten::new_zeros", "aten::new_ones", "aten::new_full"}
)
"""Operations whose results do not depend on the numbers of what comes in."""

WRITERS: dict[str, Callable[..., None]] = {
    "add.Tensor": _add,
    "add.Scalar": _add,
    "sub.Tensor": _subtract,
    "sub.Scalar": _subtract,
    "rsub.Scalar": _reversed_subtract,
    "mul.Tensor": _by_place(Operation.MULTIPLY),
    "mul.Scalar": _by_place(Operation.MULTIPLY),
    "div.Tensor": _by_place(Operation.DIVIDE),
    "div.Scalar": _by_place(Operation.DIVIDE),
    "neg": _negative,
    "reciprocal": _reciprocal,
    "sqrt": _by_place(Operation.SQUARE_ROOT),
    "rsqrt": _inverse_root,
    "exp": _by_place(Operation.EXPONENTIAL),
    "pow.Tensor_Scalar": _power,
    "sigmoid": _by_place(Operation.SIGMOID),
    "sigmoid_backward": _by_place(Operation.SIGMOID_BACK),
    "silu": _by_place(Operation.SILU),
    "silu_backward": _by_place(Operation.SILU_BACK),
    "gelu": _gelu,
    "gelu_backward": _gelu_back,
    "relu": _relu,
    "threshold_backward": _by_place(Operation.THRESHOLD_BACK),
    "clamp": _clamp,
    "where.self": _by_place(Operation.WHERE),
    "masked_fill.Scalar": _masked_fill,
    "eq.Scalar": _by_place(Operation.EQUAL),
    "eq.Tensor": _by_place(Operation.EQUAL),
    "lt.Scalar": _by_place(Operation.LESS),
    "lt.Tensor": _by_place(Operation.LESS),
    "gt.Scalar": _greater,
    "gt.Tensor": _greater,
    "ge.Scalar": _not_less,
    "ge.Tensor": _not_less,
    "le.Scalar": _not_greater,
    "le.Tensor": _not_greater,
    "logical_not": _logical_not,
    "clone": _copy,
    "_to_copy": _copy,
    "sum": _sum,
    "sum.dim_IntList": _sum,
    "mean": _mean,
    "mean.dim": _mean,
    "mm": _product,
    "bmm": _product,
    "addmm": _product_with_bias,
    "native_layer_norm": _normalize,
    "native_layer_norm_backward": _normalize_back,
    "_softmax": _softmax,
    "_safe_softmax": _softmax,
    "_softmax_backward_data": _softmax_back,
    "cat": _concatenate,
    "stack": _stack,
    "slice_backward": _slice_back,
    "select_backward": _select_back,
    "constant_pad_nd": _pad,
    "index_select": _take_rows,
    "index_add": _add_rows,
    "linalg_cross": _cross,
}
