"""A property model: an encoder and a head that predict numbers of molecules or of their atoms.

What the elements alone say, a number for each, is fitted beforehand and kept as a table; the head learns the rest. In
an untrained head the last gates are zero, so that it begins with what the elements say.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from openmm_gnn.base.specs.encoder import PropertySpec, Readout, Target
from openmm_gnn.networks.encoders.encoder import Encoder
from openmm_gnn.networks.encoders.equivariant_blocks import AtomHead


class PropertyModel(nn.Module):
    """Predictions in the unit of the labels, float64; the network computes in the dtype of its weights.

    Numbers do not change when a molecule turns or moves; vectors turn along.
    """

    offsets: Tensor
    scale: Tensor

    def __init__(self, spec: PropertySpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = Encoder(spec.encoder)
        self.head = AtomHead(spec.encoder.width, spec.head_width, spec.head_layers)
        last = self.head.blocks[-1].gates
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.register_buffer("offsets", torch.zeros(spec.encoder.max_atomic_number + 1, dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    def train(self, mode: bool = True) -> PropertyModel:
        """As for any module; an encoder without anything to learn stays in evaluation mode, which is faster."""
        super().train(mode)
        if not any(weight.requires_grad for weight in self.encoder.parameters()):
            self.encoder.eval()
        return self

    def of_elements(self, atomic_numbers: Tensor, batch: Tensor) -> Tensor:
        """What the elements alone say, float64, in the shape of `forward`."""
        if self.spec.target is Target.VECTOR:
            return torch.zeros((num_frames(batch), 3), dtype=torch.float64, device=batch.device)
        return self._read_out(self.offsets.index_select(0, atomic_numbers), batch)

    def standardised(
        self, atomic_numbers: Tensor, positions: Tensor, batch: Tensor, box_vectors: Tensor | None = None
    ) -> Tensor:
        """What the head adds to them, in units of `scale`; arguments and shape as for `forward`."""
        scalars, vectors = self.head(*self.encoder(atomic_numbers, positions, batch, box_vectors))
        return self._read_out(vectors if self.spec.target is Target.VECTOR else scalars, batch)

    def forward(
        self, atomic_numbers: Tensor, positions: Tensor, batch: Tensor, box_vectors: Tensor | None = None
    ) -> Tensor:
        """The property of some molecules or of their atoms.

        Args:
            atomic_numbers: (N,) int64, without hydrogens if the spec says so.
            positions: (N, 3), in the encoder's length unit.
            batch: (N,) int64, the molecule of each atom, non-decreasing.
            box_vectors: (molecules, 3, 3), rows a, b, c; None: open boundary.
        Returns:
            float64, in the unit of the labels: (molecules,), (molecules, 3) or (N,), by the target.
        """
        rest = self.scale * self.standardised(atomic_numbers, positions, batch, box_vectors).to(torch.float64)
        return self.of_elements(atomic_numbers, batch) + rest

    def _read_out(self, values: Tensor, batch: Tensor) -> Tensor:
        """(N, ...) -> (molecules, ...); of atoms as it is."""
        if self.spec.target is Target.ATOM:
            return values
        shape = [num_frames(batch), *values.shape[1:]]
        sums = torch.zeros(shape, dtype=values.dtype, device=values.device).index_add(0, batch, values)
        if self.spec.readout is Readout.SUM:
            return sums
        counts = torch.bincount(batch).to(values)
        return sums / (counts if values.dim() == 1 else counts.unsqueeze(1))


def num_frames(batch: Tensor) -> int:
    """How many molecules the atoms of a batch belong to."""
    return int(batch[-1]) + 1 if len(batch) else 0
