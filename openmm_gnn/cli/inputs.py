"""What several commands ask of a system beside its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openmm_gnn.md.simulation_system import SimulationSystem
    from openmm_gnn.md.systems.structure_files import ForceFieldSettings


@dataclass(frozen=True)
class SystemFiles:
    """What a system needs beside its name or file."""

    topology: Path | None = None
    """PDB or PDBx/mmCIF file with the atoms of a System given as .xml."""
    molecules: int | None = None
    """Number of molecules of a named system; its density stays. Default: the number it is known with."""

    def load(self, system: str, force_field: ForceFieldSettings | None = None) -> SimulationSystem:
        from openmm_gnn.md.systems.systems import load_system

        return load_system(system, self.topology, self.molecules, force_field)
