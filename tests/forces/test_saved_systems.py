"""A System that one process saves, as XML or by pickle, opens in another that has done no more than import us."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import pytest
from exported_forces import SHIPPED, evaluated, example

import openmm_gnn
from openmm_gnn.forces.backends import available_backends

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
