"""A reporter of features that a `FeatureForce` makes, where the positions are: none come to the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openmm

from openmm_gnn.base.errors import NonFiniteError
from openmm_gnn.forces.feature_force import FeatureForce
from openmm_gnn.reporters.embedding_reporter import EmbeddingReporter


class FeatureForceReporter(EmbeddingReporter):
    """An `EmbeddingReporter` whose features are made in a force call, on the Context's device.

    ```python
    featurizer = Featurizer("visnet_l6_h64_rbf64_r75.pth", topology, device="cuda")
    seeing = feature_force(featurizer, periodic=True)
    system.addForce(seeing.force)
    seeing.leave_out_of(integrator)
    simulation = Simulation(topology, system, integrator, platform)
    simulation.reporters.append(FeatureForceReporter("features", 500, seeing))
    ```

    The simulation waits for the features, which are exactly those of the reported step. Stores, restarts and errors
    are those of the `EmbeddingReporter`.
    """

    def __init__(
        self, file: str | Path, reportInterval: int, force: FeatureForce, append: bool = False, dtype: str = "float16"
    ) -> None:
        """Arguments and errors as for `EmbeddingReporter`; the force must be in the simulation's System."""
        super().__init__(file, reportInterval, force.featurizer, append, dtype, worker=None)
        self._force = force
        self._context: openmm.Context | None = None

    def describeNextReport(self, simulation: Any) -> dict[str, Any]:
        """What OpenMM asks before it steps: the steps to the next report; it needs nothing else."""
        self._context = simulation.context
        return {**super().describeNextReport(simulation), "include": []}

    def _take(self, step: int, state: openmm.State) -> None:
        try:
            seen = self._force.features(self._context)
        except NonFiniteError as error:
            raise NonFiniteError(f"features of step {step}: {error}") from error
        box = state.getPeriodicBoxVectors(asNumpy=True)._value if self._periodic else None
        self.store.append(step, state.getTime()._value, box, seen.features, seen.coordinates)
