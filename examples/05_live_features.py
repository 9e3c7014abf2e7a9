"""Live features: every residue of a running peptide becomes an embedding, stored while the simulation goes on.

You learn: a Featurizer turns positions into tokens; an EmbeddingReporter is a reporter like any other, with a worker
thread of its own; the store is read while it grows; after a restart from a checkpoint the frames past it are cut, so
nothing is stored twice; and tokens turn with the molecule, their scalars not at all.

Takes 15 seconds on 2 CPU cores; with --short 10. Run: python examples/05_live_features.py
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import openmm
from openmm import app

from openmm_gnn import EmbeddingReporter, EmbeddingStore, Featurizer, load_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="10 frames in place of 100")
    frames = 10 if parser.parse_args().short else 100

    chignolin = load_system("chignolin")
    integrator = openmm.LangevinMiddleIntegrator(chignolin.temperature, 1.0, chignolin.time_step_ps)
    platform = openmm.Platform.getPlatformByName("CPU")
    simulation = app.Simulation(chignolin.topology, chignolin.system, integrator, platform)
    simulation.context.setPositions(chignolin.start(1))
    simulation.context.setVelocitiesToTemperature(chignolin.temperature, 1)

    featurizer = Featurizer("peptide-et", chignolin.topology)
    print(
        f"{featurizer.num_atoms} heavy atoms of {featurizer.num_tokens} residues: {', '.join(featurizer.tokens.labels)}"
    )
    with tempfile.TemporaryDirectory() as folder:
        path, checkpoint = Path(folder) / "features", Path(folder) / "checkpoint"
        with EmbeddingReporter(path, 25, featurizer) as reporter:
            simulation.reporters.append(reporter)
            simulation.step(25 * frames // 2)
            simulation.saveCheckpoint(str(checkpoint))
            simulation.step(25 * 3)  # these frames are lost in the crash that we pretend
            reporter.flush()
            print(
                f"while it runs: {len(EmbeddingStore.open(path))} frames, the last of step {reporter.store.steps[-1]}"
            )
        simulation.reporters.clear()

        simulation.loadCheckpoint(str(checkpoint))
        with EmbeddingReporter(path, 25, featurizer, append=True) as reporter:
            simulation.reporters.append(reporter)
            simulation.step(25 * (frames - frames // 2))
        store = EmbeddingStore.open(path)
        steps = np.asarray(store.steps)
        print(f"after the restart: steps {steps[0]} to {steps[-1]}, {len(steps) - len(set(steps))} of them twice")

    positions = np.array(simulation.context.getState(positions=True).getPositions(asNumpy=True)._value)
    turn = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
    tokens, turned = featurizer.features(positions), featurizer.features(positions @ turn.T)
    tokens[:, 1:] = np.einsum("xy,tyh->txh", turn, tokens[:, 1:])
    print(f"features of the turned molecule differ by {np.abs(turned - tokens).max() / np.abs(tokens).max():.1e}")


if __name__ == "__main__":
    main()
