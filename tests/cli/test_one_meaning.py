"""An option has one meaning in all commands: one type, one unit, one default, apart from what is stated here."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from openmm_gnn import cli
from openmm_gnn.cli.options import Option, options_of
from openmm_gnn.cli.train import Network
from openmm_gnn.data.conformers.settings import Kind

VARIANTS = {"train": ("--network", Network), "conformers": ("--kind", Kind)}
"""Commands whose options depend on the value of one of them."""
UNIT = re.compile(
    r"(?<!')\b(kJ/mol|1/ps|angstrom|dalton|nm|ps|fs|bar|min|s|K)\b(?! of )|per cent"
    r"|\bNumbers? of (?:the )?([\w-]+ steps|[\w-]+)"
)
"""Where the help says the unit: a symbol of one, or what is counted."""
OTHER_TYPES = {
    "format": "the formats of a network and of features are others",
}
OTHER_UNITS = {
    "steps": "a run takes time steps, a training optimisation steps",
    "batch-size": "what is learned from is a frame, a pair of frames or a molecule",
    "width": "architectures differ",
    "layers": "architectures differ",
    "radial": "architectures differ",
}
OTHER_DEFAULTS = {
    name: reason
    for reason, names in {
        "architectures differ": "width layers radial cutoff min-distance bonds",
        "what is learned differs": "freeze hold-out steps batch-size learning-rate validate-every",
        "trainings count from the seed 0 of the shipped weights; OpenMM takes 0 for a random seed": "seed",
        "what is counted differs in number": "frames seeds longest",
        "many small molecules run side by side on the CPU": "platform",
        "small molecules are run hot, and their steps do not depend on a system": "temperatures time-step frame-time",
        "a demo of a small system": "threads model",
        "some need it, and others can do without": "model encoder topology lag",
        "a new encoder has one, an old one keeps its own": "neighbor-rule",
        "a place of its own for what is looked at once": "out",
        "solids of argon are compared with all their atoms": "selection",
        "formats differ": "format",
        "scans are of Langevin dynamics unless others are asked for": "thermostat",
    }.items()
    for name in names.split()
}


def all_options() -> Iterator[tuple[str, Option]]:
    """Each option and argument of each command, of all variants."""
    for name in cli.COMMANDS:
        option, kinds = VARIANTS.get(name, ("", [None]))
        for kind in kinds:
            given = [option, kind.value] if isinstance(kind, Enum) else []
            for one in options_of(cli.command_of(name, given)):
                yield name, one


def uses() -> dict[str, list[tuple[str, Option]]]:
    """Commands and options by the name that is typed."""
    found: dict[str, list[tuple[str, Option]]] = defaultdict(list)
    for command, one in all_options():
        if not one.positional:
            found[one.name].append((command, one))
    return found


def kind_of(option: Option) -> Any:
    """Type of an option's value, whether or not it may be left to a default."""
    kinds = [one for one in get_args(option.kind) if one is not NoneType]
    return kinds[0] if NoneType in get_args(option.kind) else option.kind


def unit_of(option: Option) -> str | None:
    """Unit of an option by its help."""
    found = UNIT.search(option.words or "") if kind_of(option) in (int, float, tuple[float, ...]) else None
    return found and found[0]


def test_an_option_has_one_meaning() -> None:
    used = uses()
    for what, of, stated in (
        ("type", kind_of, OTHER_TYPES),
        ("unit", unit_of, OTHER_UNITS),
        ("default", lambda one: one.default, OTHER_DEFAULTS),
    ):
        found = {name: {str(of(one)): command for command, one in of_name} for name, of_name in used.items()}
        assert {name: several for name, several in found.items() if len(several) > 1 and name not in stated} == {}, what
        assert [name for name in stated if len(found[name]) == 1] == [], f"no exceptions of the {what} any longer"


def test_each_option_says_what_it_sets_and_a_length_or_time_its_unit() -> None:
    silent = [f"{command} --{one.name}" for command, one in all_options() if not one.words]
    assert silent == []
    numbers = {one.name: unit_of(one) for _, one in all_options() if kind_of(one) in (float, tuple[float, ...])}
    without = {name for name, unit in numbers.items() if unit is None}
    pure = "average-decay bias-factor bias-margin bias-stiffness bias-width dropout hot learning-rate least-gain "
    pure += "start-share weight-decay"
    assert without == set(pure.split())


def test_a_system_a_network_and_data_are_given_alike_as_arguments_and_as_options() -> None:
    kinds = defaultdict(set)
    for _, one in all_options():
        kinds[one.name].add(get_args(kind_of(one))[:1] or kind_of(one))
    assert [kinds[name] for name in ("system", "topology", "out")] == [{str}, {Path}, {Path}]
