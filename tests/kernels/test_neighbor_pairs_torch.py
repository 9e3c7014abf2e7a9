"""The operator as PyTorch sees it: derivatives, TorchScript, torch.compile, torch.export, instruction sets."""

from __future__ import annotations

import io
import os

import pytest
import torch
from torch import Tensor, nn
from warm_python import run_python

from openmm_gnn.kernels import neighbor_pairs

BOX = torch.tensor([[1.1, 0.0, 0.0], [0.4, 1.0, 0.0], [-0.3, 0.2, 1.2]], dtype=torch.float64)


def energy(positions: Tensor, box: Tensor | None, full: bool) -> Tensor:
    """Smooth in the distances and zero at the cutoff, so that derivatives exist."""
    _, vectors, distances = neighbor_pairs(positions, 0.9, box, full)
    weight = (1.0 - distances / 0.9) ** 4
    return (weight * torch.sin(vectors * torch.tensor([1.0, 2.0, 3.0], dtype=vectors.dtype)).sum(1)).sum()


@pytest.mark.parametrize("full", [True, False])
def test_first_and_second_derivatives_in_positions_and_box(full: bool) -> None:
    positions = (torch.rand((6, 3), dtype=torch.float64) * 2 @ BOX).requires_grad_()
    box = BOX.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, h: energy(x, h, full), (positions, box))
    assert torch.autograd.gradgradcheck(lambda x, h: energy(x, h, full), (positions, box))


def test_derivatives_without_a_box() -> None:
    positions = torch.rand((8, 3), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: energy(x, None, True), (positions,))
    assert torch.autograd.gradgradcheck(lambda x: energy(x, None, True), (positions,))


def test_distance_of_coincident_atoms_has_zero_first_and_second_derivative() -> None:
    positions = torch.tensor([[0.0, 0, 0], [0, 0, 0], [0.3, 0, 0]], dtype=torch.float64, requires_grad=True)
    _, _, distances = neighbor_pairs(positions, 0.2)
    assert distances.tolist() == [0.0, 0.0]
    (first,) = torch.autograd.grad((distances**3 + distances).sum(), positions, create_graph=True)
    assert bool((first == 0).all())
    (second,) = torch.autograd.grad(first.sum(), positions)
    assert bool((second == 0).all())


def test_fused_and_differentiable_results_agree() -> None:
    positions = torch.rand((80, 3)) * 4 @ BOX.float()
    fused = neighbor_pairs(positions, 0.7, BOX.float())
    traced = neighbor_pairs(positions.clone().requires_grad_(), 0.7, BOX.float())
    assert torch.equal(fused[0], traced[0])
    assert traced[1].requires_grad and traced[2].requires_grad and not fused[1].requires_grad
    torch.testing.assert_close(fused[1], traced[1].detach(), rtol=0, atol=3e-6)
    torch.testing.assert_close(fused[2], traced[2].detach(), rtol=0, atol=3e-6)


class PairSum(nn.Module):
    """A model as small as can be."""

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        pairs, vectors, distances = neighbor_pairs(positions, 0.7, box)
        return torch.zeros_like(positions).index_add(0, pairs[0], vectors * distances[:, None])


def test_torchscript_gives_the_same_before_and_after_a_file() -> None:
    positions = torch.rand((40, 3), dtype=torch.float64)
    expected = PairSum()(positions, BOX)
    scripted = torch.jit.script(PairSum())
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)
    buffer.seek(0)
    frozen = torch.jit.freeze(torch.jit.load(buffer).eval())
    for module in (scripted, frozen):
        for _ in range(3):  # the executor optimises after the first calls
            torch.testing.assert_close(module(positions, BOX), expected)
            moved = positions.clone().requires_grad_()
            module(moved, BOX).square().sum().backward()
            reference = positions.clone().requires_grad_()
            PairSum()(reference, BOX).square().sum().backward()
            torch.testing.assert_close(moved.grad, reference.grad)


@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)
def test_torch_compile_takes_the_whole_graph_and_its_gradient() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(PairSum(), fullgraph=True, backend="aot_eager", dynamic=True)
    for num_atoms in (40, 25):
        positions = torch.rand((num_atoms, 3), dtype=torch.float64)
        torch.testing.assert_close(compiled(positions, BOX), PairSum()(positions, BOX))
        moved, reference = positions.clone().requires_grad_(), positions.clone().requires_grad_()
        compiled(moved, BOX).square().sum().backward()
        PairSum()(reference, BOX).square().sum().backward()
        torch.testing.assert_close(moved.grad, reference.grad)


@pytest.mark.slow
@torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)
def test_torch_compile_with_the_default_backend() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(PairSum(), fullgraph=True, dynamic=True)
    positions = torch.rand((40, 3), dtype=torch.float64)
    torch.testing.assert_close(compiled(positions, BOX), PairSum()(positions, BOX))


def test_torch_export_serves_any_number_of_atoms() -> None:
    atoms = torch.export.Dim("atoms", min=2, max=100_000)
    program = torch.export.export(
        PairSum(), (torch.rand((40, 3), dtype=torch.float64), BOX), dynamic_shapes=({0: atoms}, None)
    )
    for num_atoms in (40, 17):
        positions = torch.rand((num_atoms, 3), dtype=torch.float64)
        torch.testing.assert_close(program.module()(positions, BOX), PairSum()(positions, BOX))


def test_operator_passes_torchs_own_checks() -> None:
    arguments = (torch.rand((20, 3)), BOX.float(), 0.5, True, True, 1)
    torch.library.opcheck(
        torch.ops.openmm_gnn.neighbor_pairs.default, arguments, test_utils=("test_schema", "test_faketensor")
    )


INSTRUCTION_SET_SCRIPT = """
import hashlib, torch
from openmm_gnn.graph.neighbor_list import NeighborList
digest = hashlib.sha256()
for dtype in (torch.float32, torch.float64):
    generator = torch.Generator().manual_seed(3)
    for num_atoms in (1, 5, 33, 400):
        box = (torch.eye(3) * 1.5 + 0.3 * torch.randn((3, 3), generator=generator)).to(dtype)
        positions = (torch.rand((num_atoms, 3), generator=generator) * 6 - 3).to(dtype)
        for full in (True, False):
            for geometry in (True, False):
                for open_boundary in (True, False):
                    for result in torch.ops.openmm_gnn.neighbor_pairs(
                        positions, box[:0] if open_boundary else box, 0.5, full, geometry, 1
                    ):
                        digest.update(result.numpy().tobytes())
            neighbors = NeighborList(0.4, 0.1, max_neighbors=500, full=full)
            for _ in range(3):
                for result in neighbors(positions, box):
                    digest.update(result.numpy().tobytes())
                positions = positions + 0.01
print(digest.hexdigest())
"""


def test_all_instruction_sets_give_the_same_bits() -> None:
    digests = set()
    for name in ("portable", "avx2", "avx512"):
        run = run_python("-c", INSTRUCTION_SET_SCRIPT, env={**os.environ, "OPENMM_GNN_CPU": name})
        assert run.returncode == 0, run.stderr
        digests.add(run.stdout.strip())
    assert len(digests) == 1
