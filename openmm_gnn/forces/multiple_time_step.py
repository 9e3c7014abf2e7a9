"""A network makes an expensive System faster without changing what it samples: multiple time steps.

The network stands for the expensive forces in short steps; every few of them, the difference between the expensive
forces and the network's is applied as a kick. The more alike both are, the smaller the kick and the longer it can wait.
An error of the network costs stability or speed, not correctness: the sum of all forces is the System's own.
"""

from __future__ import annotations

import copy
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import openmm

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.units import dalton, kelvin, per_picosecond, picoseconds
from openmm_gnn.forces.backends import Backend, chosen_backend, is_periodic, make_force
from openmm_gnn.forces.force_levels import Level, free_groups, levels_of, separate
from openmm_gnn.forces.gamd_force import check_model_fits, check_trained_on_nonbonded, has_bonded_terms
from openmm_gnn.forces.modules.openmm_module import script_module
from openmm_gnn.md.contexts import refuse_virtual_sites, repartition_hydrogen_mass
from openmm_gnn.md.integrators import NUM_GROUPS, MultipleTimeStepIntegrator
from openmm_gnn.md.simulation_system import ForcePart, part_of
from openmm_gnn.md.time_steps import accelerated_steps
from openmm_gnn.networks.weights import load_model

if TYPE_CHECKING:
    from openmm import app

    from openmm_gnn.networks.force_model import ForceModel

NETWORK_NAME, NEGATED_NAME = "GAMDForce", "NegatedGAMDForce"
_TRIALS = 3


@dataclass(frozen=True)
class Accelerated:
    """What `accelerate` returns; unpacks to System and integrator."""

    system: openmm.System
    """A copy of the original without its empty bonded forces, and with the network in it."""
    integrator: MultipleTimeStepIntegrator
    groups: dict[int, frozenset[int]]
    """For each force group of the original System the groups that hold its forces here: more than one where bonded
    forces had shared it with others. `getState(groups=set(groups[3]))` is the original's `getState(groups={3})`."""
    own_groups: frozenset[int]
    """All groups but the network's two. A State of these is the original's, and costs no evaluation of the network."""
    levels: dict[str, frozenset[int]]
    """Groups of the network, of the bonded and of the other inner forces, and of what is expensive."""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.system, self.integrator))


def accelerate(
    system: openmm.System,
    topology: app.Topology,
    model: ForceModel | str | os.PathLike[str],
    inner_steps: int | None = None,
    time_step: Any | None = None,
    bonded_substeps: int = 4,
    temperature: Any | None = 300.0,
    friction: Any | None = 1.0,
    hydrogen_mass: Any | None = None,
    backend: Backend | str = Backend.AUTO,
    device: str = "cpu",
    expensive: Sequence[openmm.Force | str | int] | None = None,
    atoms: Sequence[int] | None = None,
) -> Accelerated:
    """A System and an integrator that sample what the given System does, with fewer evaluations of its forces.

    Three levels: bonded forces every time_step / inner_steps / bonded_substeps, the network every time_step /
    inner_steps, the expensive forces less the network every time_step. The best step sizes are found by
    `openmm-gnn scan-steps`: too long an outer step heats, which no average can hide.

    Where few of the forces are expensive, such as the machine-learned potential of a ligand in water that a force
    field describes, say which, and which atoms the network sees. All others are as exact as ever, and those that are
    not bonded act as often as the network:

    ```python
    mixed = MLPotential("ani2x").createMixedSystem(topology, system, ligand)
    accelerated = accelerate(mixed, topology, "ligand.safetensors", expensive=["PythonForce"], atoms=ligand)
    ```

    Energies and forces of the System returned are those of the original, summed over all groups: the network is in
    it twice, the second time negated, in force groups of their own (the highest that were free). The original's
    groups are kept: `groups` of the result says where they are, and only bonded forces that share a group with
    others move to a free one. Minimisers and barostats see the original forces alone. A force added later (as by
    Metadynamics, which must be made with the System returned) is integrated with the expensive ones unless it is put
    into a group of the bonded forces.

    Args:
        system: stays as it is. Constraints and barostats work, virtual sites and Drude particles do not.
        topology: of the System.
        model: a network, or a name or path for `load_model`; trained on the non-bonded forces
            (`label --forces nonbonded`) if the System has bonded ones.
        inner_steps: evaluations of the network per outer step; with 1 it cancels. None: 3, or 4 where the bonds of
            hydrogens are the network's.
        time_step: the outer step, ps. None: 0.006, or 0.004 where the bonds of light hydrogens are the network's.
        bonded_substeps: steps of the bonded forces per inner step; of no effect where there are none.
        temperature: K; with friction, of BAOAB Langevin dynamics. None for both: constant energy.
        friction: 1/ps.
        hydrogen_mass: dalton; makes bonded hydrogens heavier at the cost of the atoms they are bonded to: at most 3
            where there are methyl groups, 4 in water.
        backend: see `gamd_force`.
        device: see `gamd_force`.
        expensive: the forces of `system` that the network stands for: Forces, their names, or force groups; None: all
            but the bonded ones.
        atoms: indices of those that the network sees and moves; None: all that have an element.
    Raises:
        SpecError: if a number is out of range; the System has no expensive forces, or a part that does not go with
            this integrator; or the model was trained on all forces and bonded ones between its atoms stay.
        TopologyError: if the topology does not fit the System or the model.
        BackendError: if the backend does not work here.
    """
    network = load_model(model)
    _check_system(system)
    check_model_fits(network, system, topology)
    levels = levels_of(system, expensive)
    check_trained_on_nonbonded(network, _at(Level.BONDED, system, levels), atoms)
    copied, levels = _copy_without_empty_forces(system, levels)
    if hydrogen_mass is not None:
        repartition_hydrogen_mass(copied, topology, dalton(hydrogen_mass))
    if not any(isinstance(force, openmm.CMMotionRemover) for force in copied.getForces()):
        copied.addForce(openmm.CMMotionRemover())  # a network's net force need not be exactly zero
        levels.append(Level.NONE)
    safe_step_ps, safe_inner_steps = accelerated_steps(copied, topology)
    groups, by_level = separate(copied, levels)
    negated_group, network_group = free_groups(copied, 2)
    chosen = chosen_backend(backend)
    periodic = is_periodic(topology, system, network.spec.neighbors.cutoff)
    # Both networks cancel where an energy is asked for: unlike that of `gamd_force`, they need not warn of barostats.
    force, other = (
        make_force(script_module(network, topology, atoms), NETWORK_NAME, periodic, chosen, device) for _ in range(2)
    )
    force.setForceGroup(network_group)
    negated = openmm.CustomCVForce("-network")
    negated.addCollectiveVariable("network", other)
    negated.setName(NEGATED_NAME)
    negated.setForceGroup(negated_group)
    copied.addForce(force)
    copied.addForce(negated)
    integrator = MultipleTimeStepIntegrator(
        time_step_ps=safe_step_ps if time_step is None else float(picoseconds(time_step)),
        inner_steps=safe_inner_steps if inner_steps is None else inner_steps,
        bonded_substeps=bonded_substeps,
        bonded_groups=by_level[Level.BONDED],
        network_group=network_group,
        negated_group=negated_group,
        temperature=None if temperature is None else float(kelvin(temperature)),
        friction_per_ps=None if friction is None else float(per_picosecond(friction)),
        constrained=copied.getNumConstraints() > 0,
        inner_groups=by_level[Level.INNER],
    )
    own = frozenset(range(NUM_GROUPS)) - {network_group, negated_group}
    inner, bonded = (frozenset(by_level[level]) for level in (Level.INNER, Level.BONDED))
    by_name = {
        "network": frozenset({network_group}),
        "inner": inner,
        "bonded": bonded,
        "expensive": own - inner - bonded,
    }
    return Accelerated(copied, integrator, groups, own, by_name)


def measured_costs(context: openmm.Context, levels: dict[str, frozenset[int]]) -> dict[str, float]:
    """Milliseconds of one evaluation of the forces of each level, the shortest of three."""
    costs = {}
    for name, groups in levels.items():
        times = []
        for _ in range(_TRIALS if groups else 0):
            context.setPositions(context.getState(positions=True).getPositions())  # or OpenMM may keep the forces
            begin = time.perf_counter()
            context.getState(forces=True, groups=set(groups))
            times.append(1000 * (time.perf_counter() - begin))
        costs[name] = min(times, default=0.0)
    return costs


def question_costs(costs: dict[str, float], inner_steps: int) -> None:
    """Warn where an outer step costs more than as many steps of the System's own forces would."""
    own = sum(costs[name] for name in ("expensive", "inner", "bonded"))
    step = costs["expensive"] + inner_steps * (costs["network"] + costs["inner"])
    if step > inner_steps * own:
        warnings.warn(
            f"the network makes nothing faster here: an evaluation takes {costs['network']:.3g} ms, one of the forces "
            f"that it stands for {costs['expensive']:.3g} ms, and of all others {costs['inner'] + costs['bonded']:.3g} "
            "ms; run without it, or say which forces are expensive",
            stacklevel=2,
        )


def _check_system(system: openmm.System) -> None:
    refuse_virtual_sites(system, "multiple time steps")
    for force in system.getForces():
        name = type(force).__name__
        if name == "AndersenThermostat":
            raise SpecError(
                "the System has an AndersenThermostat, and the integrator a thermostat of its own: remove the force"
            )
        if name == "DrudeForce":
            raise SpecError(
                "the System has a DrudeForce, whose particles need an integrator of their own: accelerate a System "
                "that computes its polarisation, such as AMOEBA"
            )


def _at(level: Level, system: openmm.System, levels: Sequence[Level]) -> list[openmm.Force]:
    return [force for force, own in zip(system.getForces(), levels, strict=True) if own is level]


def _copy_without_empty_forces(system: openmm.System, levels: Sequence[Level]) -> tuple[openmm.System, list[Level]]:
    """A copy, and the levels of what is left in it.

    Raises:
        SpecError: if a force cannot be copied.
    """
    try:
        copied = copy.deepcopy(system)
    except Exception as error:
        if not any(type(force).__name__ == "PythonForce" for force in system.getForces()):
            raise
        raise SpecError(
            f"the System has a PythonForce that cannot be copied ({error}): give it a function or an object of a "
            "module, which pickle can store, in place of a lambda or an inner function"
        ) from error
    for original, force in zip(system.getForces(), copied.getForces(), strict=True):
        force.setName(original.getName())  # some forces of plugins lose it
    kept = list(levels)
    # OpenMM reads the expressions of AMOEBA's empty forces for 7 s in each Context.
    for index in reversed(range(copied.getNumForces())):
        force = copied.getForce(index)
        parameters = force.getNumGlobalParameters() if hasattr(force, "getNumGlobalParameters") else 0
        if part_of(force) is ForcePart.BONDED and not has_bonded_terms(force) and parameters == 0:
            copied.removeForce(index)
            del kept[index]
    return copied, kept
