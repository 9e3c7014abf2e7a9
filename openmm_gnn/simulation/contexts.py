"""Systems and Contexts for a run: a network in place of a system's forces, the platform, degrees of freedom."""

from __future__ import annotations

import copy

import openmm

from openmm_gnn.errors import BackendError, SpecError
from openmm_gnn.simulation.force_parts import split_groups
from openmm_gnn.simulation.run_settings import RunSettings, make_integrator


def with_model_force(system: openmm.System, force: openmm.Force) -> openmm.System:
    """A copy of a system in which `force` stands for all forces, and the centre of mass is kept at rest.

    Masses, constraints and box stay. A network's net force need not be exactly zero, and a drifting centre
    of mass would spoil mean squared displacements: so a CMMotionRemover is always there.

    Raises:
        SpecError: if the system has a barostat, which needs an energy that a force network does not give.
    """
    replaced = copy.deepcopy(system)
    for index in reversed(range(replaced.getNumForces())):
        present = replaced.getForce(index)
        if "Barostat" in type(present).__name__:
            raise SpecError(
                f"{type(present).__name__} needs energies, a force network has none: run at constant volume"
            )
        replaced.removeForce(index)
    replaced.addForce(force)
    replaced.addForce(openmm.CMMotionRemover())
    return replaced


def choose_platform(name: str) -> str:
    """The name of an OpenMM platform of this machine.

    "auto" does not take OpenCL: on a machine without a GPU it may be a CPU in disguise, slower than the CPU platform.

    Raises:
        BackendError: if there is none of that name.
    """
    present = [openmm.Platform.getPlatform(index).getName() for index in range(openmm.Platform.getNumPlatforms())]
    if name != "auto":
        if name not in present:
            raise BackendError(f"OpenMM has no platform {name!r} here: choose among {', '.join(present)}, or auto")
        return name
    if "CUDA" in present:
        probe = openmm.System()
        probe.addParticle(1.0)
        try:
            openmm.Context(probe, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("CUDA"))
            return "CUDA"
        except openmm.OpenMMException:
            pass
    return "CPU"


def degrees_of_freedom(system: openmm.System) -> int:
    """3 per massive particle, less constraints, less 3 if the centre of mass is held at rest."""
    masses = [system.getParticleMass(index)._value for index in range(system.getNumParticles())]
    constraints = [system.getConstraintParameters(index) for index in range(system.getNumConstraints())]
    count = 3 * sum(mass > 0 for mass in masses)
    count -= sum(masses[first] > 0 or masses[second] > 0 for first, second, _ in constraints)
    removers = (isinstance(force, openmm.CMMotionRemover) for force in system.getForces())
    return count - 3 * any(removers)


def make_context(
    system: openmm.System, settings: RunSettings, platform: str, threads: int | None, with_torch: bool
) -> openmm.Context:
    """A Context on a platform; `threads` are those of OpenMM's CPU platform and, with a network, of torch.

    Bonded substeps take the force groups for themselves, in a copy of the system.
    """
    properties = {}
    if settings.bonded_substeps > 1:
        system = copy.deepcopy(system)
        split_groups(system)
    if threads is not None and platform == "CPU":
        properties["Threads"] = str(threads)
    if threads is not None and with_torch:
        import torch

        torch.set_num_threads(threads)
    chosen = openmm.Platform.getPlatformByName(platform)
    return openmm.Context(system, make_integrator(settings), chosen, properties)
