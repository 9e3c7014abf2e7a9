"""Write the forces of a network or a learned CV as a file for other programs, Python or not.

It is checked first: frozen equals eager, and moving atoms by box vectors changes nothing. A program loads the operators
(libopenmm_gnn_cpu.so of this package, by dlopen or torch.ops.load_library), then the file, and calls it with positions
(nm, one row for each particle of the System) and box vectors; it gets the energy (kJ/mol) and the forces (kJ/mol/nm).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from openmm_gnn.base.specs.force import ExportFormat
from openmm_gnn.cli.options import Command, Result


@dataclass(frozen=True, kw_only=True)
class Export(Command):
    model: tyro.conf.Positional[str]
    """Name of a shipped network or learned CV, or a file of one (.safetensors)."""
    system: tyro.conf.Positional[str]
    """Name of a system (argon), or a serialised System (.xml)."""
    out: Path
    """File to write (.pt, or .pt2 of the formats pt2 and aoti)."""
    format: ExportFormat = ExportFormat.PT
    """pt: TorchScript, for torch.jit.load in Python and C++. pt2: a program of torch.export, for torch.export.load; it
    needs no TorchScript, which Python 3.14 has not. aoti: that program compiled, for torch._inductor.aoti_load_package;
    it needs g++ and some minutes here, and runs on this kind of processor and with this PyTorch alone. metatomic: a
    model for ASE, i-PI, PLUMED and LAMMPS, with a folder `extensions` beside it; all outputs of a CV are its features;
    it needs `pip install metatomic-torch`. nnpot: TorchScript for GROMACS, which opens the operators where they are
    here."""
    topology: Path | None = None
    """PDB or PDBx/mmCIF file with the atoms of a serialised System."""
    output: int = 0
    """Which output of a learned CV is the energy, counted from 0."""

    def run(self) -> Result:
        from openmm_gnn.forces.modules.exports import export_for, load_exportable
        from openmm_gnn.md.systems.systems import load_system
        from openmm_gnn.networks.force_model import ForceModel

        target = load_system(self.system, self.topology)
        network = load_exportable(self.model)
        path = export_for(target, network, self.out, self.output, self.format)
        num_atoms, size = target.topology.getNumAtoms(), path.stat().st_size
        simulated = self.format is ExportFormat.PT and isinstance(network, ForceModel)
        command = f"`openmm-gnn simulate {self.system} --model {path} --out run`, or " if simulated else ""
        loaders = {
            ExportFormat.PT: "torch.jit.load",
            ExportFormat.PT2: "torch.export.load",
            ExportFormat.AOTI: "torch._inductor.aoti_load_package",
            ExportFormat.METATOMIC: f"metatomic.torch.load_atomistic_model, with {path.parent / 'extensions'},",
            ExportFormat.NNPOT: f"nnpot-modelfile = {path} and GMX_NN_DEVICE=cpu for GROMACS,",
        }
        after = f"{command}{loaders[self.format]} in other programs"
        return Result(f"wrote {path}: {size} bytes for {num_atoms} atoms", next=after, file=path, num_atoms=num_atoms)
