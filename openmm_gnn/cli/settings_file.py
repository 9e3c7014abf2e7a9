"""Options in a YAML file: `--config FILE` reads them, and a command that fills a directory leaves its own there.

A key is the name of an option or of an argument, without dashes; what the command line gives takes precedence.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openmm_gnn.base.files import plain, write_atomically
from openmm_gnn.cli.options import Command, Option, UsageError, one_by_one, options_of, value_of

FILE = "settings.yaml"
NOT_KEPT = ("config", "json", "quiet")
"""Options that say nothing of what is done."""


def read_settings(arguments: Sequence[str]) -> dict[str, Any]:
    """The options in the file that --config names; none without it.

    Raises:
        UsageError: if the file holds something else.
    """
    path = value_of("--config", Path, None, arguments)
    if path is None:
        return {}
    import yaml

    try:
        found = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no YAML ({' '.join(str(error).split())}): mend it there") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds no options: give lines such as `steps: 1000`")
    return {str(name).replace("_", "-"): value for name, value in found.items()}


def texts_of(settings: Mapping[str, Any]) -> list[str]:
    """The options whose values are words: one of them may decide which other options there are."""
    return [f"--{name}={value}" for name, value in settings.items() if isinstance(value, str)]


def with_file(command: type[Command], settings: Mapping[str, Any], arguments: Sequence[str]) -> list[str]:
    """The arguments with the settings of a file that they do not give themselves.

    Raises:
        UsageError: if the command has no such option.
    """
    if not settings:
        return list(arguments)
    known = {one.name: one for one in options_of(command)}
    for name in settings:
        if name not in known:
            (near,) = difflib.get_close_matches(name, known, 1, 0.0)
            raise UsageError(f"the file of settings has {name}, which is no option: the nearest name is {near}")
    options: list[str] = []
    places: list[str] = []
    given: set[str] = set()
    texts = iter(one_by_one(arguments))
    for text in texts:
        if not text.startswith("-"):
            places.append(text)
            continue
        name, equals, _ = text.lstrip("-").partition("=")
        option = known.get(name) or known.get(name.removeprefix("no-"))
        given.add(option.name if option else name)
        options += [text] if option is None or option.kind is bool or equals else [text, *(next(texts, ""),)]
    for name, value in settings.items():
        if name not in given and not known[name].positional:
            options += _texts(known[name], value)
    for one in known.values():  # arguments of the command line fill the first places
        if one.positional and places:
            options, places = (options + places, []) if one.many else ([*options, places[0]], places[1:])
        elif one.positional and one.name in settings:
            options += _texts(one, settings[one.name])
    return options + places


def keep_settings(name: str, command: Command) -> None:
    """Write the options of a command into its directory, if it has made one."""
    import yaml

    directory = getattr(command, "out", None)
    if not isinstance(directory, Path) or not directory.is_dir():
        return
    kept = {}
    for one in options_of(type(command)):
        value = plain(one.value(command))
        if one.name not in NOT_KEPT and value is not None and (value != [] or one.default != ()):
            kept[one.name] = "none" if value == [] else value
    head = f"# openmm-gnn {name} --config {directory / FILE}\n"
    text = yaml.safe_dump(kept, sort_keys=False, default_flow_style=None, width=1000, allow_unicode=True)
    write_atomically(directory / FILE, (head + text).encode())


def _texts(option: Option, value: Any) -> list[str]:
    """A value of a file as it would stand on the command line."""
    dashes = "" if option.positional else f"--{option.name}="
    if value is None or (value is False and option.default is False):
        return []
    if isinstance(value, bool) and option.kind is bool:
        return [f"--{option.name}" if value else f"--no-{option.name}"]
    values = value if isinstance(value, list) else [value]
    return [f"{dashes}{one}" for one in values] if option.many else [dashes + ",".join(map(str, values))]
