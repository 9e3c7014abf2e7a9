"""Models of metatomic, computed by its own calculator of ASE in a process that knows nothing of this package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compiled_files import compiled
from exported_forces import example
from torch import Tensor

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.specs.force import ExportFormat
from openmm_gnn.features.learned_cv import LearnedCV
from openmm_gnn.forces.ase_calculator import ase_calculator
from openmm_gnn.forces.modules.exports import eager_module, export_for

ase = pytest.importorskip("ase", reason="ASE is not installed")
metatomic = pytest.importorskip("metatomic.torch", reason="metatomic-torch is not installed")
pytest.importorskip("metatomic_ase", reason="metatomic-ase is not installed")

NAMES = ["gamd-tip3p", "gamd-argon", "energy-torchmd-et"]
"""An energy with splines and charges in a box, forces without an energy, an energy without a box."""
BY_METATOMIC = """
import json, pathlib, sys, warnings
import ase.io, numpy
warnings.simplefilter("ignore")
from metatomic_ase import MetatomicCalculator
for path in pathlib.Path().glob("*.pt"):
    atoms = ase.io.read(path.with_suffix(".json"))
    calculator = MetatomicCalculator(
        path, extensions_directory="extensions", check_consistency=True, non_conservative="argon" in path.name
    )
    atoms.calc = calculator
    forces, energy = atoms.get_forces(), atoms.get_potential_energy()
    stress = atoms.get_stress() if atoms.pbc.all() else numpy.zeros(6)
    numpy.savez(path.with_suffix(".npz"), forces=forces, energy=energy, stress=stress)
assert not [name for name in sys.modules if name.startswith("openmm")]
"""


def atoms_of(name: str) -> Any:
    start = example(name).start
    symbols = ["X" if atom.element is None else atom.element.symbol for atom in start.topology.atoms()]
    box = start.box_vectors
    return ase.Atoms(symbols, 10 * start.positions, **({} if box is None else {"cell": 10 * box, "pbc": True}))


def written(name: str, path: Path) -> Path:
    return export_for(example(name).start, example(name).network, path, file_format=ExportFormat.METATOMIC)


def check_with_ase(folder: Path, names: list[str]) -> None:
    """Energy, forces and stress in another process beside our calculator's: 1e-5 of the largest, as float32 sums.

    The stress is checked by differences of our energies, which are float32: 15 eV in steps of 1e-6 eV over 2e-3 leave
    1e-3 eV, where its derivatives are 1 to 15.
    """
    import ase.io

    for name in names:
        written(name, folder / f"{name}.pt")
        ase.io.write(folder / f"{name}.json", atoms_of(name))
    command = [sys.executable, "-c", BY_METATOMIC]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in names:
        found, atoms = np.load(folder / f"{name}.npz"), atoms_of(name)
        atoms.calc = ase_calculator(example(name).network, example(name).start.topology)
        right = atoms.get_forces()
        assert np.abs(right).max() > 0.0
        assert found["forces"] == pytest.approx(right, abs=1e-5 * np.abs(right).max())
        if not example(name).network.conservative:
            assert np.isnan(found["stress"]).all()
            continue
        assert float(found["energy"]) == pytest.approx(atoms.get_potential_energy(), rel=1e-5)
        if atoms.pbc.all():
            for place, entry in ((0, (0, 0)), (3, (1, 2))):
                derivative = float(found["stress"][place] * atoms.cell.volume)
                assert strained(atoms, entry) == pytest.approx(derivative, abs=1e-3 + 1e-3 * abs(derivative))


def strained(atoms: Any, entry: tuple[int, int], step: float = 1e-3) -> float:
    """The derivative of the energy by an entry of the strain, eV."""
    energies = []
    for sign in (1.0, -1.0):
        strain = np.eye(3)
        strain[entry] += sign * step
        moved = ase.Atoms(atoms.symbols, atoms.positions @ strain, cell=atoms.cell @ strain, pbc=True)
        moved.calc = atoms.calc
        energies.append(moved.get_potential_energy())
    return (energies[0] - energies[1]) / (2 * step)


def test_metatomic_computes_what_our_calculator_computes(tmp_path: Path) -> None:
    check_with_ase(tmp_path, NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gamd-tip4pew", "gamd-amoeba-water", "energy-visnet", "energy-tensornet"])
def test_metatomic_computes_every_network(tmp_path: Path, name: str) -> None:
    check_with_ase(tmp_path, [name])


def engine() -> Path:
    """A program in C++ that does what PLUMED does."""
    import metatensor.torch
    import metatensor.utils
    import metatomic.torch.utils
    from torch.utils.cpp_extension import include_paths, library_paths

    prefixes = [
        Path(package.utils.cmake_prefix_path).parents[1] for package in (metatomic.torch, metatensor.torch, metatensor)
    ]
    libraries = [*library_paths(), *(str(prefix / "lib") for prefix in prefixes)]
    folders = [f"-I{path}" for path in [*include_paths(), *(prefix / "include" for prefix in prefixes)]]
    links = [f"-{kind}{path}" for path in libraries for kind in ("L", "Wl,-rpath,")]
    names = ["-lmetatomic_torch", "-lmetatensor_torch", "-lmetatensor", "-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu"]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"
    source = Path(__file__).parent / "cpp" / "metatomic_engine.cpp"
    return compiled(source, "-w", abi, *folders, *links, *names, "-lc10")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "output"), [("cv-alanine-dipeptide", "features"), ("gamd-tip3p", "energy")])
def test_an_engine_without_python_has_the_same_gradients(tmp_path: Path, name: str, output: str) -> None:
    one = example(name)
    start, box = one.start, one.start.box_vectors
    numbers = [atom.element.atomic_number for atom in start.topology.atoms()]
    given = [len(numbers), int(box is not None), *([] if box is None else box.flatten().tolist())]
    text = " ".join(map(repr, [*given, *numbers, *start.positions.flatten().tolist()]))
    command = [str(engine()), str(written(name, tmp_path / "model.pt")), str(tmp_path / "extensions"), output]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, value, *derivatives = np.array(done.stdout.split(), dtype=float)
    assert count == (one.network.num_outputs if isinstance(one.network, LearnedCV) else 1)
    eager = eager_module(one.network, start.topology)
    right, forces = eager(torch.from_numpy(start.positions), None if box is None else torch.from_numpy(box))
    assert value == pytest.approx(float(right), rel=1e-5)
    gradient = np.reshape(derivatives[:-9], (-1, 3))
    assert -gradient == pytest.approx(forces.numpy(), abs=1e-5 * float(forces.abs().max()))
    assert np.abs(derivatives[-9:]).max() > 0.1


def features(model: Any, numbers: Tensor, positions: Tensor, unit: str) -> Any:
    """The block of features, asked for by the name that PLUMED uses."""
    none = torch.zeros((3, 3), dtype=torch.float64)
    system = metatomic.System(numbers, positions, none, torch.zeros(3, dtype=torch.bool))
    asked = {"features": metatomic.ModelOutput(sample_kind="system")}
    return model([system], metatomic.ModelEvaluationOptions(unit, asked), True)["features"].block()


@pytest.mark.filterwarnings("ignore:the 'features' output name")
def test_plumed_finds_the_values_of_a_cv_and_their_gradients(tmp_path: Path) -> None:
    """As PLUMED's METATOMIC does: no atoms first, to count the features; then positions that depend on a strain.

    PLUMED hands over lengths in nm and no cell where there is none.
    """
    one = example("cv-alanine-dipeptide")
    assert isinstance(one.network, LearnedCV)
    path = written("cv-alanine-dipeptide", tmp_path / "cv.pt")
    model = metatomic.load_atomistic_model(str(path), str(tmp_path / "extensions"))
    numbers = torch.tensor([atom.element.atomic_number for atom in one.start.topology.atoms()], dtype=torch.int32)
    nothing = features(model, numbers[:0], torch.zeros((0, 3), dtype=torch.float64), "nm")
    assert len(nothing.properties) == one.network.num_outputs == 2
    strain = torch.eye(3, dtype=torch.float64, requires_grad=True)
    for unit, per_nm in (("nm", 1.0), ("Angstrom", 10.0)):
        positions = torch.from_numpy(one.start.positions * per_nm).requires_grad_() @ strain
        positions.retain_grad()
        values = features(model, numbers, positions, unit).values
        assert values.shape == (1, 2)
        for output in (0, 1):
            right, forces = eager_module(one.network, one.start.topology, output)(torch.from_numpy(one.start.positions))
            gradient = torch.autograd.grad(values[0, output], positions, retain_graph=True)[0] * per_nm
            torch.testing.assert_close(values[0, output], right, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(-gradient, forces, rtol=0.0, atol=1e-5 * float(forces.abs().max()))


def test_a_file_names_the_operators_alone_and_its_units(tmp_path: Path) -> None:
    path = export_for(
        example("gamd-argon").start,
        example("gamd-argon").network,
        tmp_path / "a.pt",
        file_format=ExportFormat.METATOMIC,
    )
    extra = {"extensions": ""}
    torch.jit.load(str(path), _extra_files=extra)
    (extension,) = json.loads(extra["extensions"])
    assert extension["name"] == "openmm_gnn_cpu"
    assert len(list((tmp_path / "extensions").rglob("libopenmm_gnn_cpu.so"))) == 1
    capabilities = metatomic.load_atomistic_model(str(path)).capabilities()
    assert (capabilities.length_unit, capabilities.dtype, capabilities.atomic_types) == ("nm", "float64", [18])
    assert capabilities.outputs["energy"].unit == "kJ/mol"
    assert capabilities.outputs["non_conservative_force"].unit == "kJ/mol/nm"


def test_other_atoms_a_selection_and_half_a_box_are_refused(tmp_path: Path) -> None:
    one = example("gamd-argon")
    path = written("gamd-argon", tmp_path / "a.pt")
    model = metatomic.load_atomistic_model(str(path))
    assert one.start.box_vectors is not None
    positions, cell = torch.from_numpy(one.start.positions), torch.from_numpy(one.start.box_vectors)
    numbers = torch.full((258,), 18, dtype=torch.int32)
    everywhere = torch.ones(3, dtype=torch.bool)

    def energy(system: Any, selection: Any = None) -> Any:
        asked = {"energy": metatomic.ModelOutput(unit="kJ/mol", sample_kind="system")}
        return model([system], metatomic.ModelEvaluationOptions("nm", asked, selection), False)

    with pytest.raises(torch.jit.Error, match="the types of 9 atoms came in"):
        energy(metatomic.System(numbers[:9], positions[:9], cell, everywhere))
    half = torch.tensor([True, True, False])
    flat = cell * torch.tensor([1.0, 1.0, 0.0])[:, None]
    with pytest.raises(torch.jit.Error, match="periodic in 2 directions"):
        energy(metatomic.System(numbers, positions, flat, half))
    from metatensor.torch import Labels

    chosen = Labels(["system", "atom"], torch.tensor([[0, 3], [0, 4]], dtype=torch.int32))
    with pytest.raises(torch.jit.Error, match="2 atoms are selected"):
        energy(metatomic.System(numbers, positions, cell, everywhere), chosen)
    with pytest.raises(SpecError, match="has all outputs of a CV"):
        export_for(one.start, one.network, path, output=1, file_format=ExportFormat.METATOMIC)
