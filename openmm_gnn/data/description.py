"""meta.json, in which a directory of data says what it holds and how it was made; whoever goes on must make it so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.files import command_line, flattened, read_document, write_json

META_FILE = "meta.json"


@dataclass(frozen=True)
class DataKind:
    """A kind of directory, and the command that writes it."""

    name: str
    version: int
    command: str

    def is_at(self, directory: Path) -> bool:
        """Whether a directory is of this kind, of whatever version."""
        try:
            return json.loads((directory / META_FILE).read_text())["kind"] == self.name
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def read(self, directory: Path) -> dict[str, Any]:
        """The content of meta.json.

        Raises:
            DataError: if it is missing, damaged, of another kind or version.
        """
        return read_document(directory / META_FILE, self.version, f"`{self.command}`", self.name)

    def begin(self, directory: Path, making: dict[str, Any], further: dict[str, Any]) -> dict[str, Any]:
        """The meta of a new directory, or of one that the same making has begun; its lock must be held.

        Args:
            making: what must be the same whenever a command goes on.
            further: what else a new meta holds.
        Raises:
            DataError: if the directory holds something else, or was made otherwise, naming what differs.
        """
        if (directory / META_FILE).exists():
            meta = self.read(directory)
            before = flattened(meta)
            for name, now in flattened(json.loads(json.dumps(making))).items():
                if before.get(name) != now:
                    raise DataError(
                        f"{directory} was made with {name.removeprefix('settings.')} = {before.get(name)!r}, now it is "
                        f"{now!r}: go on with the same, or give another directory"
                    )
        else:
            names = sorted(entry.name for entry in directory.iterdir())
            if others := [name for name in names if not name.startswith((".", META_FILE))]:
                raise DataError(f"{directory} holds {others[:3]} and no {META_FILE}: give a new directory")
            meta = {"kind": self.name, "version": self.version, "commands": [], **making, **further}
        if (command := command_line()) not in meta["commands"]:
            meta["commands"].append(command)
        return meta

    def write(self, directory: Path, meta: dict[str, Any]) -> None:
        """Replace meta.json."""
        write_json(directory / META_FILE, meta, indent=2)
