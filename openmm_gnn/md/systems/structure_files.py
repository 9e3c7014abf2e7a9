"""Structures from PDB and PDBx/mmCIF files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from openmm_gnn.base.errors import DataError

if TYPE_CHECKING:
    from openmm import app

STRUCTURE_SUFFIXES = (".cif", ".ent", ".pdb", ".pdbx")


def read_structure(path: Path) -> tuple[app.Topology, np.ndarray]:
    """The topology of a file, and its positions, (num_atoms, 3) in nm.

    Raises:
        DataError: if the file is missing, of another kind or cannot be read.
    """
    from openmm import app, unit

    suffix = path.suffix.lower()
    if suffix not in STRUCTURE_SUFFIXES:
        raise DataError(f"the topology {path} ends in {path.suffix!r}: give one of {list(STRUCTURE_SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"there is no file {path}: check the path of the topology")
    try:
        structure = (app.PDBFile if suffix in (".pdb", ".ent") else app.PDBxFile)(os.fspath(path))
        return structure.topology, np.array(structure.getPositions(asNumpy=True).value_in_unit(unit.nanometer))
    except Exception as error:  # OpenMM's parsers raise whatever the text makes them stumble over
        raise DataError(f"{path} cannot be read as a structure: {error or type(error).__name__}") from error
