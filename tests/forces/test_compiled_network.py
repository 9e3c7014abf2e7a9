"""VectorGAMD as one operator of the CPU against the network itself, in float64 and with autograd."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finite_differences import finite_difference_deviation
from small_water import water_on_a_lattice
from torch import Tensor
from torch._subclasses import FakeTensorMode
from warm_python import run_python

from openmm_gnn.base.specs.force import NeighborSpec, VectorGAMDSpec
from openmm_gnn.forces.modules.openmm_module import OpenMMModule, script_module
from openmm_gnn.md.systems.fluids import water_topology
from openmm_gnn.networks.vector_gamd import VectorGAMD
from openmm_gnn.networks.vector_gamd_forces import VectorGAMDForces

PER_EDGE, EDGE = 3, 0.96
TOPOLOGY = water_topology(PER_EDGE**3, EDGE)
BOXES = {
    "open": None,
    "cubic": EDGE * torch.eye(3, dtype=torch.float64),
    # Skewed, and narrower than the far cutoff's diameter: an atom sees several images of another, and its own.
    "triclinic": torch.tensor([[0.97, 0, 0], [0.3, 0.95, 0], [-0.25, 0.35, 0.96]], dtype=torch.float64),
}
TOLERANCE = 5e-6
"""Of the largest force: a force is a sum of some hundred float32 terms of its size, each rounded some 20 times on its
way, by 6e-8 each; roundings add up as their root."""


def positions(seed: int = 0, per_edge: int = PER_EDGE, edge: float = EDGE) -> Tensor:
    """Water whose atoms are away from a lattice, and partly outside the box."""
    placed = water_on_a_lattice(per_edge, edge / per_edge)
    return torch.from_numpy(placed + np.random.default_rng(seed).normal(0, 0.012, placed.shape) - 0.1)


def model_of(seed: int = 3, **changes: Any) -> VectorGAMD:
    """A network of random weights whose terms are all of one size."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"width": 16, "num_radial": 9, "force_scale": 30.0, "pair_radial": 14}
    model = VectorGAMD(VectorGAMDSpec(NeighborSpec(0.4, 0.06), (1, 8), **(sizes | changes)))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("bias", "norm.weight")):
                weight.add_(0.3 * torch.randn_like(weight))  # new ones are zeros and ones
        if model.pair_term is not None:
            model.pair_term.table[:, :-3] = 2 * torch.randn(model.pair_term.table[:, :-3].shape)
            if model.pair_term.charge_term is not None:
                model.pair_term.charge_term.charges.copy_(torch.tensor([3.0, -6.0]))
    return model.eval()


def plain(model: VectorGAMD, dtype: torch.dtype = torch.float64, topology: Any = TOPOLOGY) -> OpenMMModule:
    """The module without the operator."""
    module = OpenMMModule(copy.deepcopy(model).to(dtype), topology).eval()
    module.compiled = None
    return module


def compiled(model: VectorGAMD, topology: Any = TOPOLOGY) -> OpenMMModule:
    module = OpenMMModule(model, topology).eval()
    assert isinstance(module.compiled, VectorGAMDForces)
    return module


def assert_same(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], size_of_energy: float) -> None:
    largest = float(expected[1].abs().max())
    assert largest > 5
    torch.testing.assert_close(found[1].double(), expected[1], rtol=0, atol=TOLERANCE * largest)
    torch.testing.assert_close(found[0].double(), expected[0], rtol=0, atol=TOLERANCE * size_of_energy)


CASES: dict[str, dict[str, Any]] = {
    "direct": {},
    "energy": {"conservative": True},
    "one layer": {"conservative": True, "num_layers": 1},
    "three wide layers": {"conservative": True, "num_layers": 3, "width": 48},
    "pair term": {"conservative": True, "pair_cutoff": 0.5},
    "direct, pair term": {"pair_cutoff": 0.5},
    "charges": {"conservative": True, "pair_cutoff": 0.5, "charge_width": 0.12},
    "no bonds": {"conservative": True, "use_bonds": False},
}


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("case", CASES)
def test_the_operator_gives_the_networks_energy_and_forces(case: str, box: str) -> None:
    if case == "charges" and box == "open":
        pytest.skip("charges need a box; their refusal is tested with the module")
    model, placed = model_of(**CASES[case]), positions()
    expected = plain(model)(placed, BOXES[box])
    assert (float(expected[0]) != 0) == model.conservative
    assert_same(compiled(model)(placed, BOXES[box]), expected, 30.0 * len(placed))


def test_float32_positions_and_the_scripted_module_give_the_same() -> None:
    model, placed = model_of(conservative=True, pair_cutoff=0.5, charge_width=0.12), positions().float()
    box = BOXES["triclinic"]
    assert box is not None
    expected = plain(model)(placed.double(), box.float().double())
    scripted = torch.jit.freeze(script_module(model, TOPOLOGY))
    for module in (compiled(model), scripted):
        energy, forces = module(placed, box.float())
        assert energy.dtype == forces.dtype == torch.float32
        # Float32 positions below 1.2 nm are off by 6e-8 nm, and stiffnesses are some 100 forces per nm.
        assert_same((energy, forces), expected, 60.0 * len(placed))


def test_forces_are_minus_the_slope_of_the_energy() -> None:
    model = model_of(conservative=True, pair_cutoff=0.5, charge_width=0.12)
    # The energy, of some 1000 kJ/mol, is rounded at 1e-4, and differences of it at a step of 1e-3 nm at 0.05 kJ/mol/nm.
    assert finite_difference_deviation(compiled(model), positions(), BOXES["triclinic"], step=1e-3) < 2e-3


def test_the_lists_follow_moving_atoms_and_jumps_by_box_vectors() -> None:
    model, box = model_of(conservative=True, pair_cutoff=0.5), BOXES["triclinic"]
    assert box is not None
    reference, module = plain(model), compiled(model)
    generator = torch.Generator().manual_seed(2)
    start = positions()
    drift = 0.02 * torch.randn(start.shape, generator=generator, dtype=torch.float64)
    for step in range(12):
        jumps = torch.randint(-1, 2, start.shape, generator=generator).double() @ box
        placed, at_scale = start + 0.25 * step * drift + jumps, 1.0 + 0.01 * (step // 8)
        assert_same(module(placed, at_scale * box), reference(placed, at_scale * box), 30.0 * len(placed))
    assert isinstance(module.compiled, VectorGAMDForces)
    for neighbors in (module.compiled.near, module.compiled.far):
        assert neighbors.num_calls() == 12 and 3 <= neighbors.num_rebuilds() < 12


def test_one_module_serves_other_positions_types_and_back() -> None:
    model, box = model_of(conservative=True, pair_cutoff=0.5), BOXES["cubic"]
    assert box is not None
    module, reference = compiled(model), plain(model)
    for seed, dtype in ((0, torch.float64), (1, torch.float32), (2, torch.float64)):
        placed = positions(seed).to(dtype)
        expected = reference(placed.double(), box)
        assert_same(module(placed, box.to(dtype)), expected, 60.0 * len(placed))


def test_particles_that_the_network_does_not_see_get_no_force() -> None:
    model, placed = model_of(conservative=True), positions()
    chosen = [*range(9, 30), 2, 1, 0]
    module = OpenMMModule(model, TOPOLOGY, chosen).eval()
    reference = OpenMMModule(copy.deepcopy(model).double(), TOPOLOGY, chosen).eval()
    assert module.compiled is not None and reference.compiled is None
    expected = reference(placed, None)
    assert_same(module(placed, None), expected, 30.0 * len(placed))
    assert not expected[1][30:].any() and not expected[1][3:9].any()


def test_one_thread_and_three_give_the_same_and_each_the_same_twice() -> None:
    """Large enough that the operator uses three: 2000 pairs each, and as many as there are atoms."""
    per_edge, edge = 8, 2.4
    model, placed, box = model_of(conservative=True, pair_cutoff=0.5), positions(0, per_edge, edge), edge * torch.eye(3)
    topology = water_topology(per_edge**3, edge)
    found: dict[int, tuple[Tensor, Tensor]] = {}
    before = torch.get_num_threads()
    try:
        for threads in (1, 3, 3):
            torch.set_num_threads(threads)
            again = compiled(model, topology)(placed, box.double())
            assert threads not in found or all(torch.equal(a, b) for a, b in zip(again, found[threads], strict=True))
            found[threads] = again
    finally:
        torch.set_num_threads(before)
    assert_same(found[3], found[1], 30.0 * len(placed))
    assert not torch.equal(found[3][1], found[1][1])  # other sums were made


@pytest.mark.parametrize("instructions", ["portable", "avx2", "avx512"])
def test_every_instruction_set_gives_the_same(instructions: str) -> None:
    """Compiled three times from one source; a processor without the instructions takes the next best."""
    program = (
        "import sys, torch\n"
        "sys.path[:0] = ['tests/samples', 'tests/forces']\n"
        "from test_compiled_network import BOXES, assert_same, compiled, model_of, plain, positions\n"
        "for changes in ({}, {'conservative': True, 'width': 48, 'pair_cutoff': 0.5}):\n"
        "    model, placed = model_of(**changes), positions()\n"
        "    expected = plain(model)(placed, BOXES['triclinic'])\n"
        "    assert_same(compiled(model)(placed, BOXES['triclinic']), expected, 30.0 * len(placed))\n"
    )
    done = run_python("-c", program, cwd=Path(__file__).parents[2], env={**os.environ, "OPENMM_GNN_CPU": instructions})
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_energy_is_conserved_to_second_order_in_the_time_step() -> None:
    """Velocity Verlet keeps an energy that differs from the true one by a multiple of the step squared.

    Where splines begin, forces have a step, which these do not reach.
    """
    model, masses = (
        model_of(conservative=True, min_distance=0.0),
        torch.tensor([16.0, 1.0, 1.0] * PER_EDGE**3).double()[:, None],
    )
    module, box = compiled(model), BOXES["cubic"]

    def spread(step: float, steps: int) -> float:
        generator = torch.Generator().manual_seed(1)
        placed = positions()
        velocities = torch.randn(placed.shape, generator=generator, dtype=torch.float64) / masses.sqrt()
        totals, (energy, forces) = [], module(placed, box)
        for _ in range(steps):
            velocities = velocities + 0.5 * step * forces / masses
            placed = placed + step * velocities
            energy, forces = module(placed, box)
            velocities = velocities + 0.5 * step * forces / masses
            totals.append(float(energy + 0.5 * (masses * velocities**2).sum()))
        return float(np.std(totals))

    wide, narrow = spread(0.002, 60), spread(0.001, 120)
    assert 1e-3 < wide < 1 and 3.5 < wide / narrow < 4.5


def test_a_full_list_and_positions_that_are_not_finite_are_refused_in_words() -> None:
    crowded = VectorGAMD(VectorGAMDSpec(NeighborSpec(0.4, 0.06, max_neighbors=2), (1, 8), width=16)).eval()
    with pytest.raises(RuntimeError, match="raise max_neighbors to at least"):
        compiled(crowded)(positions(), BOXES["cubic"])
    placed = positions()
    placed[4, 1] = float("nan")
    with pytest.raises(RuntimeError, match="position of atom 4 is"):
        compiled(model_of())(placed, BOXES["cubic"])


def test_stored_kinds_that_are_none_are_refused() -> None:
    module, placed = compiled(model_of(pair_cutoff=0.5)), positions()
    module(placed, None)
    assert isinstance(module.compiled, VectorGAMDForces)
    for kinds, number in ((module.compiled.near_kinds, 9), (module.compiled.far_kinds, -1)):
        kept = int(kinds[0])
        kinds[0] = number
        with pytest.raises(RuntimeError, match=f"stored pair 0 is of kind {number}: there are 9"):
            module(placed, None)
        kinds[0] = kept
    module(placed, None)


def test_shapes_are_known_without_computing() -> None:
    module, box = compiled(model_of(conservative=True, pair_cutoff=0.5)), BOXES["cubic"]
    assert box is not None
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        energy, forces = module(mode.from_tensor(positions()), mode.from_tensor(box))
    assert energy.shape == () and forces.shape == (81, 3) and forces.dtype == torch.float64
