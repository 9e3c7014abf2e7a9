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

import numpy as np
import openmm

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.units import dalton, kelvin, per_picosecond, picoseconds
from openmm_gnn.forces.backends import Backend, chosen_backend, is_periodic, make_force
from openmm_gnn.forces.force_levels import Level, free_groups, levels_of, separate
from openmm_gnn.forces.gamd_force import check_model_fits, check_trained_on_nonbonded, has_bonded_terms
from openmm_gnn.forces.modules.openmm_module import script_module
from openmm_gnn.md.contexts import HYDROGEN, refuse_virtual_sites, repartition_hydrogen_mass
from openmm_gnn.md.leapfrog_steps import IsokineticIntegrator, LeapfrogLangevinIntegrator
from openmm_gnn.md.monte_carlo_steps import HybridMonteCarloIntegrator
from openmm_gnn.md.multiple_time_steps import (
    NUM_GROUPS,
    Bath,
    LevelledIntegrator,
    MultipleTimeStepIntegrator,
    TimeLevels,
)
from openmm_gnn.md.run_settings import ACCELERATED_FRICTION_PER_PS, UNTIMED_FRICTION_PER_PS
from openmm_gnn.md.simulation_system import UNTIMED, ForcePart, Thermostat, part_of, virtual_sites_of
from openmm_gnn.md.time_steps import NOTHING_FASTER, accelerated_steps
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
    integrator: LevelledIntegrator
    """Its `steps_per_outer_step` is the number of OpenMM's steps in one outer step: 1, or with virtual sites all
    substeps."""
    groups: dict[int, frozenset[int]]
    """For each force group of the original System the groups that hold its forces here: more than one where bonded
    forces had shared it with others. `getState(groups=set(groups[3]))` is the original's `getState(groups={3})`."""
    own_groups: frozenset[int]
    """All groups but the network's two. A State of these is the original's, and costs no evaluation of the network."""
    levels: dict[str, frozenset[int]]
    """Groups of the network, of the bonded and of the other inner forces, and of what is expensive."""
    atoms: tuple[int, ...]
    """Indices of those that the network sees."""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.system, self.integrator))

    def network_errors(
        self, context: openmm.Context, state: openmm.State | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """How far the network is off where a Context stands: the kick of the outer step is this.

        Args:
            context: of this System.
            state: forces of `own_groups` at its positions, which then are not evaluated again.
        Returns:
            (num_particles, 3) kJ/mol/nm, the forces that the network stands for; and (len(atoms), 3), the network's
            less those.
        """
        groups = lambda *names: set().union(*(self.levels[name] for name in names))  # noqa: E731
        if state is None:
            state = context.getState(forces=True, groups=set(self.own_groups))
        expensive = np.array(state.getForces(asNumpy=True)._value)
        if others := groups("bonded", "inner"):
            expensive -= context.getState(forces=True, groups=others).getForces(asNumpy=True)._value
        network = context.getState(forces=True, groups=groups("network")).getForces(asNumpy=True)._value
        seen = list(self.atoms)
        return expensive, network[seen] - expensive[seen]


def accelerate(
    system: openmm.System,
    topology: app.Topology,
    model: ForceModel | str | os.PathLike[str],
    inner_steps: int | None = None,
    time_step: Any | None = None,
    bonded_substeps: int = 4,
    temperature: Any | None = 300.0,
    friction: Any | None = None,
    hydrogen_mass: Any | None = None,
    backend: Backend | str = Backend.AUTO,
    device: str = "cpu",
    expensive: Sequence[openmm.Force | str | int] | None = None,
    atoms: Sequence[int] | None = None,
    thermostat: Thermostat | str = Thermostat.LANGEVIN,
    hydrogen_friction: Any | None = None,
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

    With `thermostat="isokinetic"` the outer step may be 10 to 20 fs without a resonance: each coordinate keeps below
    its thermal velocity (SIN(R), see md/leapfrog_steps.py). It samples configurations alone: velocities, kinetic
    energies and times have no physical meaning. It needs a System without constraints, and takes a CMMotionRemover
    out, whose changes of the velocities would falsify it. How far averages are off at a step tells `scan-steps`; the
    fault grows with the square of the step and of the network's error.

    With `thermostat="monte-carlo"` each outer step is a proposal of the network that the System's own energy takes or
    not (hybrid Monte Carlo, see md/monte_carlo_steps.py): exact whatever the network, and of use where it is off by
    about kT in the energy of the whole System; `integrator.acceptance` is the fraction taken. Times mean nothing.

    On the CPU, OpenMM moves virtual sites only between two of its steps. So in a System with such, as OPC and TIP4P
    water, one step of OpenMM is one bonded substep: `integrator.steps_per_outer_step` of them are one outer step.

    Args:
        system: stays as it is. Constraints, barostats and virtual sites work, Drude particles do not.
        topology: of the System.
        model: a network, or a name or path for `load_model`; trained on the non-bonded forces
            (`label --forces nonbonded`) if the System has bonded ones.
        inner_steps: evaluations of the network per outer step; with 1 it cancels. None: 3, or 4 where the bonds of
            hydrogens are the network's; 5 and 10 for isokinetic dynamics and Monte Carlo.
        time_step: the outer step, ps. None: 0.006, or 0.004 where the bonds of light hydrogens are the network's;
            0.01 for isokinetic dynamics and Monte Carlo.
        bonded_substeps: steps of the bonded forces per inner step; of no effect where there are none.
        temperature: K. None: constant energy, without friction.
        friction: 1/ps, of the thermostat. None: 1 for Langevin dynamics, 10 for the others.
        hydrogen_mass: dalton; makes bonded hydrogens heavier at the cost of the atoms they are bonded to: at most 3
            where there are methyl groups, 4 in water.
        backend: see `gamd_force`.
        device: see `gamd_force`.
        expensive: the forces of `system` that the network stands for: Forces, their names, or force groups; None: all
            but the bonded ones.
        atoms: indices of those that the network sees and moves; None: all that have an element.
        thermostat: "langevin" (BAOAB), "isokinetic" or "monte-carlo", see above.
        hydrogen_friction: 1/ps, of hydrogens in Langevin dynamics; a high one, such as 20, damps the resonances of
            their vibrations and bears longer outer steps. None: that of the other atoms.
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
    kind = _known(thermostat)
    if kind is Thermostat.ISOKINETIC:
        _refuse_constraints(copied)
    at_rest = kind is Thermostat.LANGEVIN
    levels = _with_center_of_mass_at_rest(copied, levels) if at_rest else _with_center_of_mass_free(copied, levels)
    safe_step_ps, safe_inner_steps = accelerated_steps(copied, topology, untimed=kind in UNTIMED)
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
    time_levels = TimeLevels(
        time_step_ps=safe_step_ps if time_step is None else float(picoseconds(time_step)),
        inner_steps=safe_inner_steps if inner_steps is None else inner_steps,
        bonded_substeps=bonded_substeps,
        bonded_groups=tuple(by_level[Level.BONDED]),
        network_group=network_group,
        negated_group=negated_group,
        inner_groups=tuple(by_level[Level.INNER]),
    )
    if friction is None and temperature is not None:
        friction = UNTIMED_FRICTION_PER_PS if kind in UNTIMED else ACCELERATED_FRICTION_PER_PS
    bath = Bath(
        temperature=None if temperature is None else float(kelvin(temperature)),
        friction_per_ps=None if friction is None else float(per_picosecond(friction)),
        friction_of_atoms=_of_hydrogens(topology, hydrogen_friction),
    )
    integrator = _integrator(copied, time_levels, bath, kind)
    own = frozenset(range(NUM_GROUPS)) - {network_group, negated_group}
    inner, bonded = (frozenset(by_level[level]) for level in (Level.INNER, Level.BONDED))
    by_name = {
        "network": frozenset({network_group}),
        "inner": inner,
        "bonded": bonded,
        "expensive": own - inner - bonded,
    }
    seen = [atom.index for atom in topology.atoms() if atom.element is not None] if atoms is None else atoms
    return Accelerated(copied, integrator, groups, own, by_name, tuple(int(atom) for atom in seen))


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
            f"{NOTHING_FASTER}: an evaluation takes {costs['network']:.3g} ms, one of the forces "
            f"that it stands for {costs['expensive']:.3g} ms, and of all others {costs['inner'] + costs['bonded']:.3g} "
            "ms; run without it, or say which forces are expensive",
            stacklevel=2,
        )


def _integrator(system: openmm.System, levels: TimeLevels, bath: Bath, kind: Thermostat) -> LevelledIntegrator:
    """The integrator of an accelerated System."""
    has_sites, constrained = bool(virtual_sites_of(system)), system.getNumConstraints() > 0
    if kind is Thermostat.ISOKINETIC:
        return IsokineticIntegrator(levels, bath, has_sites)
    if kind is Thermostat.MONTE_CARLO:
        refuse_virtual_sites(system, "proposals of several substeps")
        return HybridMonteCarloIntegrator(levels, bath, constrained)
    langevin = LeapfrogLangevinIntegrator if has_sites else MultipleTimeStepIntegrator
    return langevin(levels, bath, constrained, system.getNumParticles())


def _known(thermostat: Thermostat | str) -> Thermostat:
    known = (Thermostat.LANGEVIN, *UNTIMED)
    name = thermostat.value if isinstance(thermostat, Thermostat) else thermostat
    if name not in [one.value for one in known]:
        raise SpecError(f"thermostat is {name}: give {', '.join(one.value for one in known)}")
    return Thermostat(name)


def _of_hydrogens(topology: app.Topology, friction: Any | None) -> dict[int, float] | None:
    """The same friction for each hydrogen, 1/ps by index."""
    if friction is None:
        return None
    atoms = [atom.index for atom in topology.atoms() if atom.element is not None]
    hydrogens = [atom.index for atom in topology.atoms() if getattr(atom.element, "atomic_number", 0) == HYDROGEN]
    if not hydrogens:
        raise SpecError(f"hydrogen_friction is given, but none of the {len(atoms)} atoms is a hydrogen: leave it out")
    return dict.fromkeys(hydrogens, float(per_picosecond(friction)))


def _with_center_of_mass_at_rest(system: openmm.System, levels: list[Level]) -> list[Level]:
    """Add a CMMotionRemover where there is none: a network's net force need not be exactly zero."""
    if any(isinstance(force, openmm.CMMotionRemover) for force in system.getForces()):
        return levels
    system.addForce(openmm.CMMotionRemover())
    return [*levels, Level.NONE]


def _refuse_constraints(system: openmm.System) -> None:
    if count := system.getNumConstraints():
        raise SpecError(
            f"the System has {count} constraints, which isokinetic dynamics cannot keep: make it without "
            "(constraints=None, rigidWater=False), or take langevin"
        )


def _with_center_of_mass_free(system: openmm.System, levels: list[Level]) -> list[Level]:
    """Take out CMMotionRemovers: they would change velocities that are drawn or bounded."""
    kept = list(levels)
    for index in reversed(range(system.getNumForces())):
        if isinstance(system.getForce(index), openmm.CMMotionRemover):
            system.removeForce(index)
            del kept[index]
    return kept


def _check_system(system: openmm.System) -> None:
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
