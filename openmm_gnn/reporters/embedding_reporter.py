"""An OpenMM reporter that stores the features of a running simulation."""

from __future__ import annotations

import os
import warnings
import weakref
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm

from openmm_gnn.base.errors import DataError, NonFiniteError, SpecError
from openmm_gnn.md.simulation_system import is_periodic_system
from openmm_gnn.reporters.embedding_store import SAME_PLACE_NM, SET_ASIDE, EmbeddingStore
from openmm_gnn.reporters.embedding_stream import EmbeddingStream
from openmm_gnn.reporters.feature_workers import TokenFeaturizer

if TYPE_CHECKING:
    from openmm_gnn.forces.python_call import FeatureForce


_SAME_TIME_PS = 1e-6
"""Times are sums of time steps, which round."""


class EmbeddingReporter:
    """Writes the embedding of every residue into an `EmbeddingStore` while the simulation runs.

    ```python
    featurizer = Featurizer("visnet_l6_h64_rbf64_r75.pth", simulation.topology)
    with EmbeddingReporter("features", 500, featurizer) as reporter:
        simulation.reporters.append(reporter)
        simulation.step(1_000_000)
    ```

    After a restart (`simulation.loadCheckpoint` and `append=True`) the first report cuts what lies past the restored
    step, so the store is that of a run that was never stopped. A simulation that is not at a point of the stored run
    is refused. The features are those of the positions that OpenMM reports: no gradient, no offset in time.
    """

    def __init__(
        self,
        file: str | Path,
        reportInterval: int,
        featurizer: TokenFeaturizer,
        append: bool = False,
        dtype: str = "float16",
        worker: str | None = "thread",
        maxPending: int = 16,
        enforcePeriodicBox: bool | None = None,
        workerThreads: int = 1,
        replace: bool = False,
    ) -> None:
        """
        Args:
            file: directory of the store. Replicas of one run: one directory each, RUN/replica-0 and so on.
            reportInterval: steps between two frames.
            featurizer: a featurizer made from the simulation's topology.
            append: go on with the store that is there, and make it where there is none.
            dtype: type of the stored numbers: "float16" (rounded by 0.05 %, up to 65504) or "float32".
            worker: who makes the features while the simulation goes on: "thread"; "process"; None: nobody, it waits.
            maxPending: frames that may wait for the worker; then the simulation waits for it.
            enforcePeriodicBox: whether molecules are put into one periodic box, which moves the stored coordinates but
                not the features; None: they stay where they have diffused to.
            workerThreads: threads of torch in the worker.
            replace: drop the stored frames past the step at which the simulation stands, whatever run they are of.
        Raises:
            DataError: if the store has frames and `append` is False, or other features than these.
            SpecError: for an argument that means nothing.
        """
        name, order = type(self).__name__, "(file, reportInterval, featurizer)"
        if not isinstance(file, (str, os.PathLike)) or not isinstance(reportInterval, (int, np.integer)):
            raise SpecError(
                f"{name} was given file={file!r}, reportInterval={reportInterval!r}: its arguments are {order}"
            )
        if reportInterval < 1:
            raise SpecError(f"reportInterval is {reportInterval}: give 1 step or more")
        if not callable(getattr(featurizer, "describe", None)):
            raise SpecError(
                f"{name} was given featurizer={featurizer!r}: make one, such as "
                f"Featurizer({featurizer if isinstance(featurizer, str) else 'biomolecule-et-small'!r}, "
                "simulation.topology)"
            )
        self._interval = int(reportInterval)
        self._wrapped = bool(enforcePeriodicBox)
        self._replace = replace
        self._featurizer = featurizer
        self._num_particles = featurizer.num_particles
        self._stream = EmbeddingStream(file, featurizer, append, dtype, worker, maxPending, workerThreads)
        self._finalizer = weakref.finalize(self, self._stream.close)
        self._at: int | None = None
        """The step at which the simulation was last seen."""
        self._periodic = False

    def __repr__(self) -> str:
        state = "closed" if self._stream.closed else "open"
        return f"{type(self).__name__}({state}, every {self._interval} steps, {self.store!r})"

    @property
    def store(self) -> EmbeddingStore:
        """What is stored so far."""
        return self._stream.store

    @property
    def waited(self) -> float:
        """Seconds that the simulation has waited for the worker."""
        return self._stream.waited

    def describeNextReport(self, simulation: Any) -> dict[str, Any]:
        """What OpenMM asks before it steps: the steps to the next report, and what it needs.

        Raises:
            SpecError: if the reporter was closed, as at the end of its `with`.
        """
        if self._stream.closed:
            raise SpecError(
                f"the reporter of {self.store.path} is closed: step inside its `with`, or take it out of "
                "simulation.reporters and add another with append=True"
            )
        step = simulation.currentStep
        if self._at is None or step < self._at:
            self._settle(simulation, step)
        self._at = step
        return {
            "steps": self._interval - step % self._interval,
            "periodic": self._wrapped,
            "include": ["positions"],
        }

    def report(self, simulation: Any, state: openmm.State) -> None:
        """Take the frame.

        Raises:
            NonFiniteError: a token's features or positions are NaN, in this frame or one that the worker had.
            OpenMMGNNError: whatever else stopped the worker or the disk; what was written before stays readable.
        """
        self._at = simulation.currentStep
        self._take(self._at, state)

    def flush(self) -> None:
        """Wait until all that was reported is stored."""
        self._stream.flush()

    def close(self) -> None:
        """Store what the worker still has, and close the store. The end of the interpreter does it too."""
        self._finalizer.detach()
        self._stream.close()

    def __enter__(self) -> EmbeddingReporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _settle(self, simulation: Any, step: int) -> None:
        """Bring the store to the step at which the simulation stands."""
        system, context = simulation.system, simulation.context
        if system.getNumParticles() != self._num_particles:
            raise SpecError(
                f"the featurizer is made for {self._num_particles} particles, the simulation has "
                f"{system.getNumParticles()}: make it from simulation.topology, with an atom for each particle, "
                "dummies too (named DUM, without an element)"
            )
        self._periodic = is_periodic_system(system)
        copied = ""
        if not self._replace:
            copied = self._check_same_run(step, context.getState(positions=True, enforcePeriodicBox=self._wrapped))
        if dropped := self._stream.go_on_after(step):
            what = f"{dropped} frame{'s' * (dropped > 1)} past step {step} dropped{copied}"
            warnings.warn(f"{self.store.path}: {what}, the simulation goes on from there", stacklevel=4)
        self.store.describe_system(
            {
                "num_particles": self._num_particles,
                "report_interval": self._interval,
                "time_step_ps": context.getIntegrator().getStepSize()._value,
                "platform": context.getPlatform().getName(),
                "openmm": openmm.__version__,
            }
        )
        last = self._stream.last_step
        if last is None or last >= step:
            return
        due = step - step % self._interval
        if due == step:
            # A checkpoint is written at its step before or after our report, as OpenMM orders them: the frame of the
            # restored step may be missing, and is made from the restored positions.
            self._take(step, context.getState(positions=True, enforcePeriodicBox=self._wrapped))
            due -= self._interval
        if due > last:
            warnings.warn(
                f"{self.store.path} ends at step {last}, the simulation goes on from step {step}: "
                "the frames between them are missing",
                stacklevel=4,
            )

    def _check_same_run(self, step: int, state: openmm.State) -> str:
        """Whether the simulation is at a point of the stored run, so that what lies past it will be made again.

        Where no frame is of this very step, that cannot be known: the frames past it are then copied to SET_ASIDE, and
        the returned words say so.

        Raises:
            DataError: if it is not.
        """
        self._stream.flush()
        store, time_ps = self.store, state.getTime()._value
        kept = store.num_frames_until(step)
        before, past = store.records[:kept], store.records[kept:]
        if not len(past):
            return ""
        why = None
        if time_ps + _SAME_TIME_PS >= past["time"][0] or (kept and time_ps + _SAME_TIME_PS < before["time"][-1]):
            why = f"at {time_ps:g} ps, where step {past['step'][0]} is stored at {past['time'][0]:g} ps"
        elif not kept:
            why = "before all stored frames"
        elif before["step"][-1] < step:
            store.set_aside_after(step)
            return f", copied to {SET_ASIDE}"
        elif (moved := self._moved(state, before[-1])) > SAME_PLACE_NM:
            why = f"where a token is {moved:.3f} nm from its place in the stored frame of that step"
        if why:
            raise DataError(
                f"{store.path} ends at step {past['step'][-1]}, and the simulation is at step {step}, {why}. It is not "
                f"the stored run, loaded from a checkpoint: report into another directory, or drop the {len(past)} "
                f"frames past step {step} with replace=True"
            )
        return ""

    def _moved(self, state: openmm.State, record: np.void) -> float:
        """The largest distance, nm, of a token from its place in a stored frame, but for a lattice translation."""
        positions, box = state.getPositions(asNumpy=True)._value, self._box_of(state)
        moved = self._featurizer.coordinates(positions, box) - record["coordinates"]
        if box is not None:
            moved -= np.round(moved[0] @ np.linalg.inv(box)) @ box
        return float(np.linalg.norm(moved, axis=1).max())

    def _box_of(self, state: openmm.State) -> np.ndarray | None:
        return np.asarray(state.getPeriodicBoxVectors(asNumpy=True)._value) if self._periodic else None

    def _take(self, step: int, state: openmm.State) -> None:
        positions = state.getPositions(asNumpy=True)._value
        self._stream.submit(step, state.getTime()._value, positions, self._box_of(state))


class FeatureForceReporter(EmbeddingReporter):
    """An `EmbeddingReporter` whose features are made in a force call, on the Context's device.

    ```python
    featurizer = Featurizer("visnet_l6_h64_rbf64_r75.pth", topology, device="cuda")
    seeing = feature_force(featurizer, periodic=True)
    seeing.add_to(system)
    seeing.leave_out_of(integrator)
    simulation = Simulation(topology, system, integrator, platform)
    simulation.reporters.append(FeatureForceReporter("features", 500, seeing))
    ```

    The simulation waits for the features, which are exactly those of the reported step. Stores, restarts and errors
    are those of the `EmbeddingReporter`.
    """

    def __init__(
        self,
        file: str | Path,
        reportInterval: int,
        force: FeatureForce,
        append: bool = False,
        dtype: str = "float16",
        replace: bool = False,
    ) -> None:
        """Arguments and errors as for `EmbeddingReporter`; the force must be in the simulation's System."""
        if not hasattr(force, "featurizer"):
            raise SpecError(f"FeatureForceReporter was given force={force!r}: give feature_force(featurizer, periodic)")
        super().__init__(file, reportInterval, force.featurizer, append, dtype, worker=None, replace=replace)
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
        self.store.append(step, state.getTime()._value, self._box_of(state), seen.features, seen.coordinates)
