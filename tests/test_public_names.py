"""What `import openmm_gnn` gives, and what it must not do."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from warm_python import run_python

import openmm_gnn

ROOT = Path(__file__).parents[1]
PATHS = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "openmm_gnn").rglob("*.py")]
OF_AN_EXTRA = {"openmm_gnn.forces.modules.metatomic_model": importlib.util.find_spec("metatomic") is None}
"""Modules that import a package of an extra, and whether it is missing here."""
MODULES = sorted(".".join(path.parts) for path in PATHS if path.name not in ("__init__", "__main__"))


def printed_by(program: str) -> str:
    """stdout and stderr of a Python program in a fresh process, which must succeed."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, openmm_gnn; print(sorted({'torch', 'openmm', 'numpy', 'lightning'} & set(sys.modules)))"
    assert printed_by(program) == "[]\n"


def test_importing_the_command_line_imports_nothing_heavy() -> None:
    program = "import sys, openmm_gnn.cli; print(sorted({'torch', 'openmm', 'lightning'} & set(sys.modules)))"
    assert printed_by(program) == "[]\n"


def test_importing_every_module_prints_nothing_and_touches_no_device() -> None:
    imports = "\n".join(f"import {name}" for name in MODULES if not OF_AN_EXTRA.get(name, False))
    done = run_python("-c", f"{imports}\nimport torch\nassert not torch.cuda.is_initialized()")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", openmm_gnn.__all__)
def test_each_public_name_exists_and_is_documented(name: str) -> None:
    value = getattr(openmm_gnn, name)
    assert name == "__version__" or value.__doc__
    assert name in dir(openmm_gnn)


def test_each_public_name_is_the_one_of_its_module() -> None:
    assert openmm_gnn.neighbor_pairs is importlib.import_module("openmm_gnn.kernels.neighbor_pairs").neighbor_pairs


FOLDERS_OF_SCRIPTS = (ROOT / "benchmarks", ROOT / "examples")
SCRIPTS = sorted(path.relative_to(ROOT) for folder in FOLDERS_OF_SCRIPTS for path in folder.rglob("*.py"))


@pytest.mark.parametrize("path", SCRIPTS, ids=str)
def test_what_a_script_imports_from_the_package_exists(path: Path) -> None:
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "openmm_gnn":
            module = importlib.import_module(node.module)
            missing = [one.name for one in node.names if not hasattr(module, one.name)]
            missing = [name for name in missing if f"{node.module}.{name}" not in MODULES]
            assert not missing, f"{path}: {node.module} has no {missing}"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'gamd_farce'"):
        _ = openmm_gnn.gamd_farce


def test_the_version_is_that_of_the_project_file() -> None:
    written = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert written is not None
    assert openmm_gnn.__version__ == written.group(1)
