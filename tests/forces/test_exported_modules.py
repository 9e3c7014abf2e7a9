"""Exported files compute in programs that know nothing of this package but the library of its operators."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from compiled_files import ROOT, compiled
from exported_forces import example
from torch import Tensor
from torch.utils.cpp_extension import include_paths, library_paths

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.specs.force import ExportFormat
from openmm_gnn.forces.modules.exports import eager_module, export_for, exported_module, load_exportable
from openmm_gnn.kernels.library import PACKAGE
from openmm_gnn.kernels.written_gradients import OPEN_SIZE, operators_of, written_out
from openmm_gnn.networks.force_model import ForceModel

LIBRARY = PACKAGE / "libopenmm_gnn_cpu.so"
NAMES = ["gamd-argon-node", "gamd-tip3p", "cv-alanine-dipeptide"]
"""Forces without an energy, an energy with a pair term and charges on a grid, and a learned CV."""
ROUNDING = 1e-5
"""Of the largest force: float32 sums of some hundred terms, in another order."""
WITHOUT_PACKAGE = f"""
import glob, sys, torch
torch.ops.load_library({str(LIBRARY)!r})
for path in glob.glob("*.pt"):
    positions, box = torch.load(path + ".inputs")
    module = torch.jit.load(path)
    frozen = torch.jit.freeze(module.eval())
    torch.save([module(positions, box), frozen(positions, box), frozen(positions, box)], path + ".python")
assert not [name for name in sys.modules if name.startswith("openmm")]
"""


def inputs_of(name: str) -> tuple[Tensor, Tensor | None]:
    start = example(name).start
    return torch.from_numpy(start.positions), None if start.box_vectors is None else torch.from_numpy(start.box_vectors)


@cache
def eager(name: str) -> tuple[float, np.ndarray]:
    """Energy and forces by the module in plain PyTorch, whose gradients are autograd's."""
    one = example(name)
    energy, forces = eager_module(one.network, one.start.topology)(*inputs_of(name))
    return float(energy), forces.detach().numpy()


def check_same(name: str, energy: float, forces: np.ndarray) -> None:
    right_energy, right_forces = eager(name)
    assert abs(energy - right_energy) <= ROUNDING * max(abs(right_energy), 1.0)
    assert np.abs(right_forces).max() > 0
    assert np.abs(forces - right_forces).max() <= ROUNDING * np.abs(right_forces).max()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("exported")
    for name in NAMES:
        one = example(name)
        export_for(one.start, one.network, folder / f"{name}.pt")
        torch.save(inputs_of(name), folder / f"{name}.pt.inputs")
    return {name: folder / f"{name}.pt" for name in NAMES}


@pytest.fixture(scope="module")
def program() -> Path:
    """The C++ program of the examples."""
    folders = [f"-I{path}" for path in include_paths()] + [f"-L{path}" for path in library_paths()]
    links = [f"-Wl,-rpath,{path}" for path in library_paths()] + ["-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu"]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"
    return compiled(ROOT / "examples" / "exported_forces.cpp", "-w", abi, *folders, *links, "-lc10", "-ldl")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_cpp_program_computes_what_python_does(files: Mapping[str, Path], program: Path, name: str) -> None:
    positions, box = inputs_of(name)
    values = [len(positions), int(box is not None), *([] if box is None else box.flatten().tolist())]
    numbers = " ".join(map(repr, [*values, *positions.flatten().tolist()]))
    command = [str(program), str(LIBRARY), str(files[name])]
    done = subprocess.run(command, input=numbers, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.array(done.stdout.split(), dtype=float)
    check_same(name, float(found[0]), found[1:].reshape(-1, 3))


def test_python_needs_the_library_alone(files: Mapping[str, Path]) -> None:
    folder = files[NAMES[0]].parent
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PACKAGE], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        for energy, forces in torch.load(f"{files[name]}.python"):  # also as OpenMM does, frozen
            check_same(name, float(energy), forces.numpy())


def test_a_written_gradient_serves_any_number_of_pairs() -> None:
    """From none to many, also where autograd would have to be asked."""
    name = "energy-torchmd-et"
    one = example(name)
    assert isinstance(one.network, ForceModel)
    module, right = (
        exported_module(one.network, one.start.topology, False),
        eager_module(one.network, one.start.topology),
    )
    assert "aten::requires_grad" not in str(module.model.written.graph)
    for scale in (100.0, 2.5, 2.0, 1.0):
        positions = scale * torch.from_numpy(one.start.positions)
        energy, forces = module(positions, None)
        right_energy, right_forces = right(positions, None)
        torch.testing.assert_close(energy, right_energy, rtol=ROUNDING, atol=0)
        torch.testing.assert_close(forces, right_forces, rtol=0, atol=ROUNDING * float(right_forces.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["energy-visnet", "energy-tensornet", "gamd-amoeba-water", "gamd-tip4pew"])
def test_every_network_can_be_written_out(name: str) -> None:
    one = example(name)
    energy, forces = torch.jit.freeze(exported_module(one.network, one.start.topology, one.start.periodic))(
        *inputs_of(name)
    )
    check_same(name, float(energy), forces.numpy())


def test_a_size_that_is_written_into_a_graph_is_refused() -> None:
    with pytest.raises(ValueError, match="the graph would serve no other size"):
        written_out(lambda x: x * int(x.size(0)), [torch.zeros(OPEN_SIZE)])


def test_a_graph_names_its_operators_and_lets_them_choose_threads() -> None:
    from openmm_gnn.kernels.neighbor_pairs import neighbor_pairs

    graph = written_out(lambda x: neighbor_pairs(x, 0.5)[2].sum(), [torch.zeros(5, 3)])
    assert operators_of(graph) == ["neighbor_pairs"]
    assert "0.5, True, True, 0)" in graph.code


def test_a_cv_is_exported_with_or_without_a_box_and_says_so(files: Mapping[str, Path]) -> None:
    positions, _ = inputs_of("cv-alanine-dipeptide")
    module = torch.jit.load(str(files["cv-alanine-dipeptide"]))
    with pytest.raises(torch.jit.Error, match="periodic=False: give box vectors just then"):
        module(positions, torch.eye(3, dtype=torch.float64))
    one = example("cv-alanine-dipeptide")
    with pytest.raises(SpecError, match="output is 7: the CV has 2"):
        exported_module(one.network, one.start.topology, False, output=7)


def test_what_is_exported_may_be_a_name_or_a_file(tmp_path: Path) -> None:
    from openmm_gnn.features.learned_cv import LearnedCV, save_learned_cv

    cv = load_exportable("alanine-dipeptide")
    assert isinstance(cv, LearnedCV)
    assert isinstance(load_exportable(save_learned_cv(cv, tmp_path / "cv.safetensors")), LearnedCV)
    assert isinstance(load_exportable("gamd-argon"), ForceModel)


RUN_PROGRAMS = f"""
import glob, sys, torch
torch.ops.load_library({str(LIBRARY)!r})
for path in glob.glob("*.pt2"):
    inputs = [one for one in torch.load(path + ".inputs") if one is not None]
    is_compiled = path.startswith("compiled")
    call = torch._inductor.aoti_load_package(path) if is_compiled else torch.export.load(path).module()
    torch.save(call(*inputs), path + ".python")
assert not [name for name in sys.modules if name.startswith("openmm")]
"""
PROGRAMS = ["gamd-tip3p", "cv-alanine-dipeptide"]
OTHER_PROGRAMS = [
    "gamd-amoeba-water",
    "gamd-argon",
    "gamd-argon-node",
    "gamd-tip4pew",
    "energy-torchmd-et",
    "energy-visnet",
    "energy-tensornet",
]


def check_programs(folder: Path, names: Sequence[str], file_format: ExportFormat) -> None:
    """Written here, at other positions than those of `inputs_of`, and run by a process without this package."""
    for name in names:
        one = example(name)
        moved = one.start.positions + 0.005 * np.random.default_rng(3).normal(size=one.start.positions.shape)
        path = folder / f"{'compiled' if file_format is ExportFormat.AOTI else 'program'}-{name}.pt2"
        export_for(dataclasses.replace(one.start, positions=moved), one.network, path, file_format=file_format)
        torch.save(inputs_of(name), f"{path}.inputs")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN_PROGRAMS], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = {path.name.partition("-")[2].removesuffix(".pt2.python"): path for path in folder.glob("*.python")}
    assert sorted(found) == sorted(names)
    for name, path in found.items():
        energy, forces = torch.load(path)
        check_same(name, float(energy), forces.numpy())


@pytest.mark.slow
def test_programs_of_torch_export_need_no_torchscript(tmp_path: Path) -> None:
    check_programs(tmp_path, PROGRAMS, ExportFormat.PT2)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER_PROGRAMS)
def test_every_network_is_a_program(tmp_path: Path, name: str) -> None:
    check_programs(tmp_path, [name], ExportFormat.PT2)


@pytest.mark.slow
def test_a_compiled_program_computes_the_same(tmp_path: Path) -> None:
    check_programs(tmp_path, ["gamd-argon"], ExportFormat.AOTI)


def test_the_ending_of_a_file_says_its_format(tmp_path: Path) -> None:
    one = example("gamd-argon")
    with pytest.raises(DataError, match=r"x.pt is to be of the format pt2: give a name that ends in .pt2"):
        export_for(one.start, one.network, tmp_path / "x.pt", file_format=ExportFormat.PT2)
