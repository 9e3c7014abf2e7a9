"""Features made inside a force call: a Force of zero energy and zero forces that sees the positions where they are.

The force calls Python, see `forces.python_call`; on a GPU nothing but the features comes to the host.

**Which positions.** `FeatureForce.features(context)` evaluates this force alone, in its own force group, at the
Context's positions: the features are exactly theirs. With `every`, features are made while the integrator steps, from
the positions at which it evaluates its forces: those before the atoms are moved. After step n, `latest` is of the
positions after step n - 1 (Verlet, Langevin; integrators that evaluate forces several times per step: of the last
time). Use it where that is wanted, and `features` where it is not.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from openmm_gnn.base.errors import BackendError, SpecError
from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.forces.backends import Backend, chosen_backend, make_force
from openmm_gnn.forces.python_call import PythonCall


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
    periodic: bool,
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
        periodic: whether the System is periodic.
        backend: "torchforce", "pythonforce", or "auto": the first of these that works.
        group: the force group, of its own.
        every: number of force calls between features that `latest` keeps, one step behind; 0: only when asked.
    Raises:
        SpecError: for a group or number of calls that cannot be.
        BackendError: if the backend is unknown or does not work here.
    """
    if every < 0:
        raise SpecError(f"every is {every}: give 0 for only when asked, or more")
    return FeatureForce(featurizer, chosen_backend(backend), periodic, group, every)
