"""The records of a biased run, RUN/bias: readable while it runs and after kill -9, and enough to rebuild the bias.

    meta.json    method and settings, the CV and its outputs, widths, walls, temperature
    records.npy  a growing array: a record per hill or kernel, several between two of them, and one per frame
    hills.npy    of a run that shares its bias: every hill or kernel, its own and others', as walkers.py writes them

A record has `step` and `time` (ps) from the start of production on, `values` of the CVs, `bias` and `wall` (kJ/mol) at
that moment, before the hill of the record itself; `steepness` of the CVs (1 / (nm sqrt(Da)), as `BiasForce.steepness`);
`least` widths that all kernels or hills have from then on; `height` (kJ/mol of a hill, the logarithm of the weight of
an OPES kernel) and `widths` of what was added, NaN where nothing was; `offset` (kJ/mol; c(t) of metadynamics, kT log Z
of OPES); and `crc`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from openmm_gnn.base.errors import DataError
from openmm_gnn.base.files import read_document
from openmm_gnn.base.growing_array import intact, read_growing_array

FOLDER, META, RECORDS, HILLS = "bias", "meta.json", "records.npy", "hills.npy"
VERSION = 3


def record_fields(num_cvs: int) -> list[tuple[Any, ...]]:
    """For `GrowingArray.open`."""
    return [
        ("step", "<i8"),
        ("time", "<f8"),
        ("values", "<f8", (num_cvs,)),
        ("bias", "<f8"),
        ("wall", "<f8"),
        ("steepness", "<f8", (num_cvs,)),
        ("least", "<f8", (num_cvs,)),
        ("height", "<f8"),
        ("widths", "<f8", (num_cvs,)),
        ("offset", "<f8"),
    ]


def hill_fields(num_cvs: int) -> list[tuple[Any, ...]]:
    """For `GrowingArray.open`: when a hill was added, whose it is, and what it is."""
    shape = (num_cvs,)
    return [("step", "<i8"), ("walker", "S64"), ("values", "<f8", shape), ("height", "<f8"), ("widths", "<f8", shape)]


def read_bias_meta(run: Path | str) -> dict[str, Any]:
    """What RUN/bias/meta.json says.

    Raises:
        DataError: if the run was not biased, or the file is damaged.
    """
    return read_document(Path(run) / FOLDER / META, VERSION, "`openmm-gnn simulate --bias`")


def read_bias_records(run: Path | str) -> np.ndarray:
    """All records of a run, as a structured array in memory.

    Raises:
        DataError: if the run was not biased, or a record fails its checksum.
    """
    read_bias_meta(run)
    path = Path(run) / FOLDER / RECORDS
    if not path.exists():
        return np.empty(0, np.dtype(record_fields(1)))
    records = np.array(read_growing_array(path))
    if len(records) and not (good := intact(records)).all():
        step = int(records["step"][np.flatnonzero(~good)[0]])
        raise DataError(f"{path}: the record of step {step} fails its checksum; copy the run again, or run it anew")
    return records


def read_hills(run: Path | str) -> np.ndarray:
    """All hills or kernels that a run has added up to its last record, in order, those of other walkers among them.

    Returns:
        A structured array with `step`, `values`, `least`, `height` and `widths`.
    Raises:
        DataError: as `read_bias_records`, or if a hill fails its checksum.
    """
    records = read_bias_records(run)
    path = Path(run) / FOLDER / HILLS
    if not path.exists():
        return records[np.isfinite(records["height"])]
    hills = np.array(read_growing_array(path, verify=True))
    hills = hills[hills["step"] <= records["step"][-1]] if len(records) else hills[:0]
    found = np.zeros(len(hills), [*hills.dtype.descr, ("least", "<f8", hills["widths"].shape[1:])])
    for name in hills.dtype.names or ():
        found[name] = hills[name]
    found["least"] = records["least"][np.searchsorted(records["step"], hills["step"])]
    return found
