"""A dataclass as a command line.

What is read, and what is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from openmm_gnn.base.errors import positive
from openmm_gnn.cli.options import Command, Nested, UsageError, parse


class Shape(str, Enum):
    BALL = "ball"
    ROD = "rod"


@dataclass(frozen=True)
class Inner:
    time_step_ps: float = 0.5
    """Time step, ps."""
    num_layers: int | None = None
    """Layers. Default: as many as fit."""

    def __post_init__(self) -> None:
        positive(self, "time_step_ps")


@dataclass(frozen=True)
class Spec:
    elements: tuple[int, ...]
    inner: Inner
    use_bonds: bool = True
    """Give bonded pairs a type of their own."""


@dataclass(frozen=True, kw_only=True)
class Sample(Command):
    files: tyro.conf.Positional[tuple[Path, ...]]
    """Files to read."""
    out: Path
    """Directory to write."""
    seeds: tuple[int, ...] = (1,)
    """Seeds."""
    lags: tuple[float, ...] = ()
    """Lag times, ps."""
    structure: tuple[Path, ...] = ()
    """A structure; may be given again."""
    shape: Shape = Shape.BALL
    """Shape of the box."""
    follow: Annotated[bool, tyro.conf.arg(aliases=["-f"])] = False
    """Look again."""
    spec: Annotated[Callable[..., Spec], Nested(Spec, without=("elements",), names={"use_bonds": "bonds"})]
    other: Annotated[Inner, Nested(prefix="other")]


LEAST = ["a.xyz", "b.xyz", "--out", "x"]


def read(*arguments: str) -> Sample:
    command = parse("sample", Sample, [*LEAST, *arguments])
    assert isinstance(command, Sample)
    return command


def test_what_is_not_given_is_the_default() -> None:
    command = read()
    assert command.files == (Path("a.xyz"), Path("b.xyz"))
    assert (command.seeds, command.lags, command.structure, command.shape) == ((1,), (), (), Shape.BALL)
    assert command.spec(elements=(18,)) == Spec((18,), Inner(), True)
    assert command.other == Inner()


def test_values_replace_defaults() -> None:
    command = read("--seeds", "1-3,9", "--lags", "2,5.5", "--shape", "rod", "-f", "--no-bonds")
    assert (command.seeds, command.lags, command.shape, command.follow) == ((1, 2, 3, 9), (2, 5.5), Shape.ROD, True)
    assert command.spec(elements=(1, 8)).use_bonds is False
    command = read("--structure", "a.pdb", "--structure", "b.pdb", "--time-step", "2", "--other-layers=3")
    assert command.structure == (Path("a.pdb"), Path("b.pdb"))
    assert command.spec(elements=(1,)).inner == Inner(2.0)
    assert command.other == Inner(0.5, 3)
    assert read("--seeds", "none").seeds == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "2.5"], "<class 'int'>: invalid literal for int() with base 10: '2.5'"),
        (["--shape", "cube"], "invalid choice 'cube' for argument '--shape'. Expected one of ('ball', 'rod')"),
        (["--shapes", "rod"], "Unrecognized options: --shapes"),
    ],
)
def test_a_wrong_value_is_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        read(*arguments)
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_what_is_no_list_is_named_with_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--seeds", "1-x"], "--seeds: '1-x' is no list: give whole numbers such as 1-4,9"),
        (["--lags", "a"], "--lags: 'a' is no list: give numbers such as 0.5,1.5"),
    ):
        with pytest.raises(SystemExit) as stop:
            read(*arguments)
        assert stop.value.code == 2
        assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_what_is_missing_is_named_with_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("sample", Sample, ["a.xyz"])
    assert "Directory to write." in capsys.readouterr().err
    with pytest.raises(UsageError, match="FILES: give at least one"):
        parse("sample", Sample, ["--out", "x"])


def test_a_range_check_of_the_library_names_the_option() -> None:
    with pytest.raises(UsageError, match=r"--time-step -1.0: give a finite number above 0"):
        read("--time-step", "-1")


def test_help_has_words_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("sample", Sample, ["--help"])
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    usage = "usage: openmm-gnn sample [-h] [OPTIONS] FILES ..."
    assert f"{usage} A dataclass as a command line. What is read, and what is refused in one line." in printed
    assert "FILES ... Files to read. (required)" in printed
    for words in (
        "--shape {ball,rod} Shape of the box. (default: ball)",
        "--bonds, --no-bonds Give bonded pairs a type of their own. (default: True)",
        "--time-step FLOAT Time step, ps. (default: 0.5) --layers INT Layers. Default: as many as fit. --other-",
        "-f, --follow Look again. --",
    ):
        assert words in printed


def test_files_that_follow_an_option_belong_to_it() -> None:
    given = read("--structure", "a.pdb", "b.pdb", "c.pdb", "--seeds", "4")
    assert given.structure == (Path("a.pdb"), Path("b.pdb"), Path("c.pdb")) and given.seeds == (4,)
    assert read("--structure", "a.pdb", "--structure", "b.pdb").structure == (Path("a.pdb"), Path("b.pdb"))
    mixed = parse("sample", Sample, ["--out", "x", "--structure", "a.pdb", "b.xyz"])
    assert isinstance(mixed, Sample) and mixed.structure == (Path("a.pdb"),) and mixed.files == (Path("b.xyz"),)
