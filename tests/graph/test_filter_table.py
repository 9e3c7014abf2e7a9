"""Tables of functions of distance: places that grow evenly enough, and values close to the functions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from openmm_gnn.graph.radial_basis import distances_in_knots, filter_table
from openmm_gnn.kernels.encoder_messages import tabulated_filters
from openmm_gnn.networks.encoders.equivariant_blocks import ExponentialBasis


def basis_of(cutoff: float) -> ExponentialBasis:
    return ExponentialBasis(cutoff, 64).double()


@pytest.mark.parametrize("cutoff", [0.75, 5.0, 7.5])
def test_a_table_holds_the_radial_basis_to_millionths(cutoff: float) -> None:
    """The basis is sharper than any filter made of it; distances of atoms begin at a tenth of the cutoff."""
    basis = basis_of(cutoff)
    table = filter_table(basis, cutoff)
    assert table.shape == (770, 2, 64) and table.dtype == torch.float32
    distances = torch.cat([torch.linspace(0.1 * cutoff, 1.05 * cutoff, 5001, dtype=torch.float64), torch.zeros(1)])
    found = tabulated_filters(distances_in_knots(distances, cutoff), table)
    torch.testing.assert_close(found.double(), basis(distances), rtol=0, atol=4e-6)


def test_places_grow_from_zero_to_the_last_knot() -> None:
    places = distances_in_knots(torch.linspace(0, 7.5, 1000), 7.5)
    assert places.dtype == torch.float64 and float(places[0]) == 0
    assert float(places[-1]) == pytest.approx(769) and bool((places.diff() > 0.1).all())


def test_slopes_are_derivatives_per_knot() -> None:
    def wave(distances: Tensor) -> Tensor:
        return torch.stack([torch.sin(3 * distances), distances], dim=1)

    table = filter_table(wave, 4.0).double()
    middle = (table[2:, 0] - table[:-2, 0]) / 2
    torch.testing.assert_close(table[1:-1, 1], middle, rtol=0, atol=2e-3)
    assert float(table[-1, 0, 1]) == pytest.approx(4.0) and float(table[-1, 0, 0]) == pytest.approx(
        math.sin(12), rel=1e-6
    )
