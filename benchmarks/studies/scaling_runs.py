"""A grid of trainings of different depth, width, data and radius, which resumes after a kill.

OUT/grid.json                 what all trainings have in common, and the data
OUT/runs/l2-h32-r5-m144-s0/  one training each: log.csv, model.safetensors, last.ckpt
OUT/scaling.json              every point of every training, and what was fitted to them
OUT/scaling.csv               a line per training
OUT/scaling.png
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openmm_gnn.base.errors import DataError, SpecError
from openmm_gnn.base.files import locked, write_atomically
from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec
from openmm_gnn.base.worker_processes import Work, run_workers, serve
from openmm_gnn.data.conformers.conformations import Molecules, check_elements, join_conformations
from openmm_gnn.learning.pretraining.denoising import pretrain_on_molecules
from openmm_gnn.learning.pretraining.noisy_frames import MoleculeFrames, collate
from openmm_gnn.learning.settings import DenoisingSettings
from openmm_gnn.networks.encoders.encoder import Encoder

GRID_FILE, RUNS, LOG_FILE = "grid.json", "runs", "log.csv"
_COUNTED_FRAMES = 16
"""Frames whose operations are counted; those of other frames are taken as proportional to their atoms."""
_POLL_SECONDS = 2.0


@dataclass(frozen=True)
class ScalingGrid:
    """Every combination is one training; all are trained, validated and counted alike."""

    layers: tuple[int, ...] = (1, 2, 3)
    widths: tuple[int, ...] = (16, 32, 64)
    cutoffs: tuple[float, ...] = (5.0,)
    """Angstrom."""
    molecules: tuple[int, ...] = (0,)
    """Sizes of the training set, its first molecules; 0: all. Smaller sets are parts of larger ones."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of weights, order and noise."""
    architecture: Architecture = Architecture.TORCHMD_ET
    num_radial: int = 32
    num_heads: int = 8
    max_neighbors: int = 32
    noise_scale: float = 0.2
    """Angstrom."""
    hold_out: int = 10
    """One molecule in so many is held out of all trainings."""
    training: DenoisingSettings = dataclasses.field(
        default_factory=lambda: DenoisingSettings(num_steps=2000, batch_size=4, learning_rate=5e-3, validate_every=200)
    )
    """Its seed is replaced by each of `seeds`."""

    def __post_init__(self) -> None:
        for name in ("layers", "widths", "cutoffs", "molecules", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values) or min(values) < 0:
                raise SpecError(f"the grid's {name} are {values}: give one or more, each once, none below 0")
        object.__setattr__(self, "architecture", Architecture(self.architecture))

    @property
    def cells(self) -> list[ScalingCell]:
        """Small networks first, so that a long study shows something early."""
        every = itertools.product(self.layers, self.widths, self.cutoffs, self.molecules, self.seeds)
        return [ScalingCell(*one) for one in sorted(every, key=lambda one: (one[0] * one[1] ** 2, one))]

    def spec(self, cell: ScalingCell, elements: tuple[int, ...]) -> EncoderSpec:
        """The encoder that a cell trains."""
        return EncoderSpec(
            architecture=self.architecture,
            num_layers=cell.layers,
            cutoff=cell.cutoff,
            width=cell.width,
            num_radial=self.num_radial,
            num_heads=self.num_heads,
            max_atomic_number=max(elements),
            elements=elements,
            max_neighbors=self.max_neighbors,
            noise_scale=self.noise_scale,
        )


@dataclass(frozen=True)
class ScalingCell:
    """One training of the grid."""

    layers: int
    width: int
    cutoff: float
    molecules: int
    seed: int

    @property
    def name(self) -> str:
        """The name of its directory."""
        return f"l{self.layers}-h{self.width}-r{self.cutoff:g}-m{self.molecules or 'all'}-s{self.seed}"


@dataclass(frozen=True)
class ScalingRun:
    """What came of one training."""

    cell: ScalingCell
    parameters: int
    """Weights, without the table of elements, which depends on the largest atomic number alone."""
    frames: int
    """Different frames in the training set."""
    operations_per_step: float
    """Multiplications and additions in matrix products, forward and backward, of the plain form."""
    steps: tuple[int, ...]
    validation_errors: tuple[float, ...]
    """Errors of the averaged weights at those steps, on held-out molecules: 1.0 has learned nothing."""

    @property
    def error(self) -> float:
        """The lowest validation error."""
        return min(self.validation_errors)


def run_scaling(
    data: Sequence[Path], out: Path, grid: ScalingGrid, processes: int = 1, progress: bool = True
) -> list[ScalingRun]:
    """Train what is missing of the grid and return all of its runs; a second call resumes, also with a larger grid.

    Raises:
        DataError: if the data are damaged, or `out` holds a study of other data or other settings.
        SpecError: if a cell of the grid makes no network.
    """
    joined = join_conformations(data)
    joined.verify()
    training, _ = joined.split(grid.hold_out)
    if (most := max(grid.molecules)) > len(training):
        raise SpecError(f"{most} molecules were asked for, the training set has {len(training)}: give at most those")
    elements = joined.molecules.elements(grid.training.hydrogens)
    for cell in grid.cells:
        check_elements(grid.spec(cell, elements), elements)
    with locked(out):
        _remember(out, grid, [path.resolve() for path in data], joined.sha256)
        missing = [cell for cell in grid.cells if _last_step(out / RUNS / cell.name) < grid.training.num_steps]
        processes, works = max(1, min(processes, len(missing))), []
        for number in range(processes if missing else 0):
            mine = missing[number::processes]
            cells = json.dumps([vars(cell) for cell in mine])
            command = [sys.executable, __file__, str(out), cells]
            steps = len(mine) * grid.training.num_steps
            works.append(Work(f"part {number + 1} of the trainings", command, steps, _steps_done(out, mine)))
        run_workers(works, processes=processes, progress=progress, what="parts")
        counted: dict[tuple[int, int, float], float] = {}
        runs = []
        for cell in grid.cells:
            subset = training[: cell.molecules or len(training)]
            spec = grid.spec(cell, elements)
            key = (cell.layers, cell.width, cell.cutoff)
            if key not in counted:
                counted[key] = operations_per_atom(spec, training, grid.training.hydrogens)
            frames = int(subset.column("num_frames").sum())
            atoms = mean_atoms(subset, grid.training.hydrogens) * grid.training.batch_size
            curve = _curve(out / RUNS / cell.name)
            runs.append(ScalingRun(cell, num_parameters(spec), frames, counted[key] * atoms, *curve))
    return runs


def num_parameters(spec: EncoderSpec) -> int:
    """Weights of an encoder with its head, without the tables of elements."""
    encoder = Encoder(spec)
    tables = sum(part.weight.numel() for part in encoder.modules() if isinstance(part, torch.nn.Embedding))
    return sum(weight.numel() for weight in encoder.parameters()) - tables


def mean_atoms(molecules: Molecules, hydrogens: bool) -> float:
    """Atoms of a frame that are learned from, on average."""
    atoms = molecules.column("num_atoms" if hydrogens else "num_heavy")
    return float(np.average(atoms, weights=molecules.column("num_frames")))


def operations_per_atom(spec: EncoderSpec, molecules: Molecules, hydrogens: bool) -> float:
    """Multiplications and additions of one training step per atom, counted in the plain form, float64, by PyTorch."""
    from torch.utils.flop_counter import FlopCounterMode

    frames = MoleculeFrames(molecules, hydrogens, spec.length_unit)
    spacing = max(1, len(frames) // _COUNTED_FRAMES)
    numbers, positions, batch = collate([frames[index] for index in range(0, len(frames), spacing)])
    encoder = Encoder(spec).double()
    with FlopCounterMode(display=False) as counter:
        encoder.predicted_noise(numbers, positions.double(), batch).square().mean().backward()
    return counter.get_total_flops() / len(numbers)


def train_cells(out: Path, cells: Sequence[ScalingCell], report: Callable[[int], None]) -> None:
    """Train some cells of a study, or what is left of them, one by one; `report` gets the number of all steps done."""
    content = json.loads((out / GRID_FILE).read_text())
    grid, joined = grid_from_json(content["grid"]), join_conformations([Path(path) for path in content["data"]])
    training, validation = joined.split(grid.hold_out)
    elements = joined.molecules.elements(grid.training.hydrogens)
    torch.set_num_threads(1)
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(_POLL_SECONDS):
            report(_steps_done(out, cells))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        for cell in cells:
            pretrain_on_molecules(
                grid.spec(cell, elements),
                training[: cell.molecules or len(training)],
                validation,
                dataclasses.replace(grid.training, seed=cell.seed),
                out / RUNS / cell.name,
                progress=False,
                metadata={"data": {"sha256": joined.sha256, "molecules": cell.molecules}},
            )
    finally:
        finished.set()
        watcher.join()


def grid_to_json(grid: ScalingGrid) -> dict[str, Any]:
    """Plain numbers and lists."""
    return dict(json.loads(json.dumps(dataclasses.asdict(grid))))


def grid_from_json(content: dict[str, Any]) -> ScalingGrid:
    """The inverse of `grid_to_json`."""
    lists = {name: tuple(value) for name, value in content.items() if isinstance(value, list)}
    return ScalingGrid(**{**content, **lists, "training": DenoisingSettings(**content["training"])})


def runs_as_table(runs: Sequence[ScalingRun]) -> list[dict[str, Any]]:
    """A row of plain numbers for each run."""
    return [
        {
            **vars(run.cell),
            "parameters": run.parameters,
            "frames": run.frames,
            "operations": run.operations_per_step * run.steps[-1],
            "error": run.error,
        }
        for run in runs
    ]


def write_table(runs: Sequence[ScalingRun], path: Path) -> None:
    """`runs_as_table` as CSV."""
    rows = runs_as_table(runs)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _remember(out: Path, grid: ScalingGrid, data: Sequence[Path], sha256: str) -> None:
    """Write grid.json; DataError where it belongs to other trainings."""
    content: dict[str, Any] = {"grid": grid_to_json(grid), "data": [str(path) for path in data], "data_sha256": sha256}
    file, axes = out / GRID_FILE, ("layers", "widths", "cutoffs", "molecules", "seeds")
    if file.is_file():
        before = json.loads(file.read_text())
        if before["data_sha256"] != sha256:
            raise DataError(f"{out} is a study of other data ({before['data']}): give those, or another --out")
        for name, value in before["grid"].items():
            if name not in axes and value != content["grid"][name]:
                raise DataError(
                    f"{out} is a study with {name} = {value}, now it is {content['grid'][name]}: give the same, or "
                    "another --out"
                )
    write_atomically(file, (json.dumps(content, indent=2) + "\n").encode())


def _curve(folder: Path) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Steps and validation errors of a training so far."""
    if not (folder / LOG_FILE).is_file():
        return (), ()
    with open(folder / LOG_FILE, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("validation_error")]
    return tuple(int(row["step"]) for row in rows), tuple(float(row["validation_error"]) for row in rows)


def _last_step(folder: Path) -> int:
    return max(_curve(folder)[0], default=0)


def _steps_done(out: Path, cells: Sequence[ScalingCell]) -> int:
    return sum(_last_step(out / RUNS / cell.name) for cell in cells)


if __name__ == "__main__":
    asked = [ScalingCell(**cell) for cell in json.loads(sys.argv[2])]
    serve(lambda report: train_cells(Path(sys.argv[1]), asked, report))
