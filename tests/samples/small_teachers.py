"""A teacher that answers in a millisecond: alanine dipeptide in vacuum under its own force field."""

from __future__ import annotations

from pathlib import Path

import openmm
from openmm import app

from openmm_gnn.analysis.distillation.distill import distill
from openmm_gnn.analysis.distillation.settings import DistillSettings, StudentSettings
from openmm_gnn.md.run_settings import ComputeSettings
from openmm_gnn.md.simulation_system import SimulationSystem
from openmm_gnn.md.systems.systems import load_system

TINY = DistillSettings(
    teacher_calls=152, scan_calls=0, first_calls=40, labels=20, rounds=2, num_steps=8, last_steps=8, sample_ps=0.2
)
SMALL = StudentSettings(width=16, num_layers=1)
HERE = ComputeSettings(platform="CPU", threads=1)


def peptide_in_vacuum(rigid: bool = False) -> SimulationSystem:
    """Flexible and stepped by 1 fs, or with fixed bonds of hydrogens; its start is that of the named peptide."""
    named = load_system("alanine-dipeptide")
    constraints = app.HBonds if rigid else None
    system = app.ForceField("amber14-all.xml").createSystem(named.topology, constraints=constraints)
    return SimulationSystem("peptide", system, named.topology, named.start(1), time_step_ps=0.001)


def distill_tiny(out: Path) -> None:
    """A distillation of few labels and steps, without a scan."""
    distill(peptide_in_vacuum(), out, TINY, SMALL, HERE)


def context_of(system: openmm.System) -> openmm.Context:
    """In double precision."""
    return openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
