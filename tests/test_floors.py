"""The floors of the house: a file imports its own floor or lower, absolutely, and one file alone knows TorchForce."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "openmm_gnn"
FLOORS = {
    "units": 0,
    "errors": 0,
    "spec": 0,
    "cv_spec": 0,
    "property_spec": 0,
    "growing_array": 0,
    "kernels": 1,
    "graph": 2,
    "models": 3,
    "export": 4,
    "features": 4,
    "forces": 5,
    "reporters": 5,
    "training": 5,
    "pretraining": 5,
    "simulation": 5,
    "analysis": 5,
    "kinetics": 5,
    "doctor": 6,
    "doctor_probes": 6,
    "cli": 6,
    "__version__": 0,
    "__init__": 6,
    "__main__": 6,
}
ONLY_IMPORTER = {"openmmtorch": "openmm_gnn/forces/torch_force.py"}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def floor_of(module: str) -> int:
    """The floor of a dotted module name of this package."""
    room = [*module.split("."), "__init__"][1]
    if room not in FLOORS:
        raise LookupError(f"{module} has no floor: give {room!r} one in FLOORS")
    return FLOORS[room]


def imported_modules(source: str) -> list[str]:
    """Every module named by an import statement anywhere in the source; a relative import keeps its dots.

    `import openmm_gnn` alone brings nothing in, the package is lazy: what counts is the name taken from it.
    """
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name != "openmm_gnn"]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            # `from openmm_gnn import units` names a room, `from openmm_gnn.units import kelvin` a thing in one.
            names += [f"{module}.{alias.name}" for alias in node.names] if module == "openmm_gnn" else [module]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "openmm_gnn":
            names.append(f"openmm_gnn.{node.attr}")
    return names


def wrong_imports(module: str, source: str) -> list[str]:
    """What a module of this package imports against the rules, in words."""
    path = module.replace(".", "/") + ".py"
    wrong = []
    for name in imported_modules(source):
        top = name.split(".")[0]
        if name.startswith("."):
            wrong.append(f"{module} imports {name}: write it absolutely")
        elif top in ONLY_IMPORTER and path != ONLY_IMPORTER[top]:
            wrong.append(f"{module} imports {name}: only {ONLY_IMPORTER[top]} may")
        elif top == "openmm_gnn" and floor_of(name) > floor_of(module):
            wrong.append(f"{module} (floor {floor_of(module)}) imports {name} (floor {floor_of(name)})")
    return wrong


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_module_imports_its_own_floor_or_lower(path: Path) -> None:
    assert wrong_imports(module_name(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("openmm_gnn.graph.cutoff", "from openmm_gnn.models.gamd import GAMD"),
        ("openmm_gnn.units", "def late():\n    import openmm_gnn.spec, openmm_gnn.forces.gamd_force"),
        ("openmm_gnn.kernels.library", "from openmm_gnn import cli"),
        ("openmm_gnn.models.gamd", "from ..kernels import library"),
        ("openmm_gnn.models.gamd", "import openmm_gnn\nprint(openmm_gnn.forces)"),
        ("openmm_gnn.forces.gamd_force", "import openmmtorch"),
        ("openmm_gnn.doctor", "def probe():\n    from openmmtorch import TorchForce"),
    ],
)
def test_the_rules_see_a_wrong_import(module: str, source: str) -> None:
    assert len(wrong_imports(module, source)) == 1


def test_any_module_may_take_the_version() -> None:
    assert wrong_imports("openmm_gnn.units", "import openmm_gnn\nprint(openmm_gnn.__version__)") == []


def test_a_module_without_a_floor_is_refused() -> None:
    with pytest.raises(LookupError, match="attic"):
        wrong_imports("openmm_gnn.attic.box", "from openmm_gnn.units import kelvin")


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_module_says_in_a_docstring_what_it_holds(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_module_holds_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {path.parent for path in SOURCES}
    assert sorted(str(folder) for folder in folders if not (folder / "__init__.py").is_file()) == []
