"""Runs a molecule in OpenMM for its conformations: minimised, then Langevin dynamics, temperature after temperature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from openmm_gnn.base.errors import NonFiniteError
from openmm_gnn.data.conformers.conformer_settings import Dynamics
from openmm_gnn.data.conformers.shard_writing import Conformers
from openmm_gnn.md.implicit_solvent import ImplicitForceField, in_implicit_solvent

if TYPE_CHECKING:
    import openmm
    from openmm import app

_ATTEMPTS = 5
"""Times that a molecule is built anew when its run breaks."""
_FARTHEST_NM = 100.0

Build = Callable[[np.random.Generator], "tuple[app.Topology, np.ndarray]"]
"""Topology with hydrogens and positions (num_atoms, 3), nm, to start from."""


@dataclass(frozen=True)
class OpenMMDynamics(Dynamics):
    """Dynamics in OpenMM, with implicit solvent."""

    force_field: ImplicitForceField = ImplicitForceField.AMBER14
    platform: str = "CPU"
    """Of OpenMM; on the CPU one thread per process."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "force_field", ImplicitForceField(self.force_field))


def conformers_in_openmm(name: str, sequence: str, build: Build, settings: OpenMMDynamics, number: int) -> Conformers:
    """Frames of the molecule that `build` makes, the same for the same seed and number.

    Raises:
        NonFiniteError: if the molecule blows up however it is built.
    """
    import openmm

    for attempt in range(_ATTEMPTS):
        generator = np.random.default_rng([settings.seed, number, attempt])
        try:
            topology, start = build(generator)
            frames = _run(_context(topology, start, settings, generator), settings)
        except (openmm.OpenMMException, NonFiniteError) as error:
            broken: Exception = error
            continue
        atoms = list(topology.atoms())
        return Conformers(
            name=name,
            sequence=sequence,
            atomic_numbers=np.array([atom.element.atomic_number for atom in atoms]),
            positions=frames,
            temperatures=np.array(settings.frame_temperatures),
            residue_index=np.array([atom.residue.index for atom in atoms]),
        )
    raise NonFiniteError(f"{name} broke {_ATTEMPTS} times, the last time with: {broken}; shorten the time step")


def _context(
    topology: app.Topology, positions: Any, settings: OpenMMDynamics, generator: np.random.Generator
) -> openmm.Context:
    import openmm

    system = in_implicit_solvent(topology, settings.force_field)
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


def _run(context: openmm.Context, settings: OpenMMDynamics) -> np.ndarray:
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
