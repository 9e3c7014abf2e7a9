"""A command's dataclass as its command line, by tyro: names, types, defaults and words are those of the fields.

A field `num_steps: int = 8000` is the option `--steps`; its docstring is the help. `num_` or `use_` at the beginning of
a name and a unit at its end are left out of the option's name: the help has the unit. Settings of the library are
fields too, and their fields are options beside the command's own. Numbers come as `--lags 2,5,10`, whole numbers also
as `--seeds 1-4,9`; other tuples as options that are given again.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import glob
import inspect
import itertools
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro
from tyro.constructors import PrimitiveConstructorSpec, StructConstructorSpec, StructFieldSpec

from openmm_gnn.base.errors import OpenMMGNNError, SettingsError

WORDS = {int: "INT", float: "FLOAT", Path: "PATH", tuple[int, ...]: "INT,...", tuple[float, ...]: "FLOAT,..."}
MANY_FILES = ("--force-field", "--smiles", "--structure", "--test")
"""Options of files that may be given again, or followed by several."""
UNITS = re.compile(r"(_per)?_(ps|fs|nm|kj_mol|angstrom)$")
LAST = ("threads", "config", "json", "quiet")
"""Fields that many commands share, below those of their own."""
CONFIG = (tyro.conf.OmitArgPrefixes, tyro.conf.EnumChoicesFromValues, tyro.conf.PositionalMetavarFromFieldName)
REGISTRY = tyro.constructors.ConstructorRegistry()


class UsageError(OpenMMGNNError):
    """A value that an option cannot have."""


class Result:
    """What a command has found: numbers for programs, the same in words, and what to do next."""

    def __init__(self, *said: Any, next: str, code: int = 0, **values: Any) -> None:
        """
        Args:
            said: texts, and tables of rich.
            next: command or deed that follows.
            code: exit code.
            values: what --json prints, in types that `plain` knows.
        """
        self.said, self.next, self.code, self.values = said, next, code, values


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a command is: a frozen dataclass of its arguments, and what is done with them.

    The docstring of its file is the description in its help.
    """

    after_stop: ClassVar[str] = "Nothing is kept that was not complete: give the same command again."
    """Said when the user stops the command with ctrl-C."""

    config: Path | None = None
    """YAML file of options, such as settings.yaml of a run; those on the command line take precedence."""
    json: bool = False
    """Print the result as one JSON object; words go to standard error."""
    quiet: bool = False
    """Print the result and warnings alone, no progress and no advice."""

    @property
    def progress(self) -> bool:
        """Whether to show how far the work is."""
        return not self.quiet

    @classmethod
    def variant(cls, arguments: Sequence[str]) -> type[Command]:
        """The class whose fields are the options of these arguments; another one where options depend on another."""
        return cls

    def run(self) -> Result | None:
        """Do what the command is for; None where another process tells the result."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class RunCommand(Command):
    """A command that fills a directory `out` and keeps its settings there; it goes on where it was stopped."""

    after_stop = "The same command goes on where it was."


@dataclass(frozen=True, kw_only=True)
class TorchCommand(Command):
    """A command that computes with torch."""

    threads: int | None = None
    """Number of CPU threads of each process. Default: all cores."""


@dataclass(frozen=True)
class Nested:
    """A mark of a field that holds settings: how their fields stand on the command line."""

    settings: type | None = None
    """Class of the settings, where the field is a `partial` that makes them with the fields that are no options."""
    prefix: str = ""
    """Put before the names of the options."""
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Whole names of options, where they are not the fields'."""
    without: tuple[str, ...] = ()
    """Fields that are no options."""


NOT_NESTED = Nested()


def with_settings(command: type[Command], field: str, settings: type) -> type[Command]:
    """The command with settings of another class in a field, where these depend on another option."""
    kind, nested = typing.get_args(typing.get_type_hints(command, include_extras=True)[field])
    kind, nested = (kind, dataclasses.replace(nested, settings=settings)) if nested.settings else (settings, nested)
    hint = Annotated[(kind, nested)]  # type: ignore[valid-type]
    made = dataclasses.make_dataclass(command.__name__, [(field, hint)], bases=(command,), frozen=True, kw_only=True)
    made.__module__ = command.__module__
    if hasattr(command, "__firstlineno__"):  # where Python 3.13 finds its source, and with that its words
        made.__firstlineno__ = command.__firstlineno__  # type: ignore[attr-defined]
    return made


def parse(name: str, command: type[Command], arguments: Sequence[str]) -> Command:
    """The command with the values that the arguments give to its fields.

    Raises:
        SystemExit: with code 2 and a message on stderr if they are not understood; with 0 after --help.
        UsageError: if settings refuse a value.
    """
    arguments = one_by_one(arguments)
    program, what = f"openmm-gnn {name}", (sys.modules[command.__module__].__doc__ or "").strip()
    return tyro.cli(command, prog=program, description=what, args=arguments, config=CONFIG, registry=REGISTRY)


def one_by_one(arguments: Sequence[str]) -> list[str]:
    """`--test a.pdb b.pdb` as `--test a.pdb --test b.pdb`: of files that follow an option those that end alike."""
    given: list[str] = []
    for text in arguments:
        if given[-2:-1] and given[-2] in MANY_FILES and Path(text).suffix == Path(given[-1]).suffix != "":
            given.append(given[-2])
        given.append(text)
    return given


class _StandIn:
    """The type of a nested field as tyro sees it."""

    stands_for: ClassVar[type]
    mark: ClassVar[Nested]


@REGISTRY.struct_rule
def _options(info: tyro.constructors.StructTypeInfo) -> StructConstructorSpec | None:
    if not isinstance(info.type, type) or not issubclass(info.type, (Command, _StandIn)):
        return None
    owner: type = getattr(info.type, "stands_for", info.type)
    nested: Nested = getattr(info.type, "mark", Nested())
    options = _level(owner, nested)

    def make(**values: Any) -> Any:
        values = {name: _matching(value) for name, value in values.items()}
        if empty := [one.name for one in options if one.required and values.get(one.path[-1]) == ()]:
            raise UsageError(f"{empty[0].upper()}: give at least one")
        try:
            return partial(owner, **values) if nested.settings else owner(**values)
        except SettingsError as error:
            value = ",".join(map(str, error.value)) if isinstance(error.value, tuple) else error.value
            given = "" if value is None else f" {value}"
            name = next((one.name for one in options if one.path[-1] == error.field), error.field)
            raise UsageError(f"--{name}{given}: {error.remedy}") from error

    return StructConstructorSpec(
        make, tuple(StructFieldSpec(one.path[-1], _seen(one), one.default, one.words) for one in options)
    )


def _matching(value: Any) -> Any:
    """Files for a list of paths with patterns, which the shell has not replaced, as in a file of settings."""
    if not (isinstance(value, tuple) and value and isinstance(value[0], Path)):
        return value
    found: list[Path] = []
    for path in value:
        pattern = glob.has_magic(str(path)) and not path.exists()
        matches = [Path(one) for one in sorted(glob.glob(str(path)))] if pattern else [path]
        if not matches:
            raise UsageError(f"no file matches {path}: mend the pattern")
        found += matches
    return tuple(found)


@REGISTRY.primitive_rule
def _numbers(info: tyro.constructors.PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Tuples of numbers as lists with commas, also where they may be left to a default."""
    bare = next((one for one in (info.type, *typing.get_args(info.type)) if typing.get_origin(one) is tuple), None)
    kind = next((kind for kind in (int, float) if typing.get_args(bare) == (kind, ...)), None)
    if kind is None:
        return None

    def read(texts: list[str]) -> tuple[float, ...]:
        values: list[float] = []
        for part in texts[0].split(",") if texts[0] != "none" else []:
            ends = re.fullmatch(r"(\d+)-(\d+)", part.strip())
            try:
                values += range(int(ends[1]), int(ends[2]) + 1) if ends and kind is int else [kind(part)]
            except ValueError:
                such = "whole numbers such as 1-4,9" if kind is int else "numbers such as 0.5,1.5"
                raise ValueError(f"{texts[0]!r} is no list: give {such}") from None
        return tuple(values)

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT,..." if kind is int else "FLOAT,...",
        instance_from_str=read,
        is_instance=lambda value: value is None or isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(f"{one:g}" for one in value or ())],
    )


@dataclass(frozen=True)
class Option:
    """An option or a positional argument: a field of a command, or of settings that it holds."""

    name: str
    """As it is written, without dashes."""
    path: tuple[str, ...]
    """Fields that lead to the value, from the command on."""
    kind: Any
    marks: tuple[Any, ...]
    default: Any
    words: str | None
    nested: Nested | None = None
    """How settings stand on the command line, if the field holds some: then it is none or many options."""

    @property
    def required(self) -> bool:
        return bool(self.default is tyro.MISSING_NONPROP)

    @property
    def positional(self) -> bool:
        return tyro.conf.Positional in self.marks

    @property
    def many(self) -> bool:
        """Whether it takes several values, each given by itself."""
        return typing.get_origin(self.kind) is tuple and self.kind not in WORDS

    def value(self, command: Command) -> Any:
        """The value that a command has."""
        found: Any = command
        for name in self.path:
            found = found.keywords[name] if isinstance(found, partial) else getattr(found, name)
        return found


def options_of(owner: type, nested: Nested = NOT_NESTED, path: tuple[str, ...] = ()) -> Iterator[Option]:
    """All options of a command, those of its settings among them, in the order of its fields."""
    for one in _level(owner, nested, path):
        if one.nested is None:
            yield one
        else:
            yield from options_of(one.nested.settings or one.kind, one.nested, one.path)


def _level(owner: type, nested: Nested, path: tuple[str, ...] = ()) -> list[Option]:
    """The fields of one dataclass, settings not opened."""
    hints, words = typing.get_type_hints(owner, include_extras=True), field_words(owner)
    shown = [one for one in dataclasses.fields(owner) if one.name not in nested.without]
    found = []
    for one in sorted(shown, key=lambda one: LAST.index(one.name) + 1 if one.name in LAST else 0):
        hint, marks = hints[one.name], []
        if typing.get_origin(hint) is Annotated:
            hint, *marks = typing.get_args(hint)
        inner = next((mark for mark in marks if isinstance(mark, Nested)), NOT_NESTED)
        holds = dataclasses.is_dataclass(inner.settings or hint)
        inner = dataclasses.replace(inner, prefix=inner.prefix or nested.prefix)
        default = one.default if one.default_factory is dataclasses.MISSING else one.default_factory()
        default = tyro.MISSING_NONPROP if default is dataclasses.MISSING else default
        short = UNITS.sub("", one.name.removeprefix("num_").removeprefix("use_"))
        name = (nested.names.get(one.name) or "-".join(filter(None, (nested.prefix, short)))).replace("_", "-")
        found.append(
            Option(name, (*path, one.name), hint, tuple(marks), default, words.get(one.name), inner if holds else None)
        )
    return found


def _seen(option: Option) -> Any:
    """The type of a field as tyro is to see it."""
    kind, marks, default, word = option.kind, option.marks, option.default, None
    if option.nested is not None:
        settings = option.nested.settings or kind
        made = type(settings.__name__, (_StandIn,), {"stands_for": settings, "mark": option.nested, "__doc__": ""})
        return Annotated[made, tyro.conf.arg(name="")]
    if default is None:
        (one,) = (one for one in typing.get_args(kind) if one is not types.NoneType)
        choices = isinstance(one, type) and issubclass(one, Enum)
        word = "{" + ",".join(choice.value for choice in one) + "}" if choices else WORDS.get(one, "TEXT")
    if option.many and not option.required:
        marks = (*marks, tyro.conf.UseAppendAction)
    if default is False:
        marks = (*marks, tyro.conf.FlagCreatePairsOff)
    hint = "" if default in (None, (), "") or default is False else None
    if option.positional and option.many:
        word, hint = f"{option.name.upper()} ...", "(required)"
    parts = (kind, *marks, tyro.conf.arg(name=option.name, metavar=word, help_behavior_hint=hint))
    return Annotated[parts]


@cache
def field_words(owner: type) -> dict[str, str]:
    """The docstring under each field of a dataclass and of what it inherits from."""
    found: dict[str, str] = {}
    for one in reversed([base for base in owner.__mro__ if dataclasses.is_dataclass(base)]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        for field, after in itertools.pairwise(typing.cast(ast.ClassDef, tree).body):
            match field, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.split())
    return found


def value_of(option: str, kind: Callable[[str], Any], default: Any, arguments: Sequence[str]) -> Any:
    """The value of one option, before the others are known; the default also where it has no meaning."""
    texts = [text.partition("=")[2] for text in arguments if text.startswith(f"{option}=")]
    texts += [after for text, after in itertools.pairwise(arguments) if text == option]
    with contextlib.suppress(ValueError):
        return kind(texts[-1]) if texts else default
    return default
