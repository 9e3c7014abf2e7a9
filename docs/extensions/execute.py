"""Executes notebooks of the site in place: `make notebooks`. Each runs in an empty folder, and keeps what it prints.

The checksum of its cells is stored with the results; a test compares it, so that no notebook shows results of other
cells than its own.
"""

from __future__ import annotations

import hashlib
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


def execute(path: Path) -> None:
    """Execute a notebook and write it back with its results."""
    notebook = nbformat.read(path, as_version=4)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of a machine
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "executed_cells": checksum_of_cells(notebook)}
    nbformat.write(notebook, path)
    print(f"{path}: {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        execute(Path(name))
