"""Live features of our own runs: RUN/features, an embedding store that stands and falls with the run's checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import openmm
from openmm import app

from openmm_gnn.md.run_settings import RunCourse
from openmm_gnn.reporters.embedding_stream import EmbeddingStream
from openmm_gnn.runs.settings import FeatureSettings

if TYPE_CHECKING:
    from openmm_gnn.features.featurizer import Featurizer

FOLDER = "features"


def make_featurizer(settings: FeatureSettings, topology: app.Topology) -> Featurizer:
    """The featurizer of these settings; to be made before anything of the run is written.

    Raises:
        FileNotFoundError: if there is no such encoder.
        SpecError: if nothing is selected.
        TopologyError: if atoms are of elements that the encoder does not know, or windows have no bonds to go by.
    """
    from openmm_gnn.features.featurizer import Featurizer

    return Featurizer(settings.encoder, topology, settings.selection, context=settings.context, window=settings.window)


class RunFeatures:
    """The features of a run on their way into its directory; a `Listener` of the run."""

    def __init__(
        self, settings: FeatureSettings, featurizer: Featurizer, run: Path, periodic: bool, course: RunCourse
    ) -> None:
        """
        Raises:
            DataError: if RUN/features holds features of another encoder or selection.
        """
        interval = settings.stride or course.report_interval
        self.intervals = (interval,)
        self._periodic, self._time_step_ps = periodic, course.time_step_ps
        self._stream = EmbeddingStream(run / FOLDER, featurizer, append=True, dtype=settings.dtype)
        self._stream.store.describe_system(
            {
                "num_particles": featurizer.num_particles,
                "report_interval": interval,
                "time_step_ps": course.time_step_ps,
                "openmm": openmm.__version__,
            }
        )

    def resume(self, step: int) -> None:
        """Drop frames past this step of the production."""
        self._stream.go_on_after(step)

    def take(self, step: int, state: openmm.State) -> None:
        """Take a frame; its step and time count from the start of production, as the log does."""
        box = np.asarray(state.getPeriodicBoxVectors(asNumpy=True)._value) if self._periodic else None
        self._stream.submit(step, step * self._time_step_ps, state.getPositions(asNumpy=True)._value, box)

    def sync(self) -> None:
        """Wait until all that was taken is on the disk."""
        self._stream.flush(durable=True)

    def close(self) -> None:
        """Store what waits, and close the store."""
        self._stream.close()
