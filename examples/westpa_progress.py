"""Weighted ensemble with WESTPA: a learned CV is the progress coordinate, and OpenMM propagates the segments.

You learn: a propagator of WESTPA is a class that runs segments and gives their progress coordinate; a CVModule gives
the values of a learned CV at positions; weights sum to 1 whatever is split and merged.

Takes 20 seconds on 2 CPU cores, needs `pip install westpa`. Run: python examples/westpa_progress.py
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import openmm
import torch
import westpa
from openmm import app
from westpa.cli.core.w_init import initialize
from westpa.cli.core.w_run import run_simulation
from westpa.core.propagators import WESTPropagator

from openmm_gnn import load_learned_cv, load_system
from openmm_gnn.forces.modules.cv_module import CVModule

ITERATIONS, FRAMES, STEPS = 5, 4, 50
SETTINGS = """
west:
  system:
    system_options:
      pcoord_ndim: 1
      pcoord_len: {points}
      pcoord_dtype: float32
      bins: {{type: RectilinearBinMapper, boundaries: [[{boundaries}]]}}
      bin_target_counts: 3
  propagation: {{max_total_iterations: {iterations}, propagator: westpa_progress.Peptide, gen_istates: false}}
  data: {{west_data_file: west.h5}}
"""


class Peptide(WESTPropagator):
    """Segments of alanine dipeptide, whose ends lie in the folder of the run."""

    def __init__(self, rc: object = None) -> None:
        super().__init__(rc)
        self.peptide = load_system("alanine-dipeptide")
        self.cv = CVModule(load_learned_cv("alanine-dipeptide"), self.peptide.topology).eval()
        integrator = openmm.LangevinMiddleIntegrator(self.peptide.temperature, 1.0, self.peptide.time_step_ps)
        platform = openmm.Platform.getPlatformByName("Reference")
        self.simulation = app.Simulation(self.peptide.topology, self.peptide.system, integrator, platform)

    def progress(self, positions: np.ndarray) -> float:
        """The slowest variable."""
        return float(self.cv(torch.from_numpy(positions))[0])

    def get_pcoord(self, state: object) -> None:
        """That of the start."""
        state.pcoord = [self.progress(self.peptide.positions)]

    def propagate(self, segments: list) -> list:
        """Run each segment from the end of its parent, or from the start with new velocities."""
        context = self.simulation.context
        for segment in segments:
            is_first = segment.parent_id < 0
            parent = f"{segment.n_iter - 1}-{segment.parent_id}.npy"
            state = np.stack([self.peptide.positions, np.zeros((22, 3))]) if is_first else np.load(parent)
            context.setPositions(state[0])
            context.setVelocities(state[1])
            if is_first:
                context.setVelocitiesToTemperature(self.peptide.temperature, segment.seg_id + 1)
            segment.pcoord[0] = self.progress(state[0])
            for frame in range(1, FRAMES + 1):
                self.simulation.step(STEPS)
                found = context.getState(positions=True, velocities=True)
                state = np.stack([found.getPositions(asNumpy=True)._value, found.getVelocities(asNumpy=True)._value])
                segment.pcoord[frame] = self.progress(state[0])
            np.save(f"{segment.n_iter}-{segment.seg_id}.npy", state)
            segment.status = segment.SEG_STATUS_COMPLETE
        return segments


def main() -> None:
    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(__file__).parent))
    ranges = load_learned_cv("alanine-dipeptide").ranges
    inner = [f"{value:.3f}" for value in np.linspace(ranges.minimum[0], ranges.maximum[0], 61)]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        boundaries = ", ".join(["-.inf", *inner, ".inf"])
        settings = SETTINGS.format(points=FRAMES + 1, boundaries=boundaries, iterations=ITERATIONS)
        Path("west.cfg").write_text(settings)
        westpa.rc.read_config("west.cfg")
        initialize(None, None, ["start,1"], None, segs_per_state=3)
        run_simulation()
        with h5py.File("west.h5", "r") as file:
            for number in range(1, ITERATIONS + 1):
                one = file[f"iterations/iter_{number:08d}"]
                weights, progress = one["seg_index"]["weight"], one["pcoord"][:, :, 0]
                print(f"iteration {number}: {len(weights)} segments, {progress.min():.2f} to {progress.max():.2f}")
            print(f"the weights of the last iteration sum to {weights.sum():.6f}; it should be 1")
        os.chdir("/")


if __name__ == "__main__":
    main()
