"""Executes notebooks of the site in place: `make notebooks`. Each runs in an empty folder, and keeps what it prints.

The checksum of its cells is stored with the results; a test compares it, so that no notebook shows results of other
cells than its own.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def checksum_of_cells(notebook: nbformat.NotebookNode) -> str:
    """SHA-256 of the source of all code cells."""
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Drop what only a terminal shows, the times of this machine, and what mdtraj's reader of DCD files prints."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                # A table that is drawn again in its place is kept once.
                text = re.sub(r"\x1b\[\?25l.*\x1b\[2K", "", output.text, flags=re.DOTALL)
                lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).splitlines(keepends=True)
                output.text = "".join(line for line in lines if not line.startswith("dcdplugin)"))


def execute(path: Path) -> None:
    """Execute a notebook and write it back with its results."""
    notebook = nbformat.read(path, as_version=4)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=1800, coalesce_streams=True, resources={"metadata": {"path": folder}})
        client.execute()
    tidy(notebook)
    notebook.metadata = {
        "kernelspec": notebook.metadata["kernelspec"],
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},  # knows cells of bash
        "executed_cells": checksum_of_cells(notebook),
    }
    nbformat.write(notebook, path)
    print(f"{path}: {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        execute(Path(name))
