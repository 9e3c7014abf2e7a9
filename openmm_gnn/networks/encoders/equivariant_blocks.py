"""What the encoders share: distances as features, sums over edges, and the denoising head."""

# No `from __future__ import annotations` here: TorchScript cannot read a class attribute's type from a string.
import copy
import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.functional import silu, threshold

from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.graph.radial_basis import distances_in_knots, filter_table, used_knots
from openmm_gnn.kernels.encoder_messages import EdgePlan, edge_rows, fits_operators, has_cpu_operators
from openmm_gnn.kernels.neighbor_pairs import safe_distances


class ExponentialBasis(nn.Module):
    """Gaussians of exp(-5 d / cutoff), times a cosine that falls to zero at the cutoff.

    Centres are equally spaced from exp(-cutoff), with the cutoff in angstrom, to 1. Zero from the cutoff on.

    Source: Unke and Meuwly, J. Chem. Theory Comput. 15, 3678 (2019), eqs. 7 and 8, arXiv 1902.08408; the factor
    5 / cutoff: Tholke and De Fabritiis, ICLR 2022, arXiv 2202.02541.
    """

    centers: Tensor
    sharpness: Tensor
    knots: Tensor

    def __init__(self, cutoff: float, num_radial: int) -> None:
        super().__init__()
        self.cutoff = float(cutoff)
        start = math.exp(-cutoff)
        sharpness = (2.0 / num_radial * (1.0 - start)) ** -2
        self.register_buffer("centers", torch.linspace(start, 1.0, num_radial))
        self.register_buffer("sharpness", torch.full((num_radial,), sharpness))
        self.register_buffer("knots", torch.zeros(0, 2, num_radial + 1), persistent=False)
        self.set_knots()

    def set_knots(self) -> None:
        """Make the basis itself, and the cosine cutoff behind it, a table: (770, 2, num_radial + 1)."""
        with torch.inference_mode(False):
            exact = copy.deepcopy(self).to("cpu", torch.float64)

        def both(distances: Tensor) -> Tensor:
            return torch.cat([exact(distances), cosine_cutoff(distances, self.cutoff).unsqueeze(-1)], dim=1)

        self.knots = filter_table(both, self.cutoff).to(self.knots.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ExponentialBasis":
        """As for any module; but sixteen bits would blur the centres, which stay as they are."""
        exact = {name: buffer for name, buffer in self.named_buffers() if buffer.dtype.itemsize >= 4}
        super()._apply(fn, recurse)
        for name, buffer in exact.items():
            now = getattr(self, name)
            if now.dtype.itemsize < 4:
                setattr(self, name, buffer.to(now.device))
        return self

    def forward(self, distances: Tensor) -> Tensor:
        """(E,) distances -> (E, num_radial) features, in [0, 1]."""
        decay = torch.exp((-5.0 / self.cutoff) * distances).unsqueeze(-1)
        exponents = -self.sharpness * (decay - self.centers).square()
        # Below 1e-13 exactly nothing: products with smaller numbers are denormal, which costs a CPU a hundredfold.
        gaussians = torch.exp(threshold(exponents, -30.0, -math.inf))
        return cosine_cutoff(distances, self.cutoff).unsqueeze(-1) * gaussians


def cosine_cutoff(distances: Tensor, cutoff: float) -> Tensor:
    """(1 + cos(pi d / cutoff)) / 2 below the cutoff, 0 from it on.

    Source: Behler, J. Chem. Phys. 134, 074106 (2011), eq. 4.
    """
    factors = 0.5 * (torch.cos(distances * (math.pi / cutoff)) + 1.0)
    return factors * (distances < cutoff).to(distances.dtype)


def late_cutoff(envelope: Tensor) -> Tensor:
    """From the cosine cutoff, 1 - (1 - c)^8: as smooth at the cutoff, but above 0.98 until 0.57 of it.

    For messages that the published networks send at full strength up to the cutoff: what an encoder has learned stays.
    Error of denoising on villin: of the shipped encoder 0.308 without, 0.310 with it, 0.42 with the cosine cutoff
    itself; of the public TorchMD-ET 0.340, 0.342, 0.41.
    """
    away = (1.0 - envelope).square().square()
    return 1.0 - away * away


def unit_vectors(vectors: Tensor, distances: Tensor) -> Tensor:
    """(E, 3) vectors divided by their lengths; what has no length stays zero and carries no gradient."""
    return vectors / torch.where(distances > 0, distances, torch.ones_like(distances)).unsqueeze(-1)


def sum_over_edges(messages: Tensor, receivers: Tensor, num_atoms: int) -> Tensor:
    """(num_atoms, ...) the sum of the messages (E, ...) to each receiver (E,)."""
    shape = list(messages.shape)
    shape[0] = num_atoms
    return torch.zeros(shape, dtype=messages.dtype, device=messages.device).index_add(0, receivers, messages)


class EdgeNetwork(nn.Module):
    """A network whose loops over edges have a compiled form, and whose filters are tabulated for it.

    In evaluation mode tables are made once, of the weights at that moment (`Encoder.train`). Where gradients go to the
    weights, they are made anew in every pass, of the few hundred knots that are next to an edge.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        head_width: int,
        receiving: int = 1,
        differentiable: bool = False,
        edge_gradients: bool = False,
    ) -> None:
        """
        Args:
            head_width: channels of a head of attention.
            receiving: the row of the edges' index that holds the atoms which receive.
            differentiable: whether the compiled form has gradients, once.
            edge_gradients: whether those by the edges are exact to 1e-5 of the largest. They are slopes of tables in
                float32: TensorNet's, with nothing that smooths them, are off by 2e-5, so its forces are plain PyTorch.
        """
        super().__init__()
        self.cutoff, self.width, self.head_width, self.receiving = spec.cutoff, spec.width, head_width, receiving
        self.basis = ExponentialBasis(spec.cutoff, spec.num_radial)
        self.differentiable, self.edge_gradients = differentiable, edge_gradients
        self.has_operators = True
        self.compiled = True
        self.tabulated = False
        self.frozen = False
        self.predicts_frozen = False

    def use_compiled(self, wanted: bool) -> None:
        """Choose the compiled form, or plain PyTorch, which has derivatives of any order."""
        self.compiled = wanted

    def set_tables(self, wanted: bool) -> None:
        """Make the tables of the present weights, or forget them."""
        self.tabulated = wanted and self.has_operators and self.width % 16 == 0
        trained = any(weight.requires_grad for weight in self.parameters())
        self.frozen = not trained or (wanted and self.predicts_frozen)
        self.basis.set_knots()
        for module in self.modules():
            if isinstance(module, Tabulated):
                module.set_table(self.tabulated, self.basis)

    def is_fused(self, edge_vectors: Tensor, weight: Tensor) -> bool:
        """Whether the compiled form serves: float32, and no gradients asked for that it has not.

        Those are gradients by the edges of a network that is trained, for training on forces differentiates them again;
        and on CUDA all of a network that is trained.
        """
        if not self.compiled or weight.dtype != torch.float32 or edge_vectors.dtype != torch.float32:
            return False
        if not (self.has_operators and fits_operators(weight, self.width, self.head_width)):
            return False
        if not torch.is_grad_enabled():
            return self.tabulated
        if self.frozen and not weight.requires_grad:
            return self.tabulated and (self.edge_gradients or not edge_vectors.requires_grad)
        return has_cpu_operators(weight) and self.is_trained(weight) and not edge_vectors.requires_grad

    def is_trained(self, weight: Tensor) -> bool:
        """Whether the compiled form, if it serves, needs tables that can be differentiated by the weights."""
        trained = torch.is_grad_enabled() and (weight.requires_grad or not self.frozen)
        return trained and self.differentiable and not torch.jit.is_scripting()

    def plan(self, num_atoms: int, index: Tensor, vectors: Tensor, distances: Tensor, weight: Tensor) -> EdgePlan:
        """The edges as the layers take them, in the compiled form where that serves (`is_fused`).

        Args:
            index: (2, E), vectors: (E, 3), distances: (E,), as for `Encoder.encode`.
            weight: one of the network's, for the dtype.
        """
        dtype, compiled = weight.dtype, self.is_fused(vectors, weight)
        nothing = torch.empty([0], dtype=dtype, device=distances.device)
        rows, in_knots, radial, knots = nothing, nothing, nothing, nothing
        directions = unit_vectors(vectors, distances).to(dtype)
        if not compiled:
            radial = self.basis(distances).to(dtype)
        else:
            if self.is_trained(weight):
                in_knots, knots = self.knots_near(distances)
            else:
                in_knots = distances_in_knots(distances, self.cutoff)
            senders = torch.is_grad_enabled() and vectors.requires_grad
            rows = edge_rows(index, distances, self.cutoff, self.receiving, num_atoms, senders)
        envelope = cosine_cutoff(distances, self.cutoff).to(dtype)
        return EdgePlan(index, rows, directions, envelope, in_knots, radial, knots, compiled)

    @torch.jit.unused
    def knots_near(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        """(E,) where distances lie among the knots next to an edge, and those knots for `Tabulated.table_of`."""
        used, in_knots = used_knots(distances_in_knots(distances, self.cutoff), self.basis.knots.size(0))
        return in_knots, self.basis.knots.index_select(0, used)


class Tabulated(nn.Module):
    """A part whose filters, functions of distance alone, can be a table; see graph/radial_basis.py."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(0, 2, 1), persistent=False)

    def filters_of(self, radial: Tensor, envelope: Tensor) -> Tensor:
        """(E, C) from the radial basis (E, num_radial) and the cosine cutoff (E,)."""
        raise NotImplementedError

    def set_table(self, wanted: bool, basis: ExponentialBasis) -> None:
        """Make the table of the present weights, or forget it."""
        device = self.table.device
        if not wanted:
            self.table = torch.zeros(0, 2, 1, device=device)
            return
        with torch.inference_mode(False):
            exact = copy.deepcopy(self).to("cpu", torch.float64)
            exact_basis = copy.deepcopy(basis).to("cpu", torch.float64)

        def filters(distances: Tensor) -> Tensor:
            return exact.filters_of(exact_basis(distances), cosine_cutoff(distances, basis.cutoff))

        self.table = filter_table(filters, basis.cutoff).to(device)

    def table_for(self, plan: EdgePlan) -> Tensor:
        """The table of the weights as they are: the one kept, or while they are trained that of the plan's knots."""
        return self.table if plan.knots.size(0) == 0 else self.table_of(plan.knots)

    @torch.jit.unused
    def table_of(self, knots: Tensor) -> Tensor:
        """(K, 2, C) the table at some rows of `ExponentialBasis.knots`, (K, 2, num_radial + 1); differentiable."""
        with forward_ad.dual_level():
            both = forward_ad.make_dual(knots[:, 0], knots[:, 1])
            values, slopes = forward_ad.unpack_dual(self.filters_of(both[:, :-1], both[:, -1]))
            return torch.stack([values, slopes], dim=1)


class VectorRange(nn.Module):
    """Scales an atom's vectors so that their lengths run from 0 to 1 over the channels; directions stay.

    Source: Wang et al., "Enhancing geometric representations for molecules with equivariant vector-scalar interactive
    message passing", Nat. Commun. 15, 313 (2024), arXiv 2210.16518; the published implementation's "max_min".
    """

    def __init__(self, width: int, smooth: bool) -> None:
        """
        Args:
            smooth: leave lengths far below a tenth as they are, so that they can begin from nothing without a jump.
                Trained networks have a range of 0.2 and more; the error of denoising of the public ViSNet changes by
                0.3 %.
        """
        super().__init__()
        self.softness = 0.1 if smooth else 0.0
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, vectors: Tensor) -> Tensor:
        """(N, 3, H) -> (N, 3, H)."""
        length = safe_distances(vectors)
        low = length.amin(dim=1, keepdim=True)
        span = length.amax(dim=1, keepdim=True) - low
        if self.softness > 0.0:
            span = (span.square() + self.softness * self.softness).sqrt()
        else:
            span = torch.where(span == 0, torch.ones_like(span), span)
        factors = (length - low) / span / length.clamp(min=1e-12)
        return vectors * (factors * self.weight).unsqueeze(1)


class GatedVectors(nn.Module):
    """New scalars and vectors, whose lengths the scalars decide.

    Source: Schuett, Unke, Gastegger, ICML 2021, fig. 3, arXiv 2102.03150.
    """

    def __init__(self, width: int, scalars_out: int, vectors_out: int) -> None:
        super().__init__()
        self.scalars_out, self.vectors_out = scalars_out, vectors_out
        self.measured = nn.Linear(width, width, bias=False)
        self.kept = nn.Linear(width, vectors_out, bias=False)
        self.hidden = nn.Linear(2 * width, width)
        self.gates = nn.Linear(width, scalars_out + vectors_out)

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(N, width) and (N, 3, width) -> (N, scalars_out) and (N, 3, vectors_out)."""
        both = torch.cat([scalars, safe_distances(self.measured(vectors))], dim=1)
        gates = self.gates(silu(self.hidden(both)))
        return gates[:, : self.scalars_out], gates[:, None, self.scalars_out :] * self.kept(vectors)


class DenoisingHead(nn.Module):
    """One vector per atom: the noise that was added to its position, in units of the noise's standard deviation.

    Source: Zaidi et al., "Pre-training via denoising for molecular property prediction", ICLR 2023, arXiv 2206.00133.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = GatedVectors(width, width // 2, width // 2)
        self.second = GatedVectors(width // 2, 1, 1)

    def forward(self, scalars: Tensor, vectors: Tensor) -> Tensor:
        """(N, H) and (N, 3, H) -> (N, 3)."""
        scalars, vectors = self.first(scalars, vectors)
        return self.second(silu(scalars), vectors)[1].squeeze(-1)


class AtomHead(nn.Module):
    """Gated blocks from the features of atoms to a scalar, which no rotation changes, and a vector, which turns along.

    Args:
        width_in: the width of the encoder.
        width: the width between the blocks.
        num_layers: the number of blocks.

    Source: Schuett, Unke, Gastegger, ICML 2021, fig. 3, arXiv 2102.03150.
    """

    def __init__(self, width_in: int, width: int, num_layers: int) -> None:
        super().__init__()
        ends = [width_in, *[width] * (num_layers - 1), 1]
        self.blocks = nn.ModuleList([GatedVectors(first, last, last) for first, last in pairwise(ends)])

    def forward(self, scalars: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(N, H) and (N, 3, H) -> (N,) and (N, 3)."""
        for number, block in enumerate(self.blocks):
            scalars, vectors = block(scalars if number == 0 else silu(scalars), vectors)
        return scalars.squeeze(1), vectors.squeeze(2)

    @torch.jit.unused
    def start_from(self, head: DenoisingHead) -> bool:
        """Begin with a denoising head, its vectors turned about, where the shapes are the same; whether they are.

        Noise leads away from where the energy is low, forces lead back: Zaidi et al., ICLR 2023, arXiv 2206.00133.
        """
        blocks = [head.first, head.second]
        weights = {f"blocks.{k}.{name}": x for k, block in enumerate(blocks) for name, x in block.state_dict().items()}
        own = self.state_dict()
        if own.keys() != weights.keys() or any(own[name].shape != x.shape for name, x in weights.items()):
            return False
        weights["blocks.1.kept.weight"] = -weights["blocks.1.kept.weight"]
        self.load_state_dict(weights)
        return True
