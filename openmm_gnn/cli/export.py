"""Write the forces of a network or a learned CV as a file for other programs, Python or not.

It is checked first: frozen equals eager, and moving atoms by box vectors changes nothing. A program loads the operators
(libopenmm_gnn_cpu.so of this package, by dlopen or torch.ops.load_library), then the file, and calls it with positions
(nm, one row for each particle of the System) and box vectors; it gets the energy (kJ/mol) and the forces (kJ/mol/nm).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from openmm_gnn.cli.options import Command


@dataclass(frozen=True, kw_only=True)
class Export(Command):
    model: tyro.conf.Positional[str]
    """Name of a shipped network or learned CV, or a file of one (.safetensors)."""
    system: tyro.conf.Positional[str]
    """Name of a system (argon), or a serialised System (.xml)."""
    out: Path
    """TorchScript file to write (.pt)."""
    topology: Path | None = None
    """PDB or PDBx/mmCIF file with the atoms of a serialised System."""
    output: int = 0
    """Which output of a learned CV is the energy, counted from 0."""

    def run(self) -> None:
        from openmm_gnn.forces.modules.exports import export_for, load_exportable
        from openmm_gnn.md.systems.systems import load_system
        from openmm_gnn.networks.force_model import ForceModel

        target = load_system(self.system, self.topology)
        network = load_exportable(self.model)
        path = export_for(target, network, self.out, self.output)
        print(f"wrote {path}: {path.stat().st_size} bytes for {target.topology.getNumAtoms()} atoms")
        simulate = f"`openmm-gnn simulate {self.system} --model {path} --out run`, or "
        print(f"Next: {simulate if isinstance(network, ForceModel) else ''}torch.jit.load in other programs")
