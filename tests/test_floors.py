"""The floors of the house: a folder imports lower floors alone, absolutely, and one file alone knows TorchForce."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "openmm_gnn"
FLOORS = {
    "base": 0,
    "kernels": 1,
    "md": 2,
    "graph": 2,
    "networks": 3,
    "features": 4,
    "forces": 5,
    "data": 6,
    "reporters": 6,
    "learning": 7,
    "runs": 7,
    "kinetics": 8,
    "analysis": 9,
    "cli": 10,
    "__version__": -1,
    "__init__": 11,
    "__main__": 11,
}
ONLY_IMPORTER = {"openmmtorch": "openmm_gnn/md/torch_plugin.py"}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def room_of(module: str) -> str:
    """The folder of a dotted module name of this package, its first name below `openmm_gnn`."""
    return [*module.split("."), "__init__"][1]


def floor_of(module: str) -> int:
    """The floor of a dotted module name of this package."""
    room = room_of(module)
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
            # `from openmm_gnn import units` names a room, `from openmm_gnn.base.units import kelvin` a thing in one.
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
        elif top == "openmm_gnn" and room_of(name) != room_of(module) and floor_of(name) >= floor_of(module):
            wrong.append(f"{module} (floor {floor_of(module)}) imports {name} (floor {floor_of(name)})")
    return wrong


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_module_imports_its_own_folder_or_lower_floors(path: Path) -> None:
    assert wrong_imports(module_name(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("openmm_gnn.graph.cutoff", "from openmm_gnn.networks.gamd import GAMD"),
        ("openmm_gnn.base.units", "def late():\n    import openmm_gnn.base.errors, openmm_gnn.forces.gamd_force"),
        ("openmm_gnn.kernels.library", "if TYPE_CHECKING:\n    from openmm_gnn import cli"),
        ("openmm_gnn.kernels.library", "from openmm_gnn.md.contexts import make_context"),  # the same floor
        ("openmm_gnn.networks.gamd", "from ..kernels import library"),
        ("openmm_gnn.networks.gamd", "import openmm_gnn\nprint(openmm_gnn.forces)"),
        ("openmm_gnn.forces.gamd_force", "import openmmtorch"),
        ("openmm_gnn.cli.doctor", "def probe():\n    from openmmtorch import TorchForce"),
    ],
)
def test_the_rules_see_a_wrong_import(module: str, source: str) -> None:
    assert len(wrong_imports(module, source)) == 1


def test_any_module_may_take_the_version() -> None:
    assert wrong_imports("openmm_gnn.base.units", "import openmm_gnn\nprint(openmm_gnn.__version__)") == []


def test_a_module_without_a_floor_is_refused() -> None:
    with pytest.raises(LookupError, match="attic"):
        wrong_imports("openmm_gnn.attic.box", "from openmm_gnn.base.units import kelvin")


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_module_says_in_a_docstring_what_it_holds(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_module_holds_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {path.parent for path in SOURCES}
    assert sorted(str(folder) for folder in folders if not (folder / "__init__.py").is_file()) == []
