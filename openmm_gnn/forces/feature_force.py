"""Features made inside a force call: a Force of zero energy and zero forces that sees the positions where they are.

TorchForce hands tensors on the Context's device to the module, so on a GPU nothing but the features comes to the host.
A module's buffers cannot be read from Python; the way out is an operator, `openmm_gnn_features::see`, that the module
calls and that is written in Python: it finds its `FeatureForce` by number and gives it the positions.

**Which positions.** `FeatureForce.features(context)` evaluates this force alone, in its own force group, at the
Context's positions: the features are exactly theirs. With `every`, features are made while the integrator steps, from
the positions at which it evaluates its forces: those before the atoms are moved. After step n, `latest` is of the
positions after step n - 1 (Verlet, Langevin; integrators that evaluate forces several times per step: of the last
time). Use it where that is wanted, and `features` where it is not.

The force belongs to this process: a System that is read from XML elsewhere has no one to give features to, which is an
error there. TorchForce's CUDA graphs cannot call Python and must be off.
"""

# No `from __future__ import annotations` here: TorchScript and torch.library read the types of functions.
import itertools
import threading
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from openmm_gnn.base.errors import BackendError, SpecError
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.forces import python_force, torch_force
from openmm_gnn.forces.gamd_force import Backend, chosen_backend

_numbers = itertools.count()
_forces: "weakref.WeakValueDictionary[int, FeatureForce]" = weakref.WeakValueDictionary()


@dataclass(frozen=True)
class SeenFeatures:
    """Features that a force call made."""

    evaluation: int
    """How many times the force had been evaluated, this time included."""
    features: np.ndarray
    """(num_tokens, 4, width), as `Featurizer.features`."""
    coordinates: np.ndarray
    """(num_tokens, 3) nm, as `Featurizer.coordinates`, of the same positions."""


class FeatureForce:
    """A featurizer as a Force. Make one with `feature_force`, and add its `.force` to the System."""

    def __init__(self, featurizer: Featurizer, backend: Backend, periodic: bool, group: int, every: int) -> None:
        """Use `feature_force`."""
        self.featurizer = featurizer
        self.group = group
        self.every = every
        self.latest: SeenFeatures | None = None
        """What the last wanted force call saw, see the time offset above; None before the first."""
        self.evaluations = 0
        """How many times the force was evaluated."""
        self._wanted = False
        self._error: Exception | None = None
        self._lock = threading.Lock()
        number = next(_numbers)
        _forces[number] = self
        if backend is Backend.TORCHFORCE:
            module = torch.jit.script(_SeeingModule(number, featurizer.read_atoms, featurizer.num_particles).eval())
            self.force = torch_force.torch_force(module, periodic)
        else:
            self.force = python_force.callable_force(_SeeingComputation(number, periodic), periodic)
        self.force.setForceGroup(group)
        self.force.setName("FeatureForce")

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
                    "the Context did not evaluate the FeatureForce: add `.force` to the System before it is made"
                )
            return self.latest

    def check(self) -> None:
        """Raise the error that a force call met, if one did: OpenMM would lose its type."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def leave_out_of(self, integrator: Any) -> None:
        """Keep an integrator from evaluating this force, which then costs nothing until `features` asks for it."""
        groups = integrator.getIntegrationForceGroups() & 0xFFFFFFFF
        integrator.setIntegrationForceGroups(groups & ~(1 << self.group))

    def see(self, positions: Any, box_vectors: Any) -> None:
        """Called by the force: positions (num_read, 3) nm of `read_atoms`, on any device."""
        self.evaluations += 1
        if not self._wanted and (self.every == 0 or self.evaluations % self.every != 0):
            return
        try:
            features = self.featurizer.features(positions, box_vectors, of_read_atoms=True)
            coordinates = self.featurizer.coordinates(positions, box_vectors, of_read_atoms=True)
            self.latest = SeenFeatures(self.evaluations, features, coordinates)
        except Exception as error:  # thrown through OpenMM it would lose its type, or end the process
            self._error = error


def feature_force(
    featurizer: Featurizer,
    periodic: bool,
    backend: Backend | str = Backend.AUTO,
    group: int = 31,
    every: int = 0,
) -> FeatureForce:
    """A featurizer as a Force of zero energy and zero forces.

    ```python
    seeing = feature_force(featurizer, periodic=True)
    system.addForce(seeing.force)
    seeing.leave_out_of(integrator)
    simulation = Simulation(topology, system, integrator)
    simulation.step(1000)
    seen = seeing.features(simulation.context)  # of the positions now; .features (tokens, 4, width)
    ```

    Args:
        featurizer: made for the System's topology; `device` should be the Context's.
        periodic: whether the System is periodic.
        backend: "torchforce", "pythonforce", or "auto": the first of these that works.
        group: the force group, of its own.
        every: keep the features of every so many force calls in `latest`, one step behind; 0: only when asked.
    Raises:
        SpecError: for a group or number of calls that cannot be.
        BackendError: if the backend is unknown or does not work here.
    """
    if not 0 <= group <= 31:
        raise SpecError(f"the force group is {group}: give one from 0 to 31 that no other force has")
    if every < 0:
        raise SpecError(f"every is {every}: give 0 for only when asked, or more")
    return FeatureForce(featurizer, chosen_backend(backend), periodic, group, every)


def _find(number: int) -> FeatureForce:
    found = _forces.get(number)
    if found is None:
        raise BackendError(
            f"there is no FeatureForce number {number} in this process: keep the object that feature_force returned, "
            "and make it anew after reading a System from XML"
        )
    return found


def _see(positions: Tensor, box_vectors: Tensor, number: int) -> Tensor:
    """Hand (num_read, 3) positions and (3, 3) or (0, 3) box vectors, nm, to a FeatureForce; returns the energy, 0."""
    _find(number).see(positions, box_vectors if box_vectors.size(0) == 3 else None)
    return positions.new_zeros(())


_library = torch.library.Library("openmm_gnn_features", "DEF")  # torch.library.custom_op would load the compiler
_library.define("see(Tensor positions, Tensor box_vectors, int number) -> Tensor")
_library.impl("see", _see, "CompositeExplicitAutograd")


class _SeeingModule(nn.Module):
    """What TorchForce calls."""

    atoms: Tensor

    def __init__(self, number: int, atoms: np.ndarray, num_particles: int) -> None:
        super().__init__()
        self.number = number
        self.num_particles = num_particles
        self.register_buffer("atoms", torch.from_numpy(atoms.copy()))

    def forward(self, positions: Tensor, box_vectors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Energy and forces, which are zero."""
        if positions.size(0) != self.num_particles:
            raise ValueError(f"{positions.size(0)} positions came to a FeatureForce of {self.num_particles} particles")
        box = torch.empty((0, 3), dtype=positions.dtype) if box_vectors is None else box_vectors
        with torch.no_grad():
            energy = torch.ops.openmm_gnn_features.see(positions.index_select(0, self.atoms), box, self.number)
        return energy, torch.zeros_like(positions)


class _SeeingComputation:
    """What PythonForce calls."""

    def __init__(self, number: int, periodic: bool) -> None:
        self.number, self.periodic = number, periodic

    def __call__(self, state: Any) -> tuple[float, np.ndarray]:
        positions = state.getPositions(asNumpy=True)._value
        box = np.array(state.getPeriodicBoxVectors(asNumpy=True)._value) if self.periodic else None
        force = _find(self.number)
        force.see(positions[force.featurizer.read_atoms], box)
        return 0.0, np.zeros_like(positions)
