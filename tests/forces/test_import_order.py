"""A script may import OpenMM before torch, as most do: the force must work all the same."""

from __future__ import annotations

import subprocess
import sys

from warm_python import run_python

PROGRAM = """
import openmm
assert "torch" not in __import__("sys").modules
from openmm_gnn.forces.doctor_probes import probe_force
from openmm_gnn.forces.backends import available_backends
names = {"torchforce": "TorchForce", "pythonforce": "PythonForce"}
for backend in available_backends():
    print("error:", probe_force(names[backend.value], "PLATFORM")["error"])
"""


def test_every_backend_works_where_openmm_was_imported_first(platform_name: str) -> None:
    program = PROGRAM.replace("PLATFORM", platform_name)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    errors = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("error:")]
    assert errors
    assert max(errors) < 1e-4


def test_choosing_a_backend_prints_nothing() -> None:
    program = "from openmm_gnn.forces.backends import available_backends; assert available_backends()"
    done = run_python("-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
