"""CUDA's operators of GAMD against the network in plain PyTorch and float64, in the grid emulator and on a device."""

from __future__ import annotations

import pytest
import torch
from cuda_backends import Backend
from torch import Tensor

from openmm_gnn.base.specs.force import Decoder, GAMDSpec, NeighborSpec
from openmm_gnn.graph.neighbor_list import NeighborList
from openmm_gnn.networks.force_model import PairList
from openmm_gnn.networks.gamd import GAMD

CUTOFF = 0.42
TOLERANCE = 2e-5
"""Largest error of a force over the largest force: float32 sums of up to 128 products in some ten layers."""


def network(width: int, decoder: Decoder, num_layers: int = 2, use_bonds: bool = True) -> GAMD:
    neighbors = NeighborSpec(CUTOFF, skin=0.06, max_neighbors=40)
    spec = GAMDSpec(
        neighbors, (8, 1), decoder, width, num_layers, num_radial=24, use_bonds=use_bonds, remove_net_force=True
    )
    return GAMD(spec).eval().requires_grad_(False)


def frame(num_atoms: int) -> tuple[Tensor, PairList]:
    """Species and the padded list of random atoms at water's density."""
    generator = torch.Generator().manual_seed(5)
    edge = (num_atoms / 100.0) ** (1 / 3)
    positions = torch.rand((num_atoms, 3), generator=generator) * edge
    neighbors = NeighborList(CUTOFF, 0.06, 40, static_shape=True)
    pairs, vectors, distances = neighbors(positions, torch.eye(3) * max(edge, 1.0))
    species = torch.randint(0, 2, (num_atoms,), generator=generator)
    types = torch.randint(0, 9, (pairs.shape[1],), generator=generator)
    return species, PairList(pairs, vectors, distances, torch.where(pairs[0] < 0, 0, types))


def forces_of(model: GAMD, device: torch.device, given: tuple[Tensor, PairList]) -> Tensor:
    model = model.to(device)
    with torch.no_grad():
        return model.tiled_forces(*moved(given, device), None).cpu()


def moved(given: tuple[Tensor, PairList], device: torch.device | str) -> tuple[Tensor, PairList]:
    species, near = given
    return species.to(device), PairList(*(tensor.to(device) for tensor in near))


@pytest.mark.parametrize("decoder", list(Decoder))
@pytest.mark.parametrize(("width", "num_atoms"), [(16, 150), (32, 61), (64, 30), (128, 25)])
def test_forces_equal_those_of_plain_torch(device: torch.device, width: int, num_atoms: int, decoder: Decoder) -> None:
    model, given = network(width, decoder), frame(num_atoms)
    species, (pairs, vectors, distances, types) = given
    with torch.no_grad():
        truth = model.double()(species, PairList(pairs, vectors.double(), distances.double(), types))
    model = model.float()
    found = forces_of(model, device, given)
    assert float((found.double() - truth).abs().max() / truth.abs().max()) < TOLERANCE
    assert torch.equal(found, forces_of(model, device, given)), "the sum depends on a schedule"


@pytest.mark.parametrize("decoder", list(Decoder))
def test_atoms_without_neighbours_and_no_atoms_at_all(device: torch.device, decoder: Decoder) -> None:
    model = network(32, decoder)
    species, (pairs, vectors, distances, types) = frame(30)
    alone = (species, PairList(torch.full_like(pairs, -1), vectors, torch.full_like(distances, 1.0), types))
    with torch.no_grad():
        truth = model(*alone)
    torch.testing.assert_close(forces_of(model, device, alone), truth, rtol=1e-4, atol=1e-4)
    model = network(32, decoder, use_bonds=False)
    model.remove_net_force = False  # the mean of no forces is not a number
    nothing = (species[:0], PairList(pairs[:, :0], vectors[:0], distances[:0], types[:0]))
    assert forces_of(model, device, nothing).shape == (0, 3)


@pytest.mark.parametrize("decoder", list(Decoder))
def test_an_invalid_list_gives_forces_that_are_not_numbers(device: torch.device, decoder: Decoder) -> None:
    """An overflowing list on CUDA has distances of NaN and no pairs; finite forces would hide it."""
    species, (pairs, vectors, distances, types) = frame(30)
    given = (species, PairList(torch.full_like(pairs, -1), vectors, torch.full_like(distances, float("nan")), types))
    assert bool(forces_of(network(32, decoder), device, given).isnan().all())


def test_wrong_widths_are_refused_in_words(backend: Backend) -> None:
    none, pairs = torch.zeros(0), torch.zeros((2, 3), dtype=torch.int64)
    given = [pairs, torch.ones(3), torch.ones(3, 3), pairs[0], torch.ones(5), torch.ones(48, 5), torch.ones(48)]
    given += [none, none, torch.ones(48, 48), torch.ones(48)]
    placed = [backend.place(tensor) for tensor in given]
    with pytest.raises(RuntimeError, match="the width is 48: give 16, 32, 64 or 128"):
        backend.operators.gamd_edges(*placed, CUTOFF, -1.0)


@pytest.mark.gpu
@pytest.mark.parametrize("decoder", list(Decoder))
@pytest.mark.parametrize("num_atoms", [774, 12_282])
def test_a_scripted_network_on_cuda_gives_the_forces_of_the_cpu(num_atoms: int, decoder: Decoder) -> None:
    model, given = network(128, decoder, 4), frame(num_atoms)
    with torch.no_grad():
        truth = model(*given)
        scripted = torch.jit.freeze(torch.jit.script(model.cuda()))
        found = scripted(*moved(given, "cuda")).cpu()
    assert float((found - truth).abs().max() / truth.abs().max()) < 5e-5
