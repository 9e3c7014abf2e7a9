"""Files for GROMACS, opened and called as its NNPot does it, in a process that knows nothing of this package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from exported_forces import bare, example, water
from torch import Tensor

from openmm_gnn.base.errors import SpecError, TopologyError
from openmm_gnn.base.specs.force import ExportFormat
from openmm_gnn.forces.modules.exports import eager_module, export_for
from openmm_gnn.forces.modules.nnpot import nnpot_module
from openmm_gnn.md.simulation_system import SimulationSystem

NAMES = ["gamd-tip3p", "gamd-argon", "argon-without-box"]
"""An energy with splines and charges on a grid, forces without an energy, and input without box and pbc."""
AS_GROMACS = """
import ctypes, glob, sys, torch
for path in glob.glob("*.pt"):
    record = torch._C.PyTorchFileReader(path).get_record("extra/extension_libs").decode()
    for library in record.split(":"):
        ctypes.CDLL(library, mode=1)  # RTLD_LAZY
torch._C._set_graph_executor_optimize(False)
for path in glob.glob("*.pt"):
    module = torch.jit.load(path).eval()
    positions, *inputs = torch.load(path + ".inputs")
    output = module(positions.requires_grad_(True), *inputs)
    assert isinstance(output, tuple) and not [name for name in sys.modules if name.startswith("openmm")]
    torch.save(output, path + ".output")
"""


def start_of(name: str) -> SimulationSystem:
    start = example("gamd-argon" if name == "argon-without-box" else name).start
    return bare(start.topology, start.positions) if name == "argon-without-box" else start


def inputs_of(name: str) -> list[Tensor]:
    """What GROMACS in single precision gives, in the order of nnpot-model-input1 to 4."""
    start = start_of(name)
    numbers = [atom.element.atomic_number for atom in start.topology.atoms()]
    inputs = [torch.from_numpy(start.positions).float(), torch.tensor(numbers, dtype=torch.int32)]
    if start.box_vectors is None:
        return inputs
    return [*inputs, torch.from_numpy(start.box_vectors).float(), torch.tensor([True, True, True])]


@pytest.mark.slow
def test_gromacs_finds_the_operators_the_energy_and_the_forces(tmp_path: Path) -> None:
    """To the rounding of float32: sums of some hundred terms in another order, 1e-5 of the largest force."""
    for name in NAMES:
        network = example("gamd-argon" if name == "argon-without-box" else name).network
        export_for(start_of(name), network, tmp_path / f"{name}.pt", file_format=ExportFormat.NNPOT)
        torch.save(inputs_of(name), tmp_path / f"{name}.pt.inputs")
    command = [sys.executable, "-W", "ignore", "-c", AS_GROMACS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        energy, forces = torch.load(tmp_path / f"{name}.pt.output")
        network = example("gamd-argon" if name == "argon-without-box" else name).network
        positions, _, *rest = inputs_of(name)
        eager = eager_module(network, start_of(name).topology)
        right_energy, right_forces = eager(positions.double(), rest[0].double() if rest else None)
        assert forces.dtype == torch.float32
        largest = float(right_forces.abs().max())
        assert largest > 10.0
        torch.testing.assert_close(forces.double(), right_forces, rtol=0.0, atol=1e-5 * largest)
        torch.testing.assert_close(energy.double(), right_energy, rtol=1e-5, atol=0.0)


def test_other_atoms_and_half_a_box_are_refused() -> None:
    module = nnpot_module(example("gamd-argon").network, start_of("gamd-argon").topology)
    positions, numbers, box, pbc = inputs_of("gamd-argon")
    with pytest.raises(torch.jit.Error, match="not those of the 258 atoms of the topology"):
        module(positions, numbers + 1, box, pbc)
    with pytest.raises(torch.jit.Error, match="not those of the 258 atoms of the topology"):
        module(positions[:9], numbers[:9], box, pbc)
    with pytest.raises(torch.jit.Error, match="not periodic in all directions"):
        module(positions, numbers, box, torch.tensor([True, True, False]))


def test_a_cv_and_particles_without_an_element_are_refused() -> None:
    cv = example("cv-alanine-dipeptide")
    with pytest.raises(SpecError, match="--format metatomic, for PLUMED"):
        nnpot_module(cv.network, cv.start.topology)
    with pytest.raises(TopologyError, match="64 particles have no element"):
        nnpot_module(example("gamd-tip4pew").network, water(with_sites=True).topology)
