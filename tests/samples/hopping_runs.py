"""Runs of a small peptide that hops between two shapes, as `openmm-gnn simulate --features` leaves them.

The hops are a Markov chain, so the truth is known: with the probability HOP per frame to change, -interval /
ln(1 - 2 HOP) is the timescale, interval / HOP the mean first-passage time, and half the frames are in each shape.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from openmm import Vec3, app, unit

from openmm_gnn.features.featurizer import Featurizer
from openmm_gnn.md.dcd_frames import DCDWriter
from openmm_gnn.md.run_settings import RunCourse
from openmm_gnn.md.simulation_system import Thermostat
from openmm_gnn.md.systems.peptides import Peptide, build_peptide
from openmm_gnn.reporters.embedding_store import EmbeddingStore
from openmm_gnn.runs.directory import RunDirectory

HOP = 0.05
STRIDE, STEP_PS, TEMPERATURE = 10, 0.1, 310.0
INTERVAL_PS = STRIDE * STEP_PS
NOISE_NM = 0.004


class HoppingRuns:
    """Writes runs with one encoder and one pair of shapes."""

    def __init__(self, neighbor_rule: str | None = None) -> None:
        topology, first = build_peptide(Peptide("A"), np.random.default_rng(1))
        _, second = build_peptide(Peptide("A"), np.random.default_rng(5))
        self.topology = topology
        self._shapes = np.stack([first - first.mean(axis=0), second - second.mean(axis=0)])
        self.featurizer = Featurizer("peptide-et", topology, neighbor_rule=neighbor_rule)

    def write(self, path: Path, num_frames: int, seed: int, hop: float = HOP, first: int = 0) -> np.ndarray:
        """A run; returns the shape of each frame, 0 or 1."""
        generator = np.random.default_rng(seed)
        shapes = ((generator.random(num_frames) < hop).cumsum() + first) % 2
        turns = np.linalg.qr(generator.normal(size=(num_frames, 3, 3)))[0]
        turns *= np.linalg.det(turns)[:, None, None]  # no mirror images
        noise = NOISE_NM * generator.normal(size=(num_frames, *self._shapes.shape[1:]))
        positions = np.einsum("faj,fij->fai", self._shapes[shapes] + noise, turns)
        run = RunDirectory(path)
        path.mkdir(parents=True)
        settings = RunCourse(
            steps=num_frames * STRIDE,
            equilibration_steps=STRIDE,
            report_interval=STRIDE,
            time_step_ps=STEP_PS,
            temperature=TEMPERATURE,
            thermostat=Thermostat.NOSE_HOOVER,
            friction_per_ps=25.0,
            checkpoint_interval=STRIDE,
            seed=1,
        )
        system = {"name": "hopper", "hash": "h", "num_atoms": positions.shape[1]}
        run.write_identity({"system": system, "settings": settings.to_dict()})
        with open(run.topology, "w") as file:
            places = [Vec3(*place) for place in positions[0]] * unit.nanometer
            app.PDBFile.writeFile(self.topology, places, file, keepIds=True)
        writer = DCDWriter(run.trajectory, positions.shape[1], False, STEP_PS, STRIDE)
        for frame in positions:
            writer.write(frame, None)
        writer.close()
        features, places = self.featurizer.features(positions), self.featurizer.coordinates(positions)
        description, size = self.featurizer.describe(), (self.featurizer.num_tokens, self.featurizer.width)
        with EmbeddingStore.create(path / "features", description, *size, dtype="float32") as store:
            for frame in range(num_frames):
                step = (frame + 1) * STRIDE
                store.append(step, step * STEP_PS, None, features[frame], places[frame])
        return shapes


def spoiled(run: Path, frame: int) -> None:
    """Put a NaN into a frame of the stored features, with a checksum that is right, as a faulty writer would."""
    from openmm_gnn.base.growing_array import checksums

    file = run / "features" / "frames.npy"
    records = np.load(file, mmap_mode="r+")
    records["embedding"][frame, 0, 0, 0] = np.nan
    records["crc"][frame] = checksums(records[frame : frame + 1])[0]
    records.flush()
