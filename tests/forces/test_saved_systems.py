"""A System that one process saves, as XML or by pickle, opens in another that has done no more than import us."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
from command_lines import invoke
from exported_forces import SHIPPED, evaluated, example
from openmm import app, unit
from warm_python import run_python

import openmm_gnn
from openmm_gnn.forces.backends import available_backends
from openmm_gnn.forces.gamd_force import gamd_force
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.runs.directory import RunDirectory

OPEN = """
import glob, pickle
import openmm
assert "torch" not in __import__("sys").modules
import openmm_gnn
import numpy as np
platform = openmm.Platform.getPlatformByName("CPU")
for path in sorted(glob.glob("*.xml") + glob.glob("*.pickle")):
    if path.endswith(".xml"):
        system = openmm.XmlSerializer.deserialize(open(path).read())
    else:
        with open(path, "rb") as file:
            system = pickle.load(file)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(np.load(path.partition(".")[0] + ".npy"))
    state = context.getState(energy=True, forces=True)
    forces = state.getForces(asNumpy=True)._value
    np.savez(path, energy=state.getPotentialEnergy()._value, forces=forces)
"""
NAMES = [*SHIPPED, "energy-tensornet"]
PICKLED = "gamd-tip3p"
"""A pickled System is XML inside: one is enough."""


@pytest.fixture(scope="module", params=available_backends())
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder with what other processes found, and the Systems' own energies and forces by name."""
    folder, expected = tmp_path_factory.mktemp("saved"), {}
    for name in NAMES:
        system, positions = example(name).system(request.param), example(name).start.positions
        expected[name] = evaluated(system, positions)
        (folder / f"{name}.xml").write_text(openmm.XmlSerializer.serialize(system))
        if name == PICKLED:
            (folder / f"{name}.pickle").write_bytes(pickle.dumps(system))
        np.save(folder / f"{name}.npy", positions)
    place = {**os.environ, "PYTHONPATH": str(Path(openmm_gnn.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", OPEN], cwd=folder, env=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, expected


@pytest.mark.slow
@pytest.mark.parametrize("file", [*(f"{name}.xml" for name in NAMES), f"{PICKLED}.pickle"])
def test_a_saved_system_computes_the_same_in_a_new_process(opened: tuple[Path, Any], file: str) -> None:
    """To 1e-6 of energy and largest force; of learned CVs, which are computed by other operators there, to 1e-5.

    A CV of this process and one that was loaded add up the same float32 terms in another order: some hundred terms,
    each of a rounding of 6e-8.
    """
    folder, expected = opened
    energy, forces = expected[file.partition(".")[0]]
    found = np.load(folder / f"{file}.npz")
    allowed = 1e-5 if file.startswith("cv-") else 1e-6
    assert abs(found["energy"] - energy) <= allowed * max(abs(energy), 1.0)
    assert np.abs(forces).max() > 0
    assert np.abs(found["forces"] - forces).max() <= allowed * np.abs(forces).max()


@pytest.fixture
def saved_argon(tmp_path: Path) -> tuple[str, ...]:
    """The arguments of `simulate` for a System with the force of a network alone, saved as XML, and its PDB file."""
    argon = load_system("argon")
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*argon.system.getDefaultPeriodicBoxVectors())
    for _ in argon.positions:
        system.addParticle(39.9)
    system.addForce(gamd_force("gamd-argon", argon.topology, periodic=True))
    (tmp_path / "saved.xml").write_text(openmm.XmlSerializer.serialize(system))
    with (tmp_path / "argon.pdb").open("w") as file:
        app.PDBFile.writeFile(argon.topology, argon.positions * unit.nanometer, file)
    files = ("simulate", str(tmp_path / "saved.xml"), "--topology", str(tmp_path / "argon.pdb"))
    return (
        *files,
        "--out",
        str(tmp_path / "run"),
        *["--steps", "10", "--stride", "5", "--equilibration", "0", "--temperature", "90"],
    )


def test_a_saved_system_is_simulated_by_its_own_network(saved_argon: tuple[str, ...], tmp_path: Path) -> None:
    done = invoke(saved_argon)
    assert done.exit_code == 0, done.output
    assert len(RunDirectory(tmp_path / "run").read_positions()[0]) == 2


@pytest.mark.parametrize("kind", ["FooForce", "TorchForce" if hasattr(openmm, "PythonForce") else "PythonForce"])
def test_a_force_that_cannot_be_read_here_is_named(saved_argon: tuple[str, ...], tmp_path: Path, kind: str) -> None:
    own = "PythonForce" if hasattr(openmm, "PythonForce") else "TorchForce"
    text = (tmp_path / "saved.xml").read_text()
    (tmp_path / "saved.xml").write_text(text.replace(f'type="{own}"', f'type="{kind}"'))
    words = {
        "FooForce": "has a FooForce of a plugin that is not installed here",
        "PythonForce": "has a PythonForce, which came with OpenMM 8.5",
        "TorchForce": "TorchForce is not available: openmmtorch is not installed",
    }
    assert words[kind] in str(invoke(saved_argon).exception)


@pytest.mark.skipif("torchforce" not in available_backends(), reason="no openmmtorch")
def test_a_foreign_torchforce_says_what_it_needs(saved_argon: tuple[str, ...], tmp_path: Path) -> None:
    """In a process of its own, which knows the foreign operator."""
    program = """
        import sys, openmm, openmmtorch, torch
        library = torch.library.Library("foreign", "DEF")
        library.define("twice(Tensor x) -> Tensor")
        class Foreign(torch.nn.Module):
            def forward(self, positions: torch.Tensor) -> torch.Tensor:
                return torch.ops.foreign.twice(positions).sum()
        system = openmm.XmlSerializer.deserialize(open(sys.argv[1]).read())
        system.addForce(openmmtorch.TorchForce(torch.jit.script(Foreign())))
        open(sys.argv[1], "w").write(openmm.XmlSerializer.serialize(system))
        """
    (tmp_path / "foreign.py").write_text("import openmm_gnn\n" + textwrap.dedent(program))
    done = run_python(tmp_path / "foreign.py", tmp_path / "saved.xml")
    assert done.returncode == 0, done.stderr
    words = str(invoke(saved_argon).exception)
    assert "has a TorchForce whose module calls the operator foreign::twice of another package: import that" in words
