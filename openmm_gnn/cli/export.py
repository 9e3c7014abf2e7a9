"""Write a TorchScript module, checked: frozen equals eager, and moving atoms by box vectors changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from openmm_gnn.cli.options import Command


@dataclass(frozen=True, kw_only=True)
class Export(Command):
    model: tyro.conf.Positional[str]
    """Name of a shipped network, or a bundle (.safetensors)."""
    system: tyro.conf.Positional[str]
    """Name of a system (argon), or a serialised System (.xml)."""
    out: Path
    """TorchScript file to write (.pt)."""
    topology: Path | None = None
    """PDB or PDBx/mmCIF file with the atoms of a serialised System."""

    def run(self) -> None:
        from openmm_gnn.forces.modules.openmm_module import export_for
        from openmm_gnn.md.systems.systems import load_system
        from openmm_gnn.networks.weights import load_model

        target = load_system(self.system, self.topology)
        path = export_for(target, load_model(self.model), self.out)
        print(f"wrote {path}: {path.stat().st_size} bytes for {target.topology.getNumAtoms()} atoms")
        print(
            f"Next: `openmm-gnn simulate {self.system} --model {path} --out run`, or torch.jit.load in other programs"
        )
