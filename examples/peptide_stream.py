"""What examples 06 and 07 learn from: alanine dipeptide, its embeddings streamed while it runs, and psi to compare."""

from __future__ import annotations

from pathlib import Path

import mdtraj
import numpy as np
import openmm
from openmm import app

from openmm_gnn import EmbeddingReporter, EmbeddingStore, Featurizer, load_system

STEPS_PER_FRAME = 100


def streamed_run(folder: Path, frames: int) -> tuple[EmbeddingStore, np.ndarray]:
    """The store of a simulation with a frame every 0.4 ps, and whether psi was extended in each, (frames,) bool."""
    peptide = load_system("alanine-dipeptide")
    integrator = openmm.LangevinMiddleIntegrator(peptide.temperature, 1.0, peptide.time_step_ps)
    integrator.setRandomNumberSeed(1)
    platform = openmm.Platform.getPlatformByName("Reference")  # of 22 atoms the fastest
    simulation = app.Simulation(peptide.topology, peptide.system, integrator, platform)
    simulation.context.setPositions(peptide.start(1))
    simulation.context.setVelocitiesToTemperature(peptide.temperature, 1)
    simulation.reporters.append(app.DCDReporter(str(folder / "run.dcd"), STEPS_PER_FRAME))
    with EmbeddingReporter(folder / "features", STEPS_PER_FRAME, Featurizer("peptide-et", peptide.topology)) as stream:
        simulation.reporters.append(stream)
        simulation.step(STEPS_PER_FRAME * frames)
    movie = mdtraj.load(str(folder / "run.dcd"), top=mdtraj.Topology.from_openmm(peptide.topology))
    psi = np.degrees(mdtraj.compute_psi(movie)[1][:, 0])
    return EmbeddingStore.open(folder / "features"), (psi > 60) | (psi < -120)
