"""The documents tell the truth: their Python runs, their commands parse, their links lead somewhere."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from warm_python import run_python

import openmm_gnn
from openmm_gnn import cli
from openmm_gnn.cli.options import Command, parse

ROOT = Path(__file__).parents[1]
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
DOCUMENTS = ["README.md", "CONTRIBUTING.md", *PAGES]
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))
OF_PAGES_ALONE = ["demo", "import-conformers"]
"""Commands that README does not show: make calls the first one, the other is of the page on encoders."""
LONGEST_README = 12 * 1024
"""Bytes: what a newcomer reads to the end."""


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of a language in a document."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(), flags=re.MULTILINE | re.DOTALL)


def cells(notebook: Path) -> list[dict[str, Any]]:
    """The code cells of a notebook."""
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def source(cell: dict[str, Any]) -> str:
    """What is written in a cell."""
    return "".join(cell["source"])


def commands(program: str) -> list[str]:
    """Every different line that calls the program, in bash blocks of the documents and in cells of the notebooks."""
    texts = [block for document in DOCUMENTS for block in blocks(document, "bash")]
    texts += [source(cell) for path in NOTEBOOKS for cell in cells(path)]
    lines = [line for text in texts for line in text.replace("\\\n", " ").splitlines()]
    return list(dict.fromkeys(line for line in lines if line.startswith(f"{program} ")))


# A block that several documents show runs once. In docs/gpu.md they need a GPU.
PYTHON = {block: page for page in reversed(DOCUMENTS) if page != "docs/gpu.md" for block in blocks(page, "python")}


@pytest.mark.parametrize("block", PYTHON, ids=[f"{page}-{number}" for number, page in enumerate(PYTHON.values())])
def test_python_in_a_document_runs(block: str, tmp_path: Path) -> None:
    done = run_python("-c", block, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_each_block_of_python_is_about_ten_lines() -> None:
    found = [len([line for line in block.splitlines() if line.strip()]) for block in PYTHON]
    assert found
    assert max(found) <= 14


def test_the_readme_is_read_to_the_end() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= LONGEST_README


@pytest.mark.parametrize("line", commands("openmm-gnn"))
def test_a_command_in_a_document_is_understood(line: str) -> None:
    name, *arguments = shlex.split(line, comments=True)[1:]
    assert isinstance(parse(name, cli.command_of(name, arguments), arguments), Command)


def test_an_option_that_does_not_exist_would_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("analyze", cli.command_of("analyze"), ["run", "--out", "x", "--lag", "3", "--sides", "3"])
    assert "--sides" in capsys.readouterr().err


def test_each_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    assert [name for name in cli.COMMANDS if not re.search(rf"openmm-gnn {name}\b", text)] == OF_PAGES_ALONE


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_make_target_that_is_named_exists(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    text = (ROOT / document).read_text()
    named = set(re.findall(r"^make ([a-z-]+)", text, flags=re.MULTILINE)) | set(re.findall(r"`make ([a-z-]+)", text))
    assert named - targets == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_local_link_leads_to_a_file(document: str) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / document).read_text())
    folder = (ROOT / document).parent
    assert [link for link in links if "://" not in link and not (folder / link).exists()] == []


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_no_document_is_left_unfinished(document: str) -> None:
    assert re.findall(r"@@|\bTODO\b|\bTBD\b|\?\?\?|\bXXX\b", (ROOT / document).read_text()) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_file_that_is_named_exists(document: str) -> None:
    text = (ROOT / document).read_text()
    paths = re.findall(r"`((?:openmm_gnn|csrc|tests|benchmarks|constraints|examples|docs)/[\w./]*)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_house_that_is_drawn_is_the_one_on_disk() -> None:
    (house,) = blocks("docs/developer/house.md", "text")
    rooms = {path.name for path in (ROOT / "openmm_gnn").iterdir() if (path / "__init__.py").is_file()}
    assert {room for room in rooms if f"{room}/" not in house} == set()


def test_each_public_name_has_one_place_in_the_reference() -> None:
    pages = (ROOT / "docs" / "reference" / "api").glob("*.md")
    names = re.compile(r"auto(?:function|class):: openmm_gnn\.(\w+)$", flags=re.MULTILINE)
    found = [name for page in pages for name in names.findall(page.read_text())]
    assert sorted(found) == [name for name in openmm_gnn.__all__ if name != "__version__"]


def test_each_error_that_is_explained_is_one_of_ours() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "openmm_gnn").rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # a message over several lines is one string
    quoted = re.findall(r"^\*\*`(.+?)`\*\*", (ROOT / "docs" / "faq.md").read_text(), flags=re.MULTILINE)
    parts = [part.strip() for message in quoted for part in message.split("...")]
    assert len(parts) > 10
    assert [part for part in parts if part not in code] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_the_results_of_its_own_cells(notebook: Path) -> None:
    """`make notebooks` stores them with the checksum of the cells."""
    code = cells(notebook)
    digest = hashlib.sha256("\0".join(map(source, code)).encode()).hexdigest()
    assert json.loads(notebook.read_text())["metadata"]["executed_cells"] == digest
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell["outputs"] if output["output_type"] == "error"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_imports_from_the_package_exists(notebook: Path) -> None:
    python = "\n".join(source(cell) for cell in cells(notebook) if not source(cell).startswith("%%"))
    imports = [node for node in ast.walk(ast.parse(python)) if isinstance(node, ast.ImportFrom)]
    ours = {name.name for node in imports if node.module == "openmm_gnn" for name in node.names}
    assert ours <= set(openmm_gnn.__all__)
