"""A Force that is evaluated by an object in Python, through one call-back for both backends.

What a backend calls is a TorchScript module, whose attributes Python cannot reach. So the module calls an operator,
`openmm_gnn_python::evaluate`, that is written in Python: it finds its object by number. TorchForce hands tensors on the
Context's device to it, so on a GPU no positions come to the host.

The force belongs to this process: a System that is read from XML elsewhere has no object to call, which is an error
there. CUDA graphs cannot call Python and must be off.

A `FeatureForce` makes features inside a force call: its energy and forces are zero, and it sees the positions where
they are. On a GPU nothing but the features comes to the host.

**Which positions.** `FeatureForce.features(context)` evaluates this force alone, in its own force group, at the
Context's positions: the features are exactly theirs. With `every`, features are made while the integrator steps, from
the positions at which it evaluates its forces: those before the atoms are moved. After step n, `latest` is of the
positions after step n - 1 (Verlet, Langevin; integrators that evaluate forces several times per step: of the last
time). Use it where that is wanted, and `features` where it is not.
"""

# No `from __future__ import annotations` here: TorchScript and torch.library read the types of functions.
import itertools
import threading
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import BackendError, SpecError
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.forces.backends import Backend, chosen_backend, make_force
from openmm_gnn.forces.modules.openmm_module import check_num_positions
from openmm_gnn.md.simulation_system import is_periodic_system

_numbers = itertools.count()
_calls: "weakref.WeakValueDictionary[int, PythonCall]" = weakref.WeakValueDictionary()


class PythonCall:
    """An object behind a Force, which is made of its `module`. A subclass says in `evaluate` what it computes."""

    force: Any
    """The openmm.Force."""

    def __init__(self, read_atoms: np.ndarray, num_particles: int, group: int) -> None:
        """
        Args:
            read_atoms: indices of the atoms whose positions are wanted, and which may get forces.
            num_particles: number of particles of the System.
            group: the force group, of its own.
        Raises:
            SpecError: for a group that cannot be.
        """
        if not 0 <= group <= 31:
            raise SpecError(f"the force group is {group}: give one from 0 to 31 that no other force has")
        self.group = group
        self.read_atoms, self.num_particles = read_atoms, num_particles
        self._error: Exception | None = None
        number = next(_numbers)
        _calls[number] = self
        module = _CallModule(number, type(self).__name__, read_atoms, num_particles)
        self.module: torch.jit.ScriptModule = torch.jit.script(module.eval())

    def evaluate(self, read: Tensor, box_vectors: Tensor | None) -> tuple[float, Tensor]:
        """Energy, kJ/mol, and forces on `read_atoms`, kJ/mol/nm.

        Args:
            read: (num_read, 3) nm, positions of `read_atoms`, on any device.
            box_vectors: (3, 3) nm; None: open boundaries.
        """
        raise NotImplementedError

    def called(self, read: Tensor, box_vectors: Tensor | None) -> tuple[float, Tensor]:
        """`evaluate`, whose error is kept for `check`: thrown through OpenMM it would lose its type."""
        try:
            return self.evaluate(read, box_vectors)
        except Exception as error:
            self._error = self._error or error
            return 0.0, torch.zeros_like(read)

    def check(self) -> None:
        """Raise the first error that a force call met since the last check, if one did."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def add_to(self, system: openmm.System) -> None:
        """Add the force to a System.

        Raises:
            SpecError: if the System has another number of particles than the topology.
        """
        if system.getNumParticles() != self.num_particles:
            raise SpecError(
                f"the {type(self).__name__} is made for {self.num_particles} particles, the System has "
                f"{system.getNumParticles()}: make it from a topology that has every particle of the System, dummies "
                "too (named DUM, without an element)"
            )
        system.addForce(self.force)


def _evaluate(read: Tensor, box_vectors: Tensor, number: int, name: str) -> tuple[Tensor, Tensor]:
    """Energy and forces of an object; box vectors (3, 3), or (0, 3) for none."""
    found = _calls.get(number)
    if found is None:
        raise BackendError(
            f"there is no {name} number {number} in this process: keep the object that made the Force, and make it "
            "anew after reading a System from XML"
        )
    energy, forces = found.called(read, box_vectors if box_vectors.size(0) == 3 else None)
    return read.new_full((), energy), forces


_library = torch.library.Library("openmm_gnn_python", "DEF")  # torch.library.custom_op would load the compiler
_library.define("evaluate(Tensor positions, Tensor box_vectors, int number, str name) -> (Tensor, Tensor)")
_library.impl("evaluate", _evaluate, "CompositeImplicitAutograd")  # others run below autograd, where none is recorded


class _CallModule(nn.Module):
    """What a backend calls."""

    atoms: Tensor

    def __init__(self, number: int, name: str, atoms: np.ndarray, num_particles: int) -> None:
        super().__init__()
        self.spec_json = "{}"
        self.number, self.name = number, name
        self.num_particles = num_particles
        self.register_buffer("atoms", torch.from_numpy(np.array(atoms)))

    def forward(self, positions: Tensor, box_vectors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy and forces."""
        check_num_positions(positions, self.num_particles)
        box = torch.empty((0, 3), dtype=positions.dtype) if box_vectors is None else box_vectors
        with torch.no_grad():
            read = positions.index_select(0, self.atoms)
            energy, forces = torch.ops.openmm_gnn_python.evaluate(read, box, self.number, self.name)
            return energy, torch.zeros_like(positions).index_copy_(0, self.atoms, forces)


@dataclass(frozen=True)
class SeenFeatures:
    """Features made in a force call."""

    evaluation: int
    """How many times the force had been evaluated, this time included."""
    features: np.ndarray
    """(num_tokens, 4, width), as `Featurizer.features`."""
    coordinates: np.ndarray
    """(num_tokens, 3) nm, as `Featurizer.coordinates`, of the same positions."""


class FeatureForce(PythonCall):
    """A featurizer as a Force. Make one with `feature_force`, and `add_to` a System."""

    def __init__(self, featurizer: Featurizer, backend: Backend, periodic: bool, group: int, every: int) -> None:
        """Use `feature_force`."""
        super().__init__(featurizer.read_atoms, featurizer.num_particles, group)
        self.featurizer = featurizer
        self.every = every
        self.latest: SeenFeatures | None = None
        """Features of the last wanted force call, see the time offset above; None before the first."""
        self.evaluations = 0
        """How many times the force was evaluated."""
        self._wanted = False
        self._lock = threading.Lock()
        self.force = make_force(self.module, "FeatureForce", periodic, backend, group=group)

    def features(self, context: Any) -> SeenFeatures:
        """Features of the positions that a Context has now.

        Args:
            context: of a System that has this force.
        Raises:
            NonFiniteError: for a position or a feature that is not finite, naming the atom or token.
            BackendError: if the Context's System has not this force.
        """
        with self._lock:
            before, self._wanted = self.evaluations, True
            try:
                context.getState(energy=True, groups={self.group})
            finally:
                self._wanted = False
            self.check()
            if self.evaluations == before or self.latest is None:
                raise BackendError(
                    "the Context did not evaluate the FeatureForce: `add_to` the System before it is made"
                )
            return self.latest

    def leave_out_of(self, integrator: Any) -> None:
        """Keep an integrator from evaluating this force, which then costs nothing until `features` asks for it."""
        groups = integrator.getIntegrationForceGroups() & 0xFFFFFFFF
        integrator.setIntegrationForceGroups(groups & ~(1 << self.group))

    def evaluate(self, read: Tensor, box_vectors: Tensor | None) -> tuple[float, Tensor]:
        """Energy and forces of zero, as `PythonCall.evaluate`; makes features if they are wanted."""
        self.evaluations += 1
        if self._wanted or (self.every > 0 and self.evaluations % self.every == 0):
            features = self.featurizer.features(read, box_vectors, of_read_atoms=True)
            coordinates = self.featurizer.coordinates(read, box_vectors, of_read_atoms=True)
            self.latest = SeenFeatures(self.evaluations, features, coordinates)
        return 0.0, torch.zeros_like(read)


def feature_force(
    featurizer: Featurizer,
    periodic: bool | openmm.System,
    backend: Backend | str = Backend.AUTO,
    group: int = 31,
    every: int = 0,
) -> FeatureForce:
    """A featurizer as a Force of zero energy and zero forces.

    ```python
    seeing = feature_force(featurizer, periodic=True)
    seeing.add_to(system)
    seeing.leave_out_of(integrator)
    simulation = Simulation(topology, system, integrator)
    simulation.step(1000)
    seen = seeing.features(simulation.context)  # of the positions now; .features (tokens, 4, width)
    ```

    Args:
        featurizer: made for the System's topology; `device` should be the Context's.
        periodic: whether the System is periodic: True, False, or the System itself.
        backend: "torchforce", "pythonforce", or "auto": the first of these that works.
        group: the force group, of its own.
        every: number of force calls between features that `latest` keeps, one step behind; 0: only when asked.
    Raises:
        SpecError: for a group or number of calls that cannot be.
        BackendError: if the backend is unknown or does not work here.
    """
    if every < 0:
        raise SpecError(f"every is {every}: give 0 for only when asked, or more")
    uses_box = is_periodic_system(periodic) if isinstance(periodic, openmm.System) else periodic
    return FeatureForce(featurizer, chosen_backend(backend), uses_box, group, every)
