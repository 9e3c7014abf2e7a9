"""The peptides that have a name, built from their sequences, in implicit solvent."""

from __future__ import annotations

import numpy as np

from openmm_gnn.md.implicit_solvent import in_implicit_solvent, with_hydrogens
from openmm_gnn.md.simulation_system import SimulationSystem, Thermostat
from openmm_gnn.md.systems.force_field_files import relaxed
from openmm_gnn.md.systems.peptides import Peptide, build_peptide

NAMED_PEPTIDES = {
    "alanine-dipeptide": Peptide("A"),
    "chignolin": Peptide("YYDPETGTWY", acetylated=False, methylated=False),
    "pentapeptide": Peptide("WLALL", acetylated=False, methylated=False),
}
"""Chignolin is the variant CLN025; unfolded, as its torsions are drawn at random."""
_SEED = 1


def named_peptide(name: str) -> SimulationSystem:
    """A peptide of `NAMED_PEPTIDES`: amber14, OBC2, hydrogens of 3 Da and steps of 4 fs, 300 K.

    The same start each time, without clashes; the random torsions are forgotten in nanoseconds, not in the
    equilibration.
    """
    generator = np.random.default_rng(_SEED)
    topology, positions = with_hydrogens(*build_peptide(NAMED_PEPTIDES[name], generator), generator)
    system = in_implicit_solvent(topology)
    return SimulationSystem(
        name=name,
        system=system,
        topology=topology,
        positions=positions,
        time_step_ps=0.004,
        thermostat=Thermostat.LANGEVIN,
        friction_per_ps=1.0,
        equilibration_ps=10.0,
        prepare=relaxed(system, positions),
    )
