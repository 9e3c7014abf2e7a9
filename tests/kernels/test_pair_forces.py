"""CUDA's kinds and forces of pairs against plain torch in float64, in the grid emulator and on a device."""

from __future__ import annotations

import pytest
import torch
from cuda_backends import Backend
from torch import Tensor

from openmm_gnn.kernels.radial_pairs import (
    pair_types_reference,
    radial_pair_forces_reference,
    scatter_pair_forces,
)

START, CUTOFF, KNOTS, TYPES = 0.1, 0.7, 15, 3


class Case:
    """Random pairs, ordered by their first atom, padding in between and at the end, an atom without pairs."""

    def __init__(self, num_atoms: int = 60, num_pairs: int = 3000) -> None:
        generator = torch.Generator().manual_seed(5)
        first = torch.randint(0, num_atoms, (num_pairs,), generator=generator).sort().values
        second = torch.randint(0, num_atoms, (num_pairs,), generator=generator)
        self.num_atoms, self.pairs = num_atoms + 1, torch.stack([first, second])
        self.pairs[:, 11:12] = -1
        self.pairs[:, num_pairs - num_pairs // 7 :] = -1
        self.types = torch.randint(0, TYPES, (num_pairs,), generator=generator)
        self.vectors = 0.4 * torch.randn(num_pairs, 3, generator=generator)  # some shorter than START, some too long
        self.vectors[self.pairs[0] < 0] = 9.0
        self.distances = self.vectors.norm(dim=1)
        self.table = 40 * torch.randn(TYPES, KNOTS, generator=generator)

    def truth(self) -> tuple[Tensor, Tensor]:
        vectors = self.vectors.double()
        return radial_pair_forces_reference(
            self.pairs, self.types, vectors, vectors.norm(dim=1), self.table.double(), START, CUTOFF, self.num_atoms
        )

    def found(self, backend: Backend, distances: Tensor | None = None) -> tuple[Tensor, Tensor]:
        given = (self.pairs, self.types, self.vectors, self.distances if distances is None else distances, self.table)
        placed = (backend.place(tensor) for tensor in given)
        return backend.operators.radial_pair_forces(*placed, START, CUTOFF, 0, self.num_atoms)


@pytest.mark.parametrize(("num_atoms", "num_pairs"), [(60, 3000), (1, 20), (900, 9000)])
def test_forces_and_energy_equal_plain_torch(backend: Backend, num_atoms: int, num_pairs: int) -> None:
    case = Case(num_atoms, num_pairs)
    forces, energy = case.truth()
    found, found_energy = case.found(backend)
    largest = max(float(forces.abs().max()), 100.0)  # of an atom that is paired with itself they cancel
    torch.testing.assert_close(found.cpu().double(), forces, rtol=0, atol=2e-6 * largest)
    # Terms of about 40 with either sign, each rounded to float32.
    torch.testing.assert_close(found_energy.cpu().double(), energy, rtol=0, atol=1e-6 * 40 * num_pairs)
    assert not found[-1].any()


def test_the_same_bits_at_every_call_and_nothing_from_nothing(backend: Backend) -> None:
    case = Case()
    first = case.found(backend)
    for _ in range(3):
        assert all(torch.equal(mine, other) for mine, other in zip(case.found(backend), first, strict=True))
    case.pairs[:] = -1
    forces, energy = case.found(backend)
    assert not forces.any() and not energy.any()
    none = Case(3, 0)
    assert none.found(backend)[0].shape == (4, 3) and float(none.found(backend)[1]) == 0


def test_sums_of_given_forces_equal_plain_torch(backend: Backend) -> None:
    case = Case()
    given = torch.randn(3000, 3, generator=torch.Generator().manual_seed(6)) * (case.pairs[0] >= 0).unsqueeze(1)
    truth = scatter_pair_forces(given.double(), case.pairs, case.num_atoms)
    found = backend.operators.pair_force_sums(backend.place(given), backend.place(case.pairs), case.num_atoms)
    torch.testing.assert_close(found.cpu().double(), truth, rtol=0, atol=1e-6 * float(truth.abs().max()))
    torch.testing.assert_close(found.sum(dim=0).cpu(), torch.zeros(3), rtol=0, atol=2e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 2.0**30])
def test_what_no_integer_can_hold_makes_all_forces_nan(backend: Backend, value: float) -> None:
    case = Case()
    given = torch.zeros(3000, 3)
    given[1234, 1] = value
    found = backend.operators.pair_force_sums(backend.place(given), backend.place(case.pairs), case.num_atoms)
    assert bool(found.isnan().all())


def test_large_forces_on_one_atom_are_added_and_none_wraps_around(backend: Backend) -> None:
    pairs = torch.stack([torch.zeros(600, dtype=torch.int64), torch.arange(1, 601)])

    def found(count: int, size: float) -> Tensor:
        given = torch.full((count, 3), size)
        placed = backend.place(given), backend.place(pairs[:, :count].contiguous())
        return backend.operators.pair_force_sums(*placed, 601).cpu()

    assert torch.equal(found(8, 4e8)[0], torch.full((3,), 3.2e9))
    assert torch.equal(found(250, -(2.0**29))[0], torch.full((3,), -250 * 2.0**29))
    assert bool(found(600, 1e9)[0].isnan().all())


def test_an_invalid_list_gives_forces_that_are_not_numbers(backend: Backend) -> None:
    """An overflowing list on CUDA has distances of NaN and no pairs; forces of zero would hide it."""
    case = Case()
    case.pairs[:] = -1
    forces, energy = case.found(backend, torch.full_like(case.distances, float("nan")))
    assert bool(forces.isnan().all()) and bool(energy.isnan().all())
    gradient, pairs = torch.full((3000, 3), float("nan")), backend.place(case.pairs)
    assert bool(backend.operators.pair_force_sums(backend.place(gradient), pairs, case.num_atoms).isnan().all())


def test_kinds_of_pairs_equal_plain_torch(backend: Backend) -> None:
    species, partners = torch.tensor([1, 0, 0] * 5), torch.full((2, 15, 2), -1)
    for oxygen in range(0, 15, 3):  # bonded, and with one atom in between
        partners[0, oxygen] = torch.tensor([oxygen + 1, oxygen + 2])
        partners[0, oxygen + 1 : oxygen + 3, 0] = oxygen
        partners[1, oxygen + 1, 0], partners[1, oxygen + 2, 0] = oxygen + 2, oxygen + 1
    pairs = torch.combinations(torch.arange(15)).T.contiguous()
    pairs[:, 7] = -1
    found = backend.operators.pair_types(*(backend.place(tensor) for tensor in (pairs, species, partners)), 2)
    assert torch.equal(found.cpu(), pair_types_reference(pairs, species, partners, 2))


def test_shapes_are_known_beforehand() -> None:
    """As torch.compile asks for them."""
    pairs = torch.empty((2, 7), dtype=torch.int64, device="meta")
    assert torch.ops.openmm_gnn.pair_force_sums(torch.empty((7, 3), device="meta"), pairs, 4).shape == (4, 3)


@pytest.mark.parametrize(("tensor", "value"), [("types", -1), ("types", TYPES), ("pairs", 61), ("pairs", -1)])
def test_an_atom_or_a_type_that_there_is_not_makes_all_forces_nan(backend: Backend, tensor: str, value: int) -> None:
    """Nothing may wait for the device to refuse it. A pair with one atom of two is no padding."""
    case = Case()
    near = int((case.distances < CUTOFF).nonzero()[0])
    getattr(case, tensor)[..., near].view(-1)[-1] = value
    forces, energy = case.found(backend)
    assert bool(forces.isnan().all()) and bool(energy.isnan().all())


def test_wrong_arguments_are_refused_in_words(backend: Backend) -> None:
    case = Case()
    case.table = case.table[:, :3].contiguous()
    with pytest.raises(RuntimeError, match="a table of splines needs 4 knots and start below a finite cutoff"):
        case.found(backend)
    case.table = case.table.double()
    with pytest.raises(RuntimeError, match="table must be float32"):
        case.found(backend)
    with pytest.raises(RuntimeError, match=r"pair_forces has shape \(7, 3\): expected \(3000, 3\)"):
        backend.operators.pair_force_sums(backend.place(torch.zeros(7, 3)), backend.place(case.pairs), 61)
