"""Recorded programs against the function that was recorded, and against autograd."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from rounding import rounding_of_sum
from torch import Tensor
from torch.nn import functional

from openmm_gnn.kernels.array_operations import WRITERS
from openmm_gnn.kernels.array_program import ArrayProgram
from openmm_gnn.kernels.array_recorder import NotRecordable

SHAPES = ((3, 4, 20), (4, 20))
WEIGHT = torch.randn(7, 20, generator=torch.Generator().manual_seed(1))
ROWS = torch.tensor([2, 0, 2])
FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "numbers": lambda a, b: 2 - a * 3 + b / 4 - a / (b.square() + 1) + 1 / (1 + b**2) - (-a) ** 3,
    "roots": lambda a, b: torch.rsqrt(a.square() + 1) * torch.sqrt(b.square() + 0.5) + (a.square() + 2) ** 0.25,
    "activations": lambda a, b: functional.silu(a) + functional.gelu(b) + torch.sigmoid(a) * torch.relu(b),
    "exponentials": lambda a, b: torch.exp(-a.square()) * torch.softmax(b, dim=0) + torch.softmax(a, dim=-1),
    "choices": lambda a, b: (
        torch.where(a > 0.2, a, b) + a.masked_fill(b == b[0, 0], 0.5) + b.clamp(min=-0.5) + b.clamp(max=0.7)
    ),
    "sums": lambda a, b: a.sum(0) * b + a.mean((0, 2)).unsqueeze(1) + b.sum(1, keepdim=True) + a.sum() + b.mean(),
    "linear": lambda a, b: functional.linear(a, WEIGHT, WEIGHT[:, 0]) + functional.linear(b, WEIGHT),
    "products": lambda a, b: a @ b.T + (a @ a.transpose(1, 2)).sum(0) @ (b @ b.T),
    "norms": lambda a, b: (
        functional.layer_norm(a, [20], WEIGHT[0], WEIGHT[1])
        * functional.layer_norm(b.T, [4], WEIGHT[2, :4], WEIGHT[3, :4]).T
    ),
    "parts": lambda a, b: torch.cat([a[:, 1:, ::2], torch.stack([b[1:, :10]] * 3)], dim=1).flatten(0, 1),
    "rows": lambda a, b: a.index_select(0, ROWS) * 2 + torch.zeros(5, 4, 20).index_add(0, ROWS, a)[1:4] * b,
    "crosses": lambda a, b: torch.linalg.cross(a[:, :3], a[:, 1:], dim=1) + functional.pad(b[:3, 2:], [3, -1]),
    "attention": lambda a, b: functional.scaled_dot_product_attention(a[None], b.expand(1, 3, 4, 20), a[None] * 2),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_program_is_the_function_and_its_gradient(kind: str) -> None:
    def flat(first: Tensor, second: Tensor) -> Tensor:
        return FUNCTIONS[kind](first, second).flatten()

    generator = torch.Generator().manual_seed(2)
    program = ArrayProgram(flat, [torch.randn(*shape, generator=generator) for shape in SHAPES])
    for _ in range(2):
        given = [torch.randn(*shape, generator=generator, requires_grad=True) for shape in SHAPES]
        expected = flat(*given)
        direction = torch.randn(expected.shape, generator=generator)
        gradients = torch.autograd.grad(expected, given, direction)
        found = program.forward(*(one.detach() for one in given)).clone()
        # Sums of up to 240 numbers, four operations one behind the other.
        for one, right in ((found, expected.detach()), *zip(program.backward(direction), gradients, strict=True)):
            assert one is not None
            tolerance = 4 * rounding_of_sum(240, float(right.abs().max()))
            torch.testing.assert_close(one, right, rtol=0, atol=tolerance)


def test_gelu_and_its_slope_are_exact_to_the_rounding_of_float32_on_a_grid() -> None:
    """With an error function of its own, which errs by 1e-7 at most."""
    given = torch.cat([torch.linspace(-9.0, 9.0, 40001), torch.tensor([-1e20, -0.0, 0.0, 1e-20, 1e20])])
    program = ArrayProgram(functional.gelu, [torch.zeros_like(given)])
    found = program.forward(given).double()
    (slope,) = program.backward(torch.ones_like(given))
    assert slope is not None
    x = given.double()
    erf, density = torch.erf(x / 2**0.5), torch.exp(-x.square() / 2) / (2 * torch.pi) ** 0.5
    # Of 1 + erf: 1e-7 of erf; 1.2e-7 of its argument z, times z erf'(z) < 0.49; 0.6e-7 of the sum below 2. Then of the
    # product x / 2 (1 + erf) 1.2e-7.
    tolerance = 2.2e-7 * x.abs() / 2 + 1.2e-7 * (x * (1 + erf) / 2).abs()
    assert bool(((found - x * (1 + erf) / 2).abs() <= tolerance).all())
    # Half of 2.2e-7; x density, below 0.25, with 2e-7 of the exponential, 1.8e-7 of products, and of its argument
    # 1.2e-7 x^2 / 2, which makes 0.3e-7 at most; 0.7e-7 of the sum.
    assert float((slope.double() - (1 + erf) / 2 - x * density).abs().max()) <= 3.1e-7
    for wrong in (program.forward(torch.full_like(given, torch.nan)), program.backward(torch.ones_like(given))[0]):
        assert wrong is not None and bool(wrong.isnan().all())


def test_an_input_without_gradient_has_none() -> None:
    program = ArrayProgram(lambda a, b: a.sum((0, 1)) + b[0].detach(), [torch.ones(*shape) for shape in SHAPES])
    program.forward(torch.ones(SHAPES[0]), torch.ones(SHAPES[1]))
    first, second = program.backward(torch.arange(20.0))
    assert second is None and first is not None
    torch.testing.assert_close(first, torch.arange(20.0).expand(SHAPES[0]))


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a[a > 0],
        lambda a, b: a.flatten() * float(b.sum()),
        lambda a, b: a.flatten().sort().values,
        lambda a, b: a.flatten().clone().add_(1.0),
    ],
    ids=["a choice of numbers", "a number", "an unknown operation", "a change in place"],
)
def test_what_is_not_the_same_for_all_numbers_is_refused(function: Callable[..., Tensor]) -> None:
    with pytest.raises(NotRecordable):
        ArrayProgram(function, [torch.randn(*shape) for shape in SHAPES])


def test_a_program_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it would be if an operation of PyTorch came to mean something else."""
    monkeypatch.setitem(WRITERS, "exp", WRITERS["sigmoid"])
    with pytest.raises(NotRecordable, match="does not compute what PyTorch does"):
        ArrayProgram(lambda a, b: torch.exp(a).flatten() + b.sum(), [torch.randn(*shape) for shape in SHAPES])


PRODUCT = [20, 23, 4, 3, 1, 2, 3, 16, 64, 0, 16, 0, 1, 0, 0, 3, 1, 0, 8, 0, 0, 16, 1]
"""(2, 16) at number 64 is (2, 3) at 0 times (3, 16) at 8."""
NORM = [21, 25, 2, 6, 2, 4, 0, 4, 1, 8, 1, 0, 10, 1, 0, 16, 4, 1, 24, 0, 1, 28, 0, 1, 10_000_000]
"""(2, 4) at 0, its means and scales at 8 and 10, from (2, 4) at 16 with gain and bias at 24 and 28."""


@pytest.mark.parametrize(
    ("program", "place", "number"),
    [(PRODUCT, 10, 17), (PRODUCT, 12, 2), (PRODUCT, 18, 85), (NORM, 8, 2), (NORM, 17, 2), (NORM, 20, 3), (NORM, 23, 0)],
    ids=["rows", "columns", "weight", "result", "input", "gain", "bias"],
)
def test_rows_in_pieces_are_refused_where_they_are_read_as_whole_ones(
    program: list[int], place: int, number: int
) -> None:
    """A stride or an offset with which the instruction would leave the memory, or write where it does not say."""
    memory = torch.randn(128, generator=torch.Generator().manual_seed(3))
    torch.ops.openmm_gnn.run_array_program(torch.tensor(program), memory, 0, len(program))
    wrong = [*program[:place], number, *program[place + 1 :]]
    with pytest.raises(RuntimeError, match="rows in pieces|reaches number"):
        torch.ops.openmm_gnn.run_array_program(torch.tensor(wrong), memory, 0, len(wrong))
