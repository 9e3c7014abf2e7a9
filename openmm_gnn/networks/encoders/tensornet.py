"""TensorNet: each atom carries 3 x 3 tensors, as multiples of one, antisymmetric and symmetric traceless parts.

A tensor is kept as its nine independent numbers: trace / 3, the axial vector (x, y, z) of the antisymmetric part, and
xx, xy, xz, yy, yz of the symmetric traceless one, (N, 9, H) for H channels.

Source: Simeon and De Fabritiis, "TensorNet: Cartesian tensor representations for efficient learning of molecular
potentials", NeurIPS 2023, arXiv 2306.06482; without charges. As in the published implementation a "norm" is the square
of Frobenius' one.
"""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.kernels.encoder_messages import (
    EdgePlan,
    first_tensors,
    scaled_tensors,
    tensor_messages,
    tensor_products,
    tensor_squares,
)
from openmm_gnn.networks.encoders.equivariant_blocks import EdgeNetwork, Tabulated, sum_over_edges


def pack(tensors: Tensor) -> Tensor:
    """(N, 3, 3, H) -> (N, 9, H), the parts of any tensors."""
    t = tensors
    trace = (t[:, 0, 0] + t[:, 1, 1] + t[:, 2, 2]) / 3.0
    return torch.stack(
        [
            trace,
            0.5 * (t[:, 2, 1] - t[:, 1, 2]),
            0.5 * (t[:, 0, 2] - t[:, 2, 0]),
            0.5 * (t[:, 1, 0] - t[:, 0, 1]),
            t[:, 0, 0] - trace,
            0.5 * (t[:, 0, 1] + t[:, 1, 0]),
            0.5 * (t[:, 0, 2] + t[:, 2, 0]),
            t[:, 1, 1] - trace,
            0.5 * (t[:, 1, 2] + t[:, 2, 1]),
        ],
        dim=1,
    )


def unpack(parts: Tensor) -> Tensor:
    """(N, 9, H) -> (N, 3, 3, H), the sum of the parts."""
    i, ax, ay, az, xx, xy, xz, yy, yz = parts.unbind(1)
    rows = [i + xx, xy - az, xz + ay, xy + az, i + yy, yz - ax, xz - ay, yz + ax, i - xx - yy]
    return torch.stack(rows, dim=1).view(parts.size(0), 3, 3, parts.size(2))


def product(left: Tensor, right: Tensor) -> Tensor:
    """(N, 3, 3, H) matrix products, by channel."""
    total = left[:, :, 0].unsqueeze(2) * right[:, 0].unsqueeze(1)
    total = total + left[:, :, 1].unsqueeze(2) * right[:, 1].unsqueeze(1)
    return total + left[:, :, 2].unsqueeze(2) * right[:, 2].unsqueeze(1)


def squared_norms(parts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squared Frobenius norms (N, H) of the three parts of (N, 9, H)."""
    one = 3.0 * parts[:, 0].square()
    axial = 2.0 * parts[:, 1:4].square().sum(dim=1)
    xx, yy = parts[:, 4], parts[:, 7]
    diagonal = xx.square() + yy.square() + (xx + yy).square()
    return one, axial, diagonal + 2.0 * (parts[:, 5].square() + parts[:, 6].square() + parts[:, 8].square())


def scaled(parts: Tensor) -> Tensor:
    """(N, 9, H) tensors divided by one and the square of their Frobenius norm."""
    one, axial, symmetric = squared_norms(parts)
    return parts / (one + axial + symmetric + 1.0).unsqueeze(1)


def spread(factors: Tensor) -> Tensor:
    """(N, 3 H), one factor for each part -> (N, 9, H), one for each number."""
    one, axial, symmetric = factors.chunk(3, dim=1)
    width = one.size(1)
    return torch.cat(
        [one.unsqueeze(1), axial.unsqueeze(1).expand(-1, 3, width), symmetric.unsqueeze(1).expand(-1, 5, width)], dim=1
    )


class PartwiseLinear(nn.Module):
    """A linear map of the channels for each of the three parts, without bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = nn.Linear(width, width, bias=False)
        self.axial = nn.Linear(width, width, bias=False)
        self.symmetric = nn.Linear(width, width, bias=False)

    def forward(self, parts: Tensor) -> Tensor:
        """(N, 9, H) -> (N, 9, H)."""
        width = parts.size(2)
        one = self.one(parts[:, 0]).unsqueeze(1)
        # As matrices: products of many small ones take three times as long.
        axial = self.axial(parts[:, 1:4].reshape(-1, width)).view(-1, 3, width)
        symmetric = self.symmetric(parts[:, 4:].reshape(-1, width)).view(-1, 5, width)
        return torch.cat([one, axial, symmetric], dim=1)


class TensorEmbedding(Tabulated):
    """The first tensors, of elements and directions to neighbours."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        width = spec.width
        self.elements = nn.Embedding(spec.max_atomic_number + 1, width)
        self.receiver = nn.Linear(width, width)
        self.sender = nn.Linear(width, width, bias=False)
        self.radial = nn.Linear(spec.num_radial, 3 * width)
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, 2 * width)
        self.second = nn.Linear(2 * width, 3 * width)
        self.mixing = PartwiseLinear(width)

    def filters_of(self, radial: Tensor, envelope: Tensor) -> Tensor:
        """(E, 3 H): a factor for each part."""
        return self.radial(radial) * envelope.unsqueeze(1)

    def forward(self, atomic_numbers: Tensor, plan: EdgePlan) -> Tensor:
        """(N, 9, H)."""
        elements = self.elements(atomic_numbers)
        receiver, sender = self.receiver(elements), self.sender(elements)
        if plan.compiled:
            parts = first_tensors(plan, receiver, sender, self.table_for(plan))
        else:
            pair = receiver.index_select(0, plan.edges[0]) + sender.index_select(0, plan.edges[1])
            factors = spread(self.filters_of(plan.radial, plan.envelope) * pair.repeat(1, 3))
            # The tensor of one direction u: the number 1, u as an axial vector, and u u - |u|^2 / 3.
            x, y, z = plan.directions.unbind(1)
            third = (x * x + y * y + z * z) / 3.0
            shape = [torch.ones_like(x), x, y, z, x * x - third, x * y, x * z, y * y - third, y * z]
            made = factors * torch.stack(shape, dim=1).unsqueeze(-1)
            parts = sum_over_edges(made, plan.edges[0], atomic_numbers.size(0))
        one, axial, symmetric = squared_norms(parts)
        gates = silu(self.second(silu(self.first(self.norm(one + axial + symmetric)))))
        return self.mixing(parts) * spread(gates)


class TensorInteraction(Tabulated):
    """One round of messages and of products of tensors."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        width = spec.width
        self.first = nn.Linear(spec.num_radial, width)
        self.second = nn.Linear(width, 2 * width)
        self.third = nn.Linear(2 * width, 3 * width)
        self.before = PartwiseLinear(width)
        self.after = PartwiseLinear(width)

    def filters_of(self, radial: Tensor, envelope: Tensor) -> Tensor:
        """(E, 3 H): a factor for each part."""
        factors = silu(self.third(silu(self.second(silu(self.first(radial))))))
        return factors * envelope.unsqueeze(1)

    def forward(self, parts: Tensor, plan: EdgePlan) -> Tensor:
        """New (N, 9, H) tensors."""
        # Where something is differentiated, the loop over edges alone is compiled: the products have no gradients.
        alone = plan.compiled and not (torch.is_grad_enabled() and (parts.requires_grad or plan.in_knots.requires_grad))
        parts = scaled_tensors(parts) if alone else scaled(parts)
        own = self.before(parts)
        if plan.compiled:
            received = tensor_messages(plan, own, self.table_for(plan))
            if alone:
                return tensor_squares(parts, self.after(tensor_products(received, own)))
        else:
            factors = spread(self.filters_of(plan.radial, plan.envelope))
            sent = own.index_select(0, plan.edges[1])
            received = sum_over_edges(factors * sent, plan.edges[0], parts.size(0))
        left, right = unpack(received), unpack(own)
        change = self.after(scaled(pack(product(left, right) + product(right, left))))
        square = unpack(change)
        return parts + change + pack(product(square, square))


class TensorNet(EdgeNetwork):
    """Scalars and vectors of atoms from their elements and edges; lengths in the unit of the spec. Scriptable."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__(spec, 1, receiving=0, differentiable=True)
        self.embedding = TensorEmbedding(spec)
        self.layers = nn.ModuleList([TensorInteraction(spec) for _ in range(spec.num_layers)])
        self.norm = nn.LayerNorm(3 * spec.width)
        self.out = nn.Linear(3 * spec.width, spec.width)

    def forward(
        self, atomic_numbers: Tensor, edge_index: Tensor, edge_vectors: Tensor, edge_distances: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(N, H) scalars and (N, 3, H) vectors; arguments as for `Encoder.encode`."""
        num_atoms = atomic_numbers.size(0)
        plan = self.plan(num_atoms, edge_index, edge_vectors, edge_distances, self.norm.weight)
        parts = self.embedding(atomic_numbers, plan)
        for layer in self.layers:
            parts = layer(parts, plan)
        norms = torch.cat(squared_norms(parts), dim=1)
        return silu(self.out(self.norm(norms))), -parts[:, 1:4]


NETWORK = TensorNet
