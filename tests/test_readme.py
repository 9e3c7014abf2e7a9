"""The README tells the truth: its Python runs, its commands parse, its links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from warm_python import run_python

from openmm_gnn import cli
from openmm_gnn.cli.options import Command, parse

ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", "CONTRIBUTING.md"]


def blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of a language in a document."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / document).read_text(), flags=re.MULTILINE | re.DOTALL)


def commands(document: str, program: str) -> list[str]:
    """Every line of a bash block that calls the program."""
    lines = [line for block in blocks(document, "bash") for line in block.splitlines()]
    return [line for line in lines if line.startswith(f"{program} ")]


@pytest.mark.parametrize("block", blocks("README.md", "python"), ids=lambda block: block.splitlines()[-1][:40])
def test_python_in_the_readme_runs(block: str, tmp_path: Path) -> None:
    done = run_python("-c", block, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_each_block_of_python_is_about_ten_lines() -> None:
    found = [len([line for line in block.splitlines() if line.strip()]) for block in blocks("README.md", "python")]
    assert found
    assert max(found) <= 14


@pytest.mark.parametrize("line", commands("README.md", "openmm-gnn"))
def test_a_command_in_the_readme_is_understood(line: str) -> None:
    name, *arguments = shlex.split(line, comments=True)[1:]
    assert isinstance(parse(name, cli.command_of(name, arguments), arguments), Command)


def test_an_option_that_does_not_exist_would_be_seen(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("analyze", cli.command_of("analyze"), ["run", "--out", "x", "--lag", "3", "--sides", "3"])
    assert "--sides" in capsys.readouterr().err


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_make_target_that_is_named_exists(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    text = (ROOT / document).read_text()
    named = set(re.findall(r"^make ([a-z-]+)", text, flags=re.MULTILINE)) | set(re.findall(r"`make ([a-z-]+)", text))
    assert named
    assert named - targets == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_local_link_leads_to_a_file(document: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text())
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


@pytest.mark.parametrize("document", [*DOCUMENTS, "CHANGELOG.md"])
def test_no_document_is_left_unfinished(document: str) -> None:
    assert re.findall(r"@@|\bTODO\b|\bTBD\b|\?\?\?|\bXXX\b", (ROOT / document).read_text()) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_file_that_is_named_exists(document: str) -> None:
    text = (ROOT / document).read_text()
    paths = re.findall(r"`((?:openmm_gnn|csrc|tests|benchmarks|constraints|examples)/[\w./]*)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_house_in_the_readme_is_the_one_on_disk() -> None:
    (house,) = blocks("README.md", "text")
    rooms = {path.name for path in (ROOT / "openmm_gnn").iterdir() if (path / "__init__.py").is_file()}
    assert {room for room in rooms if f"{room}/" not in house} == set()
