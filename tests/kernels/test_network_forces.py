"""A whole VectorGAMD as one operator of CUDA, emulated or not, against the network in float64 with autograd."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cuda_backends import Backend
from small_water import water_on_a_lattice
from torch import Tensor

from openmm_gnn.base.specs.force import NeighborSpec, VectorGAMDSpec
from openmm_gnn.graph.neighbor_list import NeighborList
from openmm_gnn.graph.topology_tables import no_partners
from openmm_gnn.kernels.radial_pairs import pair_types
from openmm_gnn.networks import vector_gamd_forces
from openmm_gnn.networks.force_model import PairList
from openmm_gnn.networks.pair_term import box_lengths, grid_sizes
from openmm_gnn.networks.vector_gamd import VectorGAMD
from openmm_gnn.networks.vector_gamd_forces import VectorGAMDForces

PER_EDGE, EDGE = 2, 0.64
MOLECULES = PER_EDGE**3
SPECIES = torch.tensor([1, 0, 0]).repeat(MOLECULES)
BOXES = {
    "open": None,
    "cubic": EDGE * torch.eye(3, dtype=torch.float64),
    # Skewed; and all are narrower than a cutoff's diameter: an atom sees several images of another, and its own.
    "triclinic": torch.tensor([[0.65, 0, 0], [0.2, 0.63, 0], [-0.17, 0.23, 0.64]], dtype=torch.float64),
}
TOLERANCE = 5e-6
"""Of the largest force: a force is a sum of some hundred float32 terms of its size, each rounded some 20 times on its
way, by 6e-8 each; roundings add up as their root. Sums of forces are rounded to 6e-8 kJ/mol/nm, which is less."""
CASES: dict[str, dict[str, Any]] = {
    "direct": {},
    "energy": {"conservative": True},
    "one layer": {"conservative": True, "num_layers": 1},
    "three wide layers": {"conservative": True, "num_layers": 3, "width": 48},
    "direct, pair term": {"pair_cutoff": 0.5},
    "charges": {"conservative": True, "pair_cutoff": 0.5, "charge_width": 0.12},
    "no bonds": {"conservative": True, "use_bonds": False},
}


def partners_of_water() -> Tensor:
    """As `separation_table` has them."""
    table = torch.full((2, 3 * MOLECULES, 2), -1, dtype=torch.int64)
    for oxygen in range(0, 3 * MOLECULES, 3):
        table[0, oxygen] = torch.tensor([oxygen + 1, oxygen + 2])
        table[0, oxygen + 1 : oxygen + 3, 0] = oxygen
        table[1, oxygen + 1, 0], table[1, oxygen + 2, 0] = oxygen + 2, oxygen + 1
    return table


def positions(seed: int = 0) -> Tensor:
    """Water whose atoms are away from a lattice, and partly outside the box."""
    placed = water_on_a_lattice(PER_EDGE, EDGE / PER_EDGE)
    return torch.from_numpy(placed + np.random.default_rng(seed).normal(0, 0.012, placed.shape) - 0.1)


def model_of(seed: int = 3, **changes: Any) -> VectorGAMD:
    """A network of random weights whose terms are all of one size."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"width": 16, "num_radial": 9, "force_scale": 30.0, "pair_radial": 14}
    model = VectorGAMD(VectorGAMDSpec(NeighborSpec(0.4, 0.06, max_neighbors=40), (1, 8), **(sizes | changes)))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("bias", "norm.weight")):
                weight.add_(0.3 * torch.randn_like(weight))  # new ones are zeros and ones
        if model.pair_term is not None:
            model.pair_term.table[:, :-3] = 2 * torch.randn(model.pair_term.table[:, :-3].shape)
            if model.pair_term.charge_term is not None:
                model.pair_term.charge_term.charges.copy_(torch.tensor([3.0, -6.0]))
    return model.eval().requires_grad_(False)


def bonds(model: VectorGAMD) -> Tensor:
    return partners_of_water() if model.spec.use_bonds else no_partners(3 * MOLECULES)


def plain(model: VectorGAMD) -> Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]:
    """The same in float64 on the CPU, without the operator."""
    exact, partners = copy.deepcopy(model).double(), bonds(model)
    lists = [NeighborList(one.cutoff, one.skin, one.max_neighbors) for one in model.lists()]

    def evaluate(placed: Tensor, box: Tensor | None) -> tuple[Tensor, Tensor]:
        found = []
        for neighbors in lists:
            pairs, vectors, distances = neighbors(placed, box)
            found.append(PairList(pairs, vectors, distances, pair_types(pairs, SPECIES, partners, 2)))
        return exact.energy_and_forces(SPECIES, found, placed, box)

    return evaluate


class OnDevice:
    """The operator of a backend, with the state of its lists."""

    def __init__(self, model: VectorGAMD, backend: Backend) -> None:
        self.module = VectorGAMDForces(model, SPECIES, bonds(model)).to(backend.device)
        self.backend = backend

    def __call__(self, placed: Tensor, box: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.module.charge_width > 0:  # the reference's grid, where a device would take a finer one
            assert box is not None
            self.choose_grid(grid_sizes(box_lengths(box), self.module.charge_width))
        return self.evaluate(placed, box)

    def choose_grid(self, sizes: list[int]) -> None:
        self.module.size_a, self.module.size_b, self.module.size_c = sizes

    def evaluate(self, placed: Tensor, box: Tensor | None) -> tuple[Tensor, Tensor]:
        on_device = None if box is None else self.backend.place(box)
        energy, forces = self.module(self.backend.place(placed), on_device)
        return energy.cpu(), forces.cpu()


@pytest.fixture
def operator(
    backend: Backend, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> Callable[[VectorGAMD], OnDevice]:
    monkeypatch.setattr(vector_gamd_forces, "keeps_grid", lambda positions: True)  # in the emulator as on a device
    return lambda model: OnDevice(model, backend)


def assert_same(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], size_of_energy: float) -> None:
    largest = float(expected[1].abs().max())
    assert largest > 5
    torch.testing.assert_close(found[1].double(), expected[1], rtol=0, atol=TOLERANCE * largest)
    torch.testing.assert_close(found[0].double(), expected[0].reshape(()), rtol=0, atol=TOLERANCE * size_of_energy)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("case", CASES)
def test_energy_and_forces_are_the_networks(case: str, box: str, operator: Callable[[VectorGAMD], OnDevice]) -> None:
    if case == "charges" and box == "open":
        pytest.skip("charges need a box")
    model, placed = model_of(**CASES[case]), positions()
    expected = plain(model)(placed, BOXES[box])
    assert (float(expected[0]) != 0) == model.conservative
    assert_same(operator(model)(placed, BOXES[box]), expected, 30.0 * len(placed))


def test_float32_positions_give_the_same(operator: Callable[[VectorGAMD], OnDevice]) -> None:
    model, placed = model_of(conservative=True, pair_cutoff=0.5, charge_width=0.12), positions().float()
    box = BOXES["triclinic"]
    assert box is not None
    expected = plain(model)(placed.double(), box.float().double())
    energy, forces = operator(model)(placed, box.float())
    assert energy.dtype == forces.dtype == torch.float32 and energy.shape == ()
    # Float32 positions below 1.2 nm are off by 6e-8 nm, and stiffnesses are some 100 forces per nm.
    assert_same((energy, forces), expected, 60.0 * len(placed))


def test_lists_and_kinds_follow_moving_atoms_and_the_same_bits_come_twice(
    operator: Callable[[VectorGAMD], OnDevice],
) -> None:
    model, box = model_of(conservative=True, pair_cutoff=0.5, charge_width=0.12), BOXES["triclinic"]
    assert box is not None
    reference, module, again = plain(model), operator(model), operator(model)
    generator = torch.Generator().manual_seed(2)
    start = positions()
    drift = 0.02 * torch.randn(start.shape, generator=generator, dtype=torch.float64)
    for step in range(6):
        jumps = torch.randint(-1, 2, start.shape, generator=generator).double() @ box
        placed, at_scale = start + 0.2 * step * drift + jumps, 1.0 + 0.01 * (step // 4)
        found = module(placed, at_scale * box)
        assert_same(found, reference(placed, at_scale * box), 30.0 * len(placed))
        assert all(torch.equal(a, b) for a, b in zip(found, again(placed, at_scale * box), strict=True))
    for neighbors in (module.module.near, module.module.far):
        assert neighbors.num_calls() == 6 and 2 <= neighbors.num_rebuilds() < 6


def test_a_grid_of_charges_is_kept_and_has_room_for_a_box_that_grows(
    operator: Callable[[VectorGAMD], OnDevice],
) -> None:
    model, placed, box = model_of(conservative=True, pair_cutoff=0.5, charge_width=0.12), positions(), BOXES["cubic"]
    assert box is not None
    module = operator(model)
    for scale in (1.0, 1.1):
        found, expected = module.evaluate(scale * placed, scale * box), plain(model)(scale * placed, scale * box)
        sizes = [module.module.size_a, module.module.size_b, module.module.size_c]
        assert sizes == [12, 12, 12]  # two points in 0.12 nm are 11.7 in 0.704 nm, and 10.7 in 0.64 nm
        # The reference has the same grid for the larger box and, as 11 is no size that transforms fast, for this one.
        assert_same(found, expected, 30.0 * len(placed))


def test_what_is_wrong_is_nan_in_all_results(operator: Callable[[VectorGAMD], OnDevice]) -> None:
    box = BOXES["cubic"]
    assert box is not None
    placed = positions()
    astray = placed.clone()
    astray[4, 1] = float("nan")
    charged = model_of(conservative=True, pair_cutoff=0.5, charge_width=0.12)

    def all_nan(found: tuple[Tensor, Tensor]) -> bool:
        return bool(found[0].isnan()) and bool(found[1].isnan().all())

    crowded = VectorGAMD(VectorGAMDSpec(NeighborSpec(0.4, 0.06, max_neighbors=2), (1, 8), width=16)).eval()
    assert all_nan(operator(crowded.requires_grad_(False))(placed, box))
    assert all_nan(operator(charged)(astray, box))
    for kinds in ("near_kinds", "far_kinds"):
        module = operator(charged)
        assert not all_nan(module(placed, box))
        getattr(module.module, kinds).fill_(9)
        assert all_nan(module(placed, box))
    module = operator(charged)
    assert not all_nan(module(placed, box))
    module.module.near.stored_pairs[1, 0] = 10_000
    assert all_nan(module(placed, box))
    for points, refused in ((10, False), (9, True)):  # 1.8 points in the width of 0.12 nm are 9.6 in 0.64 nm
        module = operator(charged)
        module.choose_grid([16, points, 16])
        assert all_nan(module.evaluate(placed, box)) is refused
