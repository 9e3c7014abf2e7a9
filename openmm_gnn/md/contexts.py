"""Systems and Contexts for a run: a network in place of forces, heavier hydrogens, the platform, degrees of freedom."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import openmm

from openmm_gnn.base.errors import BackendError, SpecError, TopologyError
from openmm_gnn.md.integrators import make_integrator
from openmm_gnn.md.run_settings import RunCourse
from openmm_gnn.md.simulation_system import ForcePart, masses_of, part_of, split_groups, virtual_sites_of

if TYPE_CHECKING:
    import openmm
    from openmm import app


def with_model_force(system: openmm.System, force: openmm.Force, keep_bonded: bool = False) -> openmm.System:
    """A copy of a system in which `force` stands for all forces, and the centre of mass is kept at rest.

    Masses, constraints, virtual sites, box and barostat stay. A network's net force need not be exactly zero, and a
    drifting centre of mass would spoil mean squared displacements: so a CMMotionRemover is always there.

    Args:
        system: stays as it is.
        force: the force of a network, as `gamd_force` makes it.
        keep_bonded: leave the bonded forces in, for a network of the non-bonded ones.
    """
    replaced = copy.deepcopy(system)
    for index in reversed(range(replaced.getNumForces())):
        present = replaced.getForce(index)
        stays = "Barostat" in type(present).__name__ or (keep_bonded and part_of(present) is ForcePart.BONDED)
        if not stays:
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
    masses = masses_of(system)
    constraints = [system.getConstraintParameters(index) for index in range(system.getNumConstraints())]
    count = 3 * sum(mass > 0 for mass in masses)
    count -= sum(masses[first] > 0 or masses[second] > 0 for first, second, _ in constraints)
    removers = (isinstance(force, openmm.CMMotionRemover) for force in system.getForces())
    return count - 3 * any(removers)


def make_context(
    system: openmm.System,
    settings: RunCourse,
    platform: str,
    threads: int | None,
    with_torch: bool,
    integrator: openmm.Integrator | None = None,
) -> openmm.Context:
    """A Context on a platform; `threads` are those of OpenMM's CPU platform and, with a network, of torch.

    Without an integrator it is that of the settings; their bonded substeps take the force groups for themselves, in
    a copy of the system.

    Raises:
        SpecError: if there are bonded substeps and virtual sites.
    """
    properties = {}
    if integrator is None and settings.bonded_substeps > 1:
        refuse_virtual_sites(system, "bonded substeps")
        system = copy.deepcopy(system)
        split_groups(system)
    if threads is not None and platform == "CPU":
        properties["Threads"] = str(threads)
    if threads is not None and with_torch:
        import torch

        torch.set_num_threads(threads)
    chosen = openmm.Platform.getPlatformByName(platform)
    return openmm.Context(system, integrator or make_integrator(settings), chosen, properties)


def refuse_virtual_sites(system: openmm.System, what: str) -> None:
    """Refuse a System with virtual sites.

    Raises:
        SpecError: if the system has virtual sites: within a step of several substeps, OpenMM's Reference and CPU
            platforms leave them where the step began, and their forces are wrong.
    """
    if sites := virtual_sites_of(system):
        raise SpecError(
            f"particle {sites[0]} is a virtual site, and {what} do not go with these: OpenMM moves them only at the "
            "end of a step. Take a system without virtual sites"
        )


HYDROGEN = 1


def repartition_hydrogen_mass(system: openmm.System, topology: app.Topology, mass: float) -> None:
    """Give every bonded hydrogen this mass in dalton, in place; the atom it is bonded to gives what that takes.

    The mass of each molecule stays, and so does every average over configurations; velocities of hydrogens, and
    slightly those of molecules that turn, do not.

    Raises:
        SpecError: if the mass is not above 0, or a heavy atom would be left lighter than its hydrogens.
        TopologyError: if the topology has no bonded hydrogen.
    Source: Feenstra, Hess, Berendsen, J. Comput. Chem. 20, 786 (1999).
    """
    if not 0 < mass < float("inf"):
        raise SpecError(f"hydrogen_mass is {mass} dalton: give a finite mass above 0, such as 3")
    masses = masses_of(system)
    names = {}
    for bond in topology.bonds():
        for heavy, hydrogen in ((bond[0], bond[1]), (bond[1], bond[0])):
            if hydrogen.element is None or hydrogen.element.atomic_number != HYDROGEN or masses[hydrogen.index] == 0:
                continue
            if heavy.element is None or heavy.element.atomic_number == HYDROGEN:
                continue
            masses[heavy.index] -= mass - masses[hydrogen.index]
            masses[hydrogen.index] = mass
            names[heavy.index] = f"{heavy.name} of {heavy.residue.name}{heavy.residue.id}"
    if not names:
        raise TopologyError("hydrogen_mass is given, but the topology has no bonded hydrogen: give one with its bonds")
    for index, name in names.items():
        if masses[index] < mass:
            raise SpecError(
                f"hydrogen_mass {mass} dalton would leave {masses[index]:.3f} dalton to atom {index} ({name}): "
                "give a smaller one"
            )
    for index, value in enumerate(masses):
        system.setParticleMass(index, value)
