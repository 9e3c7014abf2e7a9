"""A command's dataclass as its command line, by tyro: names, types, defaults and words are those of the fields.

A field `num_steps: int = 8000` is the option `--steps`; its docstring is the help. `num_` or `use_` at the beginning of
a name and a unit at its end are left out of the option's name: the help has the unit. Settings of the library are
fields too, and their fields are options beside the command's own. Numbers come as `--lags 2,5,10`, whole numbers also
as `--seeds 1-4,9`; other tuples, and those marked with `tyro.conf.UseAppendAction`, as options that are given again.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import itertools
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro
from tyro.constructors import PrimitiveConstructorSpec, StructConstructorSpec, StructFieldSpec

from openmm_gnn.base.errors import OpenMMGNNError, SettingsError

WORDS = {int: "INT", float: "FLOAT", Path: "PATH", tuple[int, ...]: "INT,...", tuple[float, ...]: "FLOAT,..."}
MANY_FILES = ("--force-field", "--smiles", "--structure", "--test")
"""Options of files that may be given again, or followed by several."""
UNITS = re.compile(r"(_per)?_(ps|fs|nm|kj_mol|angstrom)$")
LAST = ("progress", "threads")
"""Fields that many commands share, below those of their own."""
REGISTRY = tyro.constructors.ConstructorRegistry()


class UsageError(OpenMMGNNError):
    """A value that an option cannot have."""


class Command:
    """What a command is: a frozen dataclass of its arguments, and what is done with them.

    The docstring of its file is the description in its help.
    """

    after_stop: ClassVar[str] = "Nothing is kept that was not complete: give the same command again."
    """Said when the user stops the command with ctrl-C."""

    @classmethod
    def variant(cls, arguments: Sequence[str]) -> type[Command]:
        """The class whose fields are the options of these arguments; another one where options depend on another."""
        return cls

    def run(self) -> int | None:
        """Do what the command is for, and say what to do next; an exit code other than 0 is returned."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ShownCommand(Command):
    """A command that takes long: it shows how far it is, and goes on where it was stopped."""

    after_stop = "The same command goes on where it was."

    progress: bool = True
    """Show the progress on the screen."""


@dataclass(frozen=True, kw_only=True)
class TorchCommand(Command):
    """A command that computes with torch."""

    threads: int = 0
    """Number of CPU threads of each process; 0: all."""


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
    repeated: tuple[str, ...] = ()
    """Tuples of numbers whose option is given again for each number."""


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
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.EnumChoicesFromValues, tyro.conf.PositionalMetavarFromFieldName)
    arguments = _one_by_one(arguments)
    program, what = f"openmm-gnn {name}", (sys.modules[command.__module__].__doc__ or "").strip()
    return tyro.cli(command, prog=program, description=what, args=arguments, config=config, registry=REGISTRY)


def _one_by_one(arguments: Sequence[str]) -> list[str]:
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
    hints, words = typing.get_type_hints(owner, include_extras=True), field_words(owner)
    shown = [one for one in dataclasses.fields(owner) if one.name not in nested.without]
    shown.sort(key=lambda one: one.name in LAST)
    names = {one.name: _name(one.name, nested) for one in shown}
    fields = []
    for one in shown:
        default = one.default if one.default_factory is dataclasses.MISSING else one.default_factory()
        default = tyro.MISSING_NONPROP if default is dataclasses.MISSING else default
        kind = _shown(hints[one.name], one.name, default, nested)
        fields.append(
            StructFieldSpec(one.name, kind, () if one.name in nested.repeated else default, words.get(one.name))
        )

    def make(**values: Any) -> Any:
        values = {name: value for name, value in values.items() if name not in nested.repeated or value}
        if empty := [one.name for one in fields if one.default is tyro.MISSING_NONPROP and values.get(one.name) == ()]:
            raise UsageError(f"{empty[0].upper()}: give at least one")
        try:
            return partial(owner, **values) if nested.settings else owner(**values)
        except SettingsError as error:
            value = ",".join(map(str, error.value)) if isinstance(error.value, tuple) else error.value
            given = "" if value is None else f" {value}"
            raise UsageError(f"--{names.get(error.field, error.field)}{given}: {error.remedy}") from error

    return StructConstructorSpec(make, tuple(fields))


@REGISTRY.primitive_rule
def _numbers(info: tyro.constructors.PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Tuples of numbers as lists with commas, also where they may be left to a default."""
    kinds: dict[Any, Callable[[str], float]] = {tuple[int, ...]: int, tuple[float, ...]: float}
    kind = next((one for each, one in kinds.items() if info.type in (each, each | None)), None)
    if kind is None or tyro.conf.UseAppendAction in info.markers:
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


def _name(field: str, nested: Nested) -> str:
    short = UNITS.sub("", field.removeprefix("num_").removeprefix("use_"))
    return (nested.names.get(field) or "-".join(filter(None, (nested.prefix, short)))).replace("_", "-")


def _shown(hint: Any, field: str, default: Any, outer: Nested) -> Any:
    """The type of a field as tyro is to see it."""
    marks = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
    bare = typing.get_args(hint)[0] if marks else hint
    nested = next((mark for mark in marks if isinstance(mark, Nested)), Nested())
    if dataclasses.is_dataclass(settings := nested.settings or bare):
        nested = dataclasses.replace(nested, prefix=nested.prefix or outer.prefix)
        made = type(settings.__name__, (_StandIn,), {"stands_for": settings, "mark": nested, "__doc__": ""})
        return Annotated[made, tyro.conf.arg(name="")]
    name, repeated, word = _name(field, outer), field in outer.repeated, None
    if default is None:
        (one,) = (one for one in typing.get_args(bare) if one is not types.NoneType)
        choices = isinstance(one, type) and issubclass(one, Enum)
        word = "{" + ",".join(choice.value for choice in one) + "}" if choices else WORDS.get(one, "TEXT")
    if repeated or (default != tyro.MISSING_NONPROP and typing.get_origin(bare) is tuple and bare not in WORDS):
        marks = (*marks, tyro.conf.UseAppendAction)
    if default is False:
        marks = (*marks, tyro.conf.FlagCreatePairsOff)
    hint = "" if default in (None, (), "") or default is False else None
    if repeated and default:
        hint = f"(default: {','.join(f'{one:g}' for one in default)})"
    if tyro.conf.Positional in marks and typing.get_origin(bare) is tuple:
        word, hint = f"{name.upper()} ...", "(required)"
    parts = (bare, *marks, tyro.conf.arg(name=name, metavar=word, help_behavior_hint=hint))
    return Annotated[parts]


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
