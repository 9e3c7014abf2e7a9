"""How far predicted forces are from reference forces, in the figures the field quotes (meV/angstrom)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from openmm_gnn.base.units import MEV_PER_ANGSTROM_PER_KJ_MOL_NM


@dataclass(frozen=True)
class ForceErrors:
    """Errors over a set of frames; forces in meV/angstrom, over components unless said otherwise."""

    mae: float
    rmse: float
    relative_error: float
    """Mean absolute error of a component over the mean norm of the reference forces (the published definition)."""
    mean_cosine: float
    """Mean over atoms of the cosine between predicted and reference force."""
    cosine_5_percent: float
    """5 % quantile of the same: 95 % of the atoms are above."""
    mean_force: float
    """Mean norm of the reference forces."""
    net_force: float
    """Mean over frames of the norm of the summed predicted forces, per atom."""
    relative_net_force: float
    """`net_force` over `mean_force`."""
    num_frames: int


class ForceErrorMeter:
    """Collects frames and gives their `ForceErrors`. Sums are kept in float64."""

    def __init__(self) -> None:
        self._absolute = 0.0
        self._squared = 0.0
        self._reference_norm = 0.0
        self._net = 0.0
        self._components = 0
        self._frames = 0
        self._cosines: list[Tensor] = []

    def add(self, predicted: Tensor, reference: Tensor) -> None:
        """One frame: predicted and reference forces, (num_atoms, 3), kJ/mol/nm."""
        predicted = predicted.detach().to(torch.float64) * MEV_PER_ANGSTROM_PER_KJ_MOL_NM
        reference = reference.detach().to(torch.float64) * MEV_PER_ANGSTROM_PER_KJ_MOL_NM
        difference = predicted - reference
        self._absolute += float(difference.abs().sum())
        self._squared += float(difference.square().sum())
        self._reference_norm += float(reference.norm(dim=-1).sum())
        self._net += float(predicted.sum(dim=0).norm()) / predicted.size(0)
        self._components += predicted.numel()
        self._frames += 1
        self._cosines.append(torch.nn.functional.cosine_similarity(predicted, reference, dim=-1, eps=1e-12))

    def errors(self) -> ForceErrors:
        """The figures of all frames so far.

        Raises:
            ValueError: if no frame was added.
        """
        if self._frames == 0:
            raise ValueError("no frame was added: errors of nothing are not defined")
        cosines = torch.cat(self._cosines)
        mean_force = self._reference_norm / (self._components / 3)
        return ForceErrors(
            mae=self._absolute / self._components,
            rmse=(self._squared / self._components) ** 0.5,
            relative_error=self._absolute / self._components / mean_force,
            mean_cosine=float(cosines.mean()),
            cosine_5_percent=float(cosines.sort().values[int(0.05 * cosines.numel())]),
            mean_force=mean_force,
            net_force=self._net / self._frames,
            relative_net_force=self._net / self._frames / mean_force,
            num_frames=self._frames,
        )
