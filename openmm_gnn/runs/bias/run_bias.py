"""The bias of our own runs: RUN/bias, hills or kernels that stand and fall with the run's checkpoint."""

from __future__ import annotations

import copy
import hashlib
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openmm

from openmm_gnn.base.errors import SpecError
from openmm_gnn.base.files import write_json
from openmm_gnn.base.growing_array import GrowingArray
from openmm_gnn.features.learned_cv import LEARNED_CVS, load_learned_cv
from openmm_gnn.features.topologies import as_mdtraj, topology_hash
from openmm_gnn.forces.cv_force import BiasForce
from openmm_gnn.md.integrators import ImpulseLangevinIntegrator
from openmm_gnn.md.run_settings import RunCourse, text_hash
from openmm_gnn.md.simulation_system import SimulationSystem, Thermostat, stable_xml
from openmm_gnn.networks.weights import path_of
from openmm_gnn.runs.bias.least_widths import SAMPLES_PER_STRIDE, LeastWidths
from openmm_gnn.runs.bias.records import (
    FOLDER,
    META,
    RECORDS,
    VERSION,
    read_bias_meta,
    read_bias_records,
    record_fields,
)
from openmm_gnn.runs.bias.walkers import Walker, WalkerGroup, walker_name
from openmm_gnn.runs.forces import RunForces
from openmm_gnn.runs.settings import BiasSettings

_OWN_GROUP = 0
"""Force group of all other forces, where the bias comes in impulses."""


class RunBias:
    """The bias of a run: its force, its state and its file; a `Listener` of the run."""

    def __init__(
        self,
        cv_path: str | os.PathLike[str],
        settings: BiasSettings,
        system: SimulationSystem,
        run_settings: RunCourse,
        backend: str = "auto",
    ) -> None:
        """Nothing is written yet, but for the settings of a first walker.

        Raises:
            FileNotFoundError: if there is no such CV.
            TopologyError: if the CV was learned for another topology.
            SpecError: if settings, run and CV do not go together, or other walkers have other settings.
        """
        self.settings = settings
        self._time_step_ps = run_settings.time_step_ps
        self._check(run_settings)
        cv = load_learned_cv(cv_path)
        self._outputs = settings.chosen_outputs(cv)
        for output in sorted(set(range(cv.num_outputs)) - set(self._outputs)) if settings.outputs is None else ():
            assert cv.slowness is not None
            warnings.warn(f"{cv.slowness.words_of(output)}: the bias leaves it out", stacklevel=2)
        self.walls, self._widths = settings.walls_for(cv), settings.widths_for(cv)
        self.bias = settings.potential(self.walls, self._widths, run_settings.temperature)
        self._temperature = run_settings.temperature
        path = path_of(LEARNED_CVS, cv_path)
        self._cv = {"name": path.name, "hash": hashlib.sha256(path.read_bytes()).hexdigest()}
        used = {force.getForceGroup() for force in system.system.getForces()}
        self._group = max(set(range(1, 32)) - used)
        self.force = BiasForce(
            cv,
            system.topology,
            self,
            self._outputs,
            backend,
            system.periodic,
            self._group,
            settings.allow_jumps,
        )
        self.force.warm_up(system.positions, system.box_vectors)
        masses = [system.system.getParticleMass(atom)._value for atom in range(system.system.getNumParticles())]
        self._inverse_masses = np.array([1 / mass if mass > 0 else 0.0 for mass in masses])
        first = self.force.steepness(system.positions, system.box_vectors, self._inverse_masses)
        step_ps = run_settings.time_step_ps * settings.interval
        self._least = LeastWidths(self.bias.depth, step_ps, settings.stiffness, first)
        self._given_walls = self.walls
        self._soften()
        self._group_of_walkers: WalkerGroup | None = None
        if settings.walkers is not None:
            self._group_of_walkers = WalkerGroup(Path(settings.walkers), self._in_common(system))
        self._walker: Walker | None = None
        self._writer: GrowingArray | None = None
        self._offset = self.bias.offset()

    def _check(self, run: RunCourse) -> None:
        if run.accelerated or run.bonded_substeps > 1:
            raise SpecError(
                f"a bias with {run.inner_steps} inner steps and {run.bonded_substeps} bonded substeps: it does not go "
                "with either; leave --accelerate away and give --bonded-substeps 1"
            )
        if self.settings.interval > 1 and run.thermostat is not Thermostat.LANGEVIN:
            raise SpecError(
                f"a bias every {self.settings.interval} steps with the thermostat {run.thermostat.value}: impulses "
                "need langevin; give --bias-interval 1, or --thermostat langevin"
            )

    def value_and_gradient(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """The energy of bias and walls together, kJ/mol, and its (D,) derivatives: what the force applies."""
        energy, gradient = self.bias.value_and_gradient(values)
        wall, push = self.walls.value_and_gradient(values)
        return energy + wall, gradient + push

    def identity(self) -> dict[str, Any]:
        """What decides the course of the bias, for run.json."""
        identity = {"cv": self._cv, **self.settings.to_record(), "outputs": list(self._outputs)}
        group = self._group_of_walkers
        return identity if group is None else {**identity, "walkers": group.group}

    def added_to(self, forces: RunForces, run: RunCourse) -> RunForces:
        """The forces of a run with this one among them; energies and forces that are logged leave it out."""
        system, integrator = copy.deepcopy(forces.system), forces.integrator
        groups = {force.getForceGroup() for force in system.getForces()}
        if self.settings.interval > 1:
            for force in system.getForces():
                force.setForceGroup(_OWN_GROUP)
            groups = {_OWN_GROUP}
            integrator = ImpulseLangevinIntegrator(
                run.temperature, run.friction_per_ps, run.time_step_ps, self.settings.interval, self._group, _OWN_GROUP
            )
            integrator.setRandomNumberSeed(run.seed)
        self.force.add_to(system)
        return replace(forces, system=system, integrator=integrator, groups=frozenset(groups), check=self.force.check)

    def follow(self, context: openmm.Context, run: Path, frames: tuple[int, ...]) -> None:
        """Name what a run gives its bias before it begins.

        Args:
            run: directory of the run.
            frames: steps between frames of any kind, each of which gets a record.
        """
        stride = self.settings.stride
        self._context, self._run = context, run
        self.intervals = (stride, max(1, stride // SAMPLES_PER_STRIDE), *frames)

    def resume(self, step: int) -> None:
        """Drop records past this step of the production, and make the bias as it was then.

        Raises:
            DataError: if the file is damaged, or another process writes to it.
        """
        folder = self._run / FOLDER
        folder.mkdir(exist_ok=True)
        name = ""
        if self._group_of_walkers is not None:
            stored = read_bias_meta(self._run) if (folder / META).exists() else {}
            name = stored.get("walker") or walker_name(self._run)
        write_json(folder / META, {**self._meta(), **({"walker": name} if name else {})}, indent=1)
        self._writer = GrowingArray.open(folder / RECORDS, record_fields(len(self._outputs)))
        records = read_bias_records(self._run) if len(self._writer) else self._writer.empty_records(0)
        keep = int(np.searchsorted(records["step"], step, side="right"))
        self._writer.truncate(keep)
        hills = records[:keep][np.isfinite(records["height"][:keep])]
        if self._group_of_walkers is not None:
            self._walker = Walker(self._group_of_walkers, name, folder, len(self._outputs))
            hills = self._walker.until(step)
        added = 0
        for record in records[:keep]:
            self._observe(record["steepness"])
            until = int(np.searchsorted(hills["step"], record["step"], side="right"))
            self._repeat(hills[added:until])
            added = until
        self._offset = self.bias.offset()

    def take(self, step: int, state: openmm.State) -> None:
        """Take a record of a step; at a multiple of the stride, let the bias grow.

        The walls of a record are those before it.

        Raises:
            NonFiniteError: if a CV is not finite.
        """
        assert self._writer is not None
        seen = self.force.values(self._context)
        record = self._writer.empty_records(1)
        record["step"], record["time"], record["values"] = step, step * self._time_step_ps, seen.values
        record["wall"] = self.walls.value_and_gradient(seen.values)[0]
        record["bias"] = self.bias.value_and_gradient(seen.values)[0]
        record["height"], record["widths"], record["offset"] = np.nan, np.nan, self._offset
        box = state.getPeriodicBoxVectors(asNumpy=True)._value if self.force.periodic else None
        positions = state.getPositions(asNumpy=True)._value
        record["steepness"] = self.force.steepness(positions, box, self._inverse_masses)
        changed = self._observe(record["steepness"][0])
        record["least"] = self._least.widths
        if step % self.settings.stride == 0:
            record["height"], record["widths"] = self._deposit(step, seen.values)
            changed = True
        if changed:
            self._offset = self.bias.offset()
            self.force.changed(self._context)
        self._writer.append(record)

    def _deposit(self, step: int, values: np.ndarray) -> tuple[float, np.ndarray]:
        """Add a hill or kernel, and those of other walkers; returns the height and the widths of the own one."""
        walker = self._walker
        if walker is None:
            return self.bias.deposit(values)
        own = walker.own_again(step)
        if own is None:
            height, widths = self.bias.deposit(values)
            walker.publish(step, values, height, widths)
        else:
            height, widths = float(own["height"]), own["widths"]
            self.bias.repeat(own["values"], height, widths)
        self._repeat(walker.others_at(step))
        return height, widths

    def _repeat(self, hills: np.ndarray) -> None:
        """Add hills or kernels that were deposited before, or elsewhere."""
        for hill in hills:
            self.bias.repeat(hill["values"], float(hill["height"]), hill["widths"])

    def _observe(self, steepness: np.ndarray) -> bool:
        """Take in a sample of the steepness; whether walls became softer and kernels wider by it."""
        steeper = self._least.observe(steepness)
        if steeper:
            self._soften()
        return steeper

    def _soften(self) -> None:
        """Make walls as soft, and kernels or hills as wide, as the steepest place asks."""
        self.walls = self._given_walls.reaching(self._least.reach)
        self.bias.widen(self._least.widths)

    def suspect(self) -> str:
        """What the bias did last, and what helps where it has torn the molecule apart."""
        seen, last = self.force.latest, ""
        if seen is not None:
            values = np.array2string(seen.values, precision=4)
            last = f"; at {values} it pushed an atom with {seen.largest_force:.3g} kJ/mol/nm at last"
        return (
            f". Or the bias along {self._cv['name']} was too steep{last}: wider kernels (--bias-width), a lower "
            "barrier (--bias-barrier) or --bias-stiffness, a shorter time step (--time-step), or a CV of more data help"
        )

    def sync(self) -> None:
        """Wait until all records are on the disk."""
        for file in (self._writer, self._walker):
            if file is not None:
                file.sync()

    def close(self) -> None:
        """Give up the files."""
        for file in (self._writer, self._walker):
            if file is not None:
                file.close()

    def _in_common(self, system: SimulationSystem) -> dict[str, Any]:
        """What all walkers of one bias have in common, in the types of JSON."""
        meta = {name: value for name, value in self._meta().items() if name not in ("version", "units")}
        physics = [stable_xml(force) for force in system.system.getForces() if _decides(force)]
        masses = [system.system.getParticleMass(atom)._value for atom in range(system.system.getNumParticles())]
        topology = topology_hash(as_mdtraj(system.topology))
        meta["cv"] = self._cv["hash"]
        return {**meta, "topology": topology, "forces": text_hash("".join([repr(masses), *physics]))}

    def _meta(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "settings": self.settings.to_record(),
            "cv": self._cv,
            "outputs": list(self._outputs),
            "widths": self._widths.tolist(),
            "walls": {name: getattr(self._given_walls, name).tolist() for name in ("lower", "upper", "reach")},
            "temperature": self._temperature,
            "units": {"time": "ps", "bias": "kJ/mol", "wall": "kJ/mol", "offset": "kJ/mol"},
        }


def _decides(force: openmm.Force) -> bool:
    """Whether a force is part of the physics that walkers share; those with random numbers differ by their seeds."""
    return not any(word in type(force).__name__ for word in ("Barostat", "Thermostat"))
