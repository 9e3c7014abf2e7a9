"""Makes conformations of random peptides with OpenMM: short Langevin runs in implicit solvent, from hot to cold.

Each molecule depends on the settings and on its number alone, and is stored as a whole when it is done: a killed run
goes on with the next one, and more molecules can be added later. Several processes take turns.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.errors import DataError, NonFiniteError, SpecError
from openmm_gnn.pretraining.conformations import (
    META_FILE,
    META_KIND,
    META_VERSION,
    MOLECULE_FILE,
    POSITIONS_FILE,
    UNITS,
    Conformations,
    molecule_folder,
    read_meta,
)
from openmm_gnn.simulation.implicit_solvent import FORCE_FIELD, HYDROGEN_MASS, in_implicit_solvent, with_hydrogens
from openmm_gnn.simulation.peptides import HELD_OUT, Peptide, build_peptide, random_peptides
from openmm_gnn.simulation.resumable import locked, write_atomically
from openmm_gnn.training.worker_processes import Work, run_workers, serve

if TYPE_CHECKING:
    import openmm
    from openmm import app

_ATTEMPTS = 5
"""Times that a molecule is built anew when its run breaks."""
_FARTHEST_NM = 100.0


@dataclass(frozen=True)
class ConformerSettings:
    """What all molecules of a directory have in common."""

    shortest: int = 1
    longest: int = 8
    """Residues, caps not counted."""
    temperatures: tuple[float, ...] = (600.0, 450.0, 300.0)
    """K, in the order in which they are run."""
    frames: int = 3
    """Per molecule and temperature."""
    interval_ps: float = 1.0
    """Between two frames; as long runs before the first at each temperature."""
    time_step_ps: float = 0.004
    friction_per_ps: float = 2.0
    seed: int = 1
    platform: str = "CPU"
    """Of OpenMM; on the CPU one thread per process."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperatures", tuple(float(kelvin) for kelvin in self.temperatures))
        if not self.temperatures or min(self.temperatures) <= 0:
            raise SpecError(f"the temperatures are {self.temperatures} K: give one or more above 0")
        if self.frames < 1 or self.time_step_ps <= 0 or self.steps_per_frame < 1:
            raise SpecError(
                f"{self.frames} frames every {self.interval_ps} ps in steps of {self.time_step_ps} ps: give at least "
                "one frame, and an interval of at least one step"
            )

    @property
    def steps_per_frame(self) -> int:
        return round(self.interval_ps / self.time_step_ps)

    def peptides(self, count: int) -> list[Peptide]:
        """The first `count` molecules; the same ones however many are asked for."""
        return list(itertools.islice(random_peptides(self.shortest, self.longest, self.seed), count))


def make_conformations(
    out: str | Path,
    num_molecules: int,
    settings: ConformerSettings,
    processes: int | None = None,
    progress: bool = True,
    command: str | None = None,
) -> Conformations:
    """Make what is missing of the first `num_molecules` molecules; more may be asked for later.

    Args:
        out: directory of the data; made if it does not exist.
        processes: at once; by default one per core.
        command: what the user typed, to be remembered in meta.json.
    Raises:
        SpecError: if a setting makes no sense.
        DataError: if `out` holds something else, was made with other settings, or another process is writing to it.
        NonFiniteError: if a molecule cannot be run.
    """
    if num_molecules < 1:
        raise SpecError(f"the number of molecules is {num_molecules}: give at least 1")
    out = Path(out)
    settings.peptides(num_molecules)  # before anything is written: are there so many?
    with locked(out):
        num_molecules = _prepare(out, num_molecules, settings, command)
        missing = [k for k in range(num_molecules) if not (molecule_folder(out, k) / MOLECULE_FILE).exists()]
        processes = max(1, min(processes or os.cpu_count() or 1, len(missing)))
        works = []
        for part in range(processes):
            mine = [str(index) for index in missing[part::processes]]
            worker = [sys.executable, "-m", "openmm_gnn.pretraining.conformers", str(out), *mine]
            works.append(Work(name=f"part {part + 1} of the molecules", command=worker, steps=len(mine), steps_done=0))
        run_workers(works, processes=processes, progress=progress, what="parts")
    return Conformations.open(out)


def _prepare(out: Path, num_molecules: int, settings: ConformerSettings, command: str | None) -> int:
    """Write meta.json, or check that it is of the same making; the number of molecules there will be."""
    import openmm

    made_with = json.loads(json.dumps(asdict(settings) | {"force_field": FORCE_FIELD, "hydrogen_mass": HYDROGEN_MASS}))
    if (out / META_FILE).exists():
        meta = read_meta(out)
        for name, value in made_with.items():
            if meta["settings"].get(name) != value:
                raise DataError(
                    f"{out} was made with {name} = {meta['settings'].get(name)!r}, now it is {value!r}: go on with the "
                    "same, or give another directory"
                )
    else:
        if others := sorted(entry.name for entry in out.iterdir() if not entry.name.startswith((".", META_FILE))):
            raise DataError(f"{out} is no directory of conformations but holds {others[:3]}: give a new one")
        meta = {"kind": META_KIND, "version": META_VERSION, "settings": made_with, "num_molecules": 0, "commands": []}
        meta |= {"left_out": HELD_OUT, "units": UNITS}
        meta |= {"versions": {"openmm-gnn": version("openmm-gnn"), "openmm": openmm.__version__}}
    meta["num_molecules"] = max(meta["num_molecules"], num_molecules)
    if command and command not in meta["commands"]:
        meta["commands"].append(command)
    write_atomically(out / META_FILE, (json.dumps(meta, indent=2) + "\n").encode())
    return int(meta["num_molecules"])


def run_molecules(out: Path, indices: list[int], report: Callable[[int], None]) -> None:
    """Make these molecules of a directory, one after the other; `report` hears how many are done."""
    meta = read_meta(out)
    names = set(ConformerSettings.__dataclass_fields__)
    settings = ConformerSettings(**{name: value for name, value in meta["settings"].items() if name in names})
    peptides = settings.peptides(meta["num_molecules"])
    for done, index in enumerate(indices):
        topology, positions, temperatures = conformations_of(peptides[index], settings, index)
        _store(molecule_folder(out, index), peptides[index], topology, positions, temperatures)
        report(done + 1)


def conformations_of(
    peptide: Peptide, settings: ConformerSettings, index: int
) -> tuple[app.Topology, np.ndarray, list[float]]:
    """Topology with hydrogens, positions (frames, atoms, 3) float32 in nm, and the temperature of each frame.

    Raises:
        NonFiniteError: if the molecule blows up however it is built.
    """
    import openmm

    for attempt in range(_ATTEMPTS):
        generator = np.random.default_rng([settings.seed, index, attempt])
        try:
            topology, start = with_hydrogens(*build_peptide(peptide, generator), generator)
            context = _context(topology, start, settings, generator)
            frames = _run(context, settings)
        except (openmm.OpenMMException, NonFiniteError) as error:
            broken: Exception = error
            continue
        temperatures = [kelvin for kelvin in settings.temperatures for _ in range(settings.frames)]
        return topology, frames, temperatures
    raise NonFiniteError(f"{peptide.name} broke {_ATTEMPTS} times, the last time with: {broken}; shorten the time step")


def _context(
    topology: app.Topology, positions: Any, settings: ConformerSettings, generator: np.random.Generator
) -> openmm.Context:
    import openmm

    system = in_implicit_solvent(topology)
    integrator = openmm.LangevinMiddleIntegrator(
        settings.temperatures[0], settings.friction_per_ps, settings.time_step_ps
    )
    integrator.setRandomNumberSeed(int(generator.integers(1, 2**31)))
    platform = openmm.Platform.getPlatformByName(settings.platform)
    properties = {"Threads": "1", "DeterministicForces": "true"} if settings.platform == "CPU" else {}
    context = openmm.Context(system, integrator, platform, properties)
    context.setPositions(positions)
    openmm.LocalEnergyMinimizer.minimize(context, tolerance=10, maxIterations=200)
    context.setVelocitiesToTemperature(settings.temperatures[0], int(generator.integers(1, 2**31)))
    return context


def _run(context: openmm.Context, settings: ConformerSettings) -> np.ndarray:
    """(frames, atoms, 3) float32, nm, centred; NonFiniteError if the molecule flies apart."""
    from openmm import unit

    integrator, frames = context.getIntegrator(), []
    for kelvin in settings.temperatures:
        integrator.setTemperature(kelvin)
        integrator.step(settings.steps_per_frame)
        for _ in range(settings.frames):
            integrator.step(settings.steps_per_frame)
            positions = context.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.nanometer)
            positions = positions - positions.mean(axis=0)
            if not (np.abs(positions) < _FARTHEST_NM).all():
                raise NonFiniteError(f"an atom left the molecule at {kelvin:g} K")
            frames.append(positions.astype(np.float32))
    return np.stack(frames)


def _store(
    folder: Path, peptide: Peptide, topology: app.Topology, positions: np.ndarray, temperatures: list[float]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    np.save(content, positions, allow_pickle=False)
    atoms = list(topology.atoms())
    description = {
        "name": peptide.name,
        "sequence": peptide.sequence,
        "atomic_numbers": [atom.element.atomic_number for atom in atoms],
        "atom_names": [atom.name for atom in atoms],
        "residue_index": [atom.residue.index for atom in atoms],
        "temperatures": temperatures,
        "sha256": hashlib.sha256(content.getvalue()).hexdigest(),
    }
    write_atomically(folder / POSITIONS_FILE, content.getvalue())
    write_atomically(folder / MOLECULE_FILE, json.dumps(description).encode())


if __name__ == "__main__":
    serve(lambda report: run_molecules(Path(sys.argv[1]), [int(index) for index in sys.argv[2:]], report))
