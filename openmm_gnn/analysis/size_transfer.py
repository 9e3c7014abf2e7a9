"""The error of a network in boxes of other sizes than it was trained in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.analysis.dynamics_checks import HOTTEST
from openmm_gnn.analysis.force_checks import NetworkForces, ReferenceFrame, Teacher, relative_difference
from openmm_gnn.base.errors import DataError, NonFiniteError
from openmm_gnn.base.units import kinetic_temperature
from openmm_gnn.graph.topology_tables import real_atoms
from openmm_gnn.md.contexts import choose_platform, degrees_of_freedom
from openmm_gnn.md.simulation_system import LabelledForces
from openmm_gnn.md.systems.systems import NAMED_SYSTEMS, named_system

if TYPE_CHECKING:
    import openmm
    from openmm import app

    from openmm_gnn.learning.training.frames import ForceErrors
    from openmm_gnn.md.simulation_system import SimulationSystem
    from openmm_gnn.networks.force_model import ForceModel

PREPARATION_PS = 0.2
FRICTION_PER_PS = 20.0
FRAMES_OF_MOLECULES, MOST_FRAMES = 2000, 8
"""Molecules, and frames at most, of one error: enough for a few percent of it."""
RATTLE_NM = 0.002
"""Spread of the displacements that make copies of a frame differ where the teacher is too expensive for a run."""


@dataclass(frozen=True)
class SizeResult:
    """Errors in a box of one size, or the reason why there are none."""

    num_molecules: int
    edge_nm: float
    """Edge of a cube with the box's volume."""
    errors: ForceErrors | None
    """None if a run blew up."""
    failure: str = ""
    """Reason and place of a blow-up; empty if there was none."""


def sizes_for(name: str, sizes: Sequence[int]) -> list[int]:
    """The sizes that a named system can have: the smallest is its own.

    Where the teacher is expensive they are cubes of whole numbers times its own: those need no run.

    Raises:
        DataError: if it is no named system.
    """
    if name not in NAMED_SYSTEMS:
        raise DataError(f"{name!r} is no named system and cannot grow: give one of {sorted(NAMED_SYSTEMS)}")
    system = named_system(name)
    own = system.topology.getNumResidues()
    if system.prepare is not None:
        return sorted({own * max(1, round((size / own) ** (1 / 3))) ** 3 for size in sizes})
    return sorted({max(size, own) for size in sizes})


def size_transfer(
    name: str,
    model: ForceModel,
    part: LabelledForces,
    sizes: Sequence[int],
    frame: ReferenceFrame,
    preparation_ps: float = PREPARATION_PS,
    platform: str = "auto",
    report: Callable[[str, float], None] = lambda *_: None,
) -> list[SizeResult]:
    """Force errors of a named system in boxes of several sizes, from one frame each, or from several in small boxes.

    A box is filled with copies of an equilibrated frame, and a short run of the teacher makes them differ and relaxes
    the faces where copies were cut. Where the teacher is too expensive for that, molecules of whole copies are
    displaced a little. A size whose run blows up is described, and the others are still measured.

    Args:
        frame: equilibrated, of the same kind of system.
        report: called with the present size and the part that is done, 0 to 1.
    Raises:
        DataError: if the frame has no box or other molecules.
    """
    results = []
    for size in sizes:
        system = named_system(name, size)
        say = partial(report, f"{size} molecules")
        try:
            errors, failure = _errors(system, model, part, frame, preparation_ps, platform, say), ""
        except NonFiniteError as error:
            errors, failure = None, str(error)
        results.append(SizeResult(size, _edge(system.box_vectors), errors, failure))
        say(1.0)
    return results


def _errors(
    system: SimulationSystem,
    model: ForceModel,
    part: LabelledForces,
    frame: ReferenceFrame,
    preparation_ps: float,
    platform: str,
    report: Callable[[float], None],
) -> ForceErrors:
    """Errors over frames made from copies of this one.

    Raises:
        NonFiniteError: if a run that makes them blows up.
    """
    from openmm_gnn.learning.training.frames import ForceErrorMeter

    meter, count = ForceErrorMeter(), max(1, min(MOST_FRAMES, FRAMES_OF_MOLECULES // system.topology.getNumResidues()))
    teacher, network = Teacher(system, part, platform), NetworkForces(model, system.topology, system.box_vectors)
    atoms = real_atoms(system.topology)
    for seed in range(1, count + 1):
        report((seed - 1) / count)
        positions = grown(frame, system)
        if system.prepare is None:
            positions = _run(system, positions, preparation_ps, platform, seed)
        else:
            positions = _shaken(system, positions, seed)
        meter.add(_tensor(network(positions)[atoms]), _tensor(teacher.forces(positions)[atoms]))
    return meter.errors()


def grown(frame: ReferenceFrame, system: SimulationSystem) -> np.ndarray:
    """Positions that fill a system's cubic box with the molecules of a frame, copied as often as needed.

    Molecules are taken from one corner on until there are enough, and their positions are scaled so that they fill the
    box; with a whole number of copies that changes nothing.

    Returns:
        (num_particles, 3), nm.
    Raises:
        DataError: if a box is missing or not rectangular, or the molecules have another number of particles.
    """
    box = system.box_vectors
    if frame.box is None or box is None or np.count_nonzero(frame.box) != 3 or np.count_nonzero(box) != 3:
        found = [None if vectors is None else np.round(vectors, 3).tolist() for vectors in (frame.box, box)]
        raise DataError(
            f"the frame's box is {found[0]} nm, that of {system.name} {found[1]} nm, and only a rectangular box can be "
            "filled with copies of another: give frames of a run in a rectangular box"
        )
    num_molecules = system.topology.getNumResidues()
    per_molecule = system.system.getNumParticles() // num_molecules
    if len(frame.positions) % per_molecule or system.system.getNumParticles() % num_molecules:
        raise DataError(
            f"{len(frame.positions)} particles are no molecules of {per_molecule}: give a frame of {system.name}"
        )
    edge, target = np.diag(frame.box), np.diag(box)
    molecules = frame.positions.reshape(-1, per_molecule, 3)
    molecules = molecules - np.floor(molecules[:, :1] / edge) * edge
    copies = np.ceil(target / edge - 1e-4).astype(int)
    shifts = np.stack(np.meshgrid(*map(np.arange, copies), indexing="ij"), axis=-1).reshape(-1, 1, 1, 3) * edge
    molecules = (molecules + shifts).reshape(-1, per_molecule, 3)
    corners = molecules[:, 0]
    reach = (corners / target).max(axis=1)
    order = np.argsort(reach, kind="stable")
    if len(order) == num_molecules:
        return molecules.reshape(-1, 3)
    scale = 2 / (reach[order[num_molecules - 1]] + reach[order[num_molecules]])
    kept = np.sort(order[:num_molecules])
    return (molecules[kept] + (scale - 1) * corners[kept][:, None]).reshape(-1, 3)


def prepared(system: SimulationSystem, time_ps: float, platform: str = "auto", seed: int = 1) -> np.ndarray:
    """(num_particles, 3) nm: the system's own prepared start, or its start after a short run under its own forces.

    Raises:
        NonFiniteError: if that run blows up.
    """
    if system.prepare is not None:
        return system.prepare(seed)
    return _run(system, system.positions, time_ps, platform, seed)


def _run(system: SimulationSystem, positions: np.ndarray, time_ps: float, platform: str, seed: int) -> np.ndarray:
    """Positions after minimisation and a run with strong friction and short steps.

    Raises:
        NonFiniteError: if it blows up: an error of OpenMM, positions that are not finite, or far too much heat.
    """
    import openmm

    integrator = openmm.LangevinMiddleIntegrator(system.temperature, FRICTION_PER_PS, min(0.001, system.time_step_ps))
    integrator.setRandomNumberSeed(seed)
    chosen = openmm.Platform.getPlatformByName(choose_platform(platform))
    context = openmm.Context(system.system, integrator, chosen)
    context.setPositions(positions)
    context.applyConstraints(1e-6)
    context.computeVirtualSites()
    try:
        openmm.LocalEnergyMinimizer.minimize(context, 1000.0, 50)
        context.setVelocitiesToTemperature(system.temperature, seed)
        integrator.step(max(1, round(time_ps / integrator.getStepSize()._value)))
        state = context.getState(positions=True, energy=True)
    except openmm.OpenMMException as error:
        raise blown_up(system, context, str(error)) from error
    moved = np.array(state.getPositions(asNumpy=True)._value)
    kelvin = kinetic_temperature(state.getKineticEnergy()._value, degrees_of_freedom(system.system))
    if not (np.isfinite(moved).all() and kelvin < HOTTEST * system.temperature):  # not every platform reports it
        raise blown_up(system, context, f"heated to {kelvin:.3g} K")
    return moved


def blown_up(system: SimulationSystem, context: openmm.Context, what: str) -> NonFiniteError:
    """The error of a run under a system's own forces: the run, the time, the symptom `what`, and the remedy."""
    edge = "no box" if system.box_vectors is None else f"a box of {_edge(system.box_vectors):.2f} nm"
    time_step = context.getIntegrator().getStepSize()._value
    return NonFiniteError(
        f"{system.name}, {system.topology.getNumResidues()} molecules in {edge}: a run under the system's own "
        f"forces blew up after {context.getStepCount()} steps of {time_step:g} ps ({what.splitlines()[0]}). "
        "Its start has atoms too close together, or the steps are too long: relax the start, begin with another frame, "
        "or give the system a smaller time step"
    )


def _shaken(system: SimulationSystem, positions: np.ndarray, seed: int) -> np.ndarray:
    """Positions with each molecule displaced as a whole by a vector of its own."""
    num_molecules = system.topology.getNumResidues()
    moves = np.random.default_rng(seed).normal(scale=RATTLE_NM, size=(num_molecules, 1, 3))
    return (positions.reshape(num_molecules, -1, 3) + moves).reshape(-1, 3)


def replication_error(model: ForceModel, system: SimulationSystem, frame: ReferenceFrame, repeats: int = 2) -> float:
    """The relative rms difference of the forces in a box of `repeats`^3 copies of a frame from copies of its forces.

    The copies have the forces of the original exactly: an exact test of size consistency, but without any new
    arrangement.

    Raises:
        DataError: if the frame has no box.
    """
    if frame.box is None:
        raise DataError("a frame without a box cannot be repeated: give one of a periodic run")
    shifts = np.stack(np.meshgrid(*[np.arange(repeats)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) @ frame.box
    positions = (frame.positions + shifts[:, None]).reshape(-1, 3)
    small = NetworkForces(model, system.topology, frame.box)(frame.positions)
    large = NetworkForces(model, repeated_topology(system.topology, repeats**3), repeats * frame.box)(positions)
    return relative_difference(large, np.tile(small, (repeats**3, 1)))


def repeated_topology(topology: app.Topology, count: int) -> app.Topology:
    """`count` copies of a topology in one, without a box."""
    from openmm import app, unit

    nowhere = unit.Quantity(np.zeros((topology.getNumAtoms(), 3)), unit.nanometer)
    repeated = app.Modeller(topology, nowhere)
    for _ in range(count - 1):
        repeated.add(topology, nowhere)
    repeated.topology.setPeriodicBoxVectors(None)
    return repeated.topology


def _edge(box: np.ndarray | None) -> float:
    return float("nan") if box is None else float(abs(np.linalg.det(box)) ** (1 / 3))


def _tensor(values: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.array(values, dtype=np.float64))
