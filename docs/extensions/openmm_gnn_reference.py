"""What the site takes from the code: the commands from their settings objects, docstrings with blocks of Markdown.

A page that holds the line `<!-- commands -->` gets a section for each command in its place: usage, description, and
each option with its values, words and default.
"""

from __future__ import annotations

import inspect
import re
import sys
import warnings
from argparse import Action
from typing import Any

import tyro

from openmm_gnn import cli
from openmm_gnn.cli import options
from openmm_gnn.cli.settings_file import NOT_KEPT
from openmm_gnn.cli.train import Network
from openmm_gnn.data.conformers.settings import KINDS

PLACE = "<!-- commands -->"
VARIANTS = {
    "train": [("--network", kind.value) for kind in Network],
    "conformers": [("--kind", kind.value) for kind in KINDS],
}
"""Commands whose options depend on the value of one of them."""


def actions_of(name: str, arguments: list[str]) -> dict[str, Action]:
    """The arguments and options of a command under their names, in the order of its help."""
    command = cli.command_of(name, arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        parser = tyro.extras.get_parser(command, prog=name, config=options.CONFIG, registry=options.REGISTRY)
    everywhere = {"--help", *(f"--{one}" for one in NOT_KEPT)}
    found = [action for action in parser._actions if not everywhere & set(action.option_strings)]
    return {(action.option_strings or [str(action.metavar)])[0]: action for action in found}


def in_markdown(action: Action) -> str:
    """An entry of a definition list: how the option is written, and its words."""
    words = " ".join((action.help or "").split())
    written = ", ".join(f"`{one}`" for one in action.option_strings) or f"`{action.metavar}`"
    if action.option_strings and action.metavar:
        choices = re.fullmatch(r"\{(.*)\}", str(action.metavar))
        written += " " + (" | ".join(f"`{one}`" for one in choices[1].split(",")) if choices else f"*{action.metavar}*")
    return f"{written}\n: {escaped(words)}\n"


def escaped(words: str) -> str:
    """Words of a help as Markdown: what is between backticks stays, other marks are plain letters."""
    parts = re.split(r"(`[^`]*`)", words)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<>|\[\]])", r"\\\1", part) for part in parts)


def section_of(name: str) -> str:
    """What the help of a command says, as a section in Markdown."""
    command = cli.command_of(name)
    described = inspect.cleandoc(sys.modules[command.__module__].__doc__ or "")
    first, *others = VARIANTS.get(name, [None])
    shown = actions_of(name, list(first) if first else [])
    positional = " ".join(str(key).upper() for key in shown if not key.startswith("-"))
    required = " ".join(f"{key} {one.metavar}" for key, one in shown.items() if key.startswith("-") and one.required)
    usage = " ".join(filter(None, ["openmm-gnn", name, positional, required, "[options]"]))
    lines = [f"## {name}", cli.COMMANDS[name], f"```text\n{usage}\n```", escaped(described)]
    lines += [in_markdown(action) for action in shown.values()]
    for option, value in others:
        more = {key: one for key, one in actions_of(name, [option, value]).items() if key not in shown}
        if more:
            lines += [f"With `{option} {value}` there are also:", *(in_markdown(action) for action in more.values())]
            shown |= more
    return "\n\n".join(lines)


def put_in_commands(app: Any, document: str, source: list[str]) -> None:
    """Replace the mark of a page by the sections of all commands."""
    if PLACE in source[0]:
        source[0] = source[0].replace(PLACE, "\n\n".join(section_of(name) for name in cli.COMMANDS))


def fences_to_blocks(app: Any, what: str, name: str, value: Any, settings: Any, lines: list[str]) -> None:
    """Turn the fenced blocks of a docstring into those of reStructuredText, in place.

    An empty line before that of a field keeps napoleon from reading "Cutoff: in nm" as a type and a description.
    """
    inside, turned = False, []
    for line in lines:
        bare = line.strip()
        if bare.startswith("```"):
            inside = not inside
            turned += ["", line.replace(bare, f".. code-block:: {bare[3:] or 'text'}"), ""] if inside else [""]
        else:
            turned.append(f"   {line}" if inside and bare else line)
    lines[:] = ["", *turned] if what in ("attribute", "property") else turned


def short_names(app: Any, what: str, name: str, value: Any, options: Any, signature: str | None, returned: str) -> Any:
    """Classes in a signature without the modules that they are in; a default that is made anew as three dots."""
    if not signature or "~" not in signature:
        return None
    return re.sub(r"~(?:\w+\.)+(\w+)", r"\1", signature).replace("<factory>", "..."), returned


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", put_in_commands)
    app.connect("autodoc-process-docstring", fences_to_blocks, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", short_names)
    return {"parallel_read_safe": True}
