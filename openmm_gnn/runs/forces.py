"""The forces of a run: a system's own, a network's in their place, or both in multiple time steps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import openmm

from openmm_gnn.base.errors import SpecError
from openmm_gnn.forces.network_energies import networks_in
from openmm_gnn.md.contexts import repartition_hydrogen_mass, with_model_force
from openmm_gnn.md.run_settings import RunCourse

if TYPE_CHECKING:
    from openmm_gnn.forces.multiple_time_step import Accelerated
    from openmm_gnn.md.simulation_system import SimulationSystem
    from openmm_gnn.networks.force_model import ForceModel


@dataclass(frozen=True)
class RunForces:
    """A System to run and what to know of it."""

    system: openmm.System
    integrator: openmm.Integrator | None
    """None: that of the settings."""
    groups: frozenset[int] | None
    """Force groups whose energy and forces are those of the run; None: all."""
    knows_energy: bool
    """A network that predicts the expensive forces directly knows none."""
    check: Callable[[], None] = lambda: None
    """Raises the error that a force call met, if one did."""
    accelerated: Accelerated | None = None
    """What `accelerate` returned, in an accelerated run."""


def network_device(platform: str) -> str:
    """Where a PythonForce runs a network beside an OpenMM platform: with CUDA on the GPU, if torch and we have one."""
    import torch

    from openmm_gnn.kernels.library import HAS_CUDA_LIBRARY

    return "cuda" if platform == "CUDA" and HAS_CUDA_LIBRARY and torch.cuda.is_available() else "cpu"


def run_forces(
    start: SimulationSystem,
    settings: RunCourse,
    model: ForceModel | None = None,
    backend: str = "auto",
    device: str = "cpu",
) -> RunForces:
    """The System to run with these settings, and with this network if there is one.

    Args:
        device: where a PythonForce runs the network; a TorchForce follows the platform.
    Raises:
        SpecError: if the settings accelerate without a model, or as for `accelerate` and `with_model_force`.
        TopologyError: if the model does not fit the system.
    """
    if settings.accelerated:
        return _accelerated(start, settings, model, backend, device)
    system = start.system
    if settings.hydrogen_mass is not None:
        system = copy.deepcopy(system)
        repartition_hydrogen_mass(system, start.topology, settings.hydrogen_mass)
    if model is None:
        known = all(network.has_energy for network in networks_in(system))
        return RunForces(system, None, None, knows_energy=known)
    from openmm_gnn.forces.gamd_force import check_model_fits, gamd_force, trained_on_nonbonded

    check_model_fits(model, system, start.topology)
    force = gamd_force(model, start.topology, backend, start.periodic, device=device)
    replaced = with_model_force(system, force, trained_on_nonbonded(model) is True)
    return RunForces(replaced, None, None, knows_energy=model.conservative)


def _accelerated(
    start: SimulationSystem, settings: RunCourse, model: ForceModel | None, backend: str, device: str
) -> RunForces:
    if model is None:
        raise SpecError(f"inner_steps is {settings.inner_steps} without a network: give the model (--model)")
    from openmm_gnn.forces.multiple_time_step import accelerate

    expensive = [int(one) if one.isdecimal() else one for one in settings.expensive]
    atoms = None
    if settings.network_atoms is not None:
        from openmm_gnn.features.selection import select_atoms
        from openmm_gnn.features.topologies import as_mdtraj

        atoms = select_atoms(as_mdtraj(start.topology), settings.network_atoms).tolist()
    accelerated = accelerate(
        start.system,
        start.topology,
        model,
        inner_steps=settings.inner_steps,
        time_step=settings.time_step_ps,
        bonded_substeps=settings.bonded_substeps,
        temperature=settings.temperature,
        friction=settings.friction_per_ps,
        hydrogen_mass=settings.hydrogen_mass,
        backend=backend,
        device=device,
        expensive=expensive or None,
        atoms=atoms,
        thermostat=settings.thermostat,
        hydrogen_friction=settings.hydrogen_friction,
    )
    accelerated.integrator.setRandomNumberSeed(settings.seed)
    system, integrator, own = accelerated.system, accelerated.integrator, accelerated.own_groups
    return RunForces(system, integrator, own, knows_energy=True, accelerated=accelerated)
