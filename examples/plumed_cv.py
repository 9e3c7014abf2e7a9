"""A learned CV in PLUMED: its file for the action METATOMIC, the lines of the input, and values beside our own.

You learn: `export --format metatomic` writes all outputs of a CV as one model, with the operators in a folder beside
it; PLUMED wants every atom of the System, listed by element; the model checks that they are those of the topology.

PLUMED is not needed here: what its action METATOMIC does is done by metatomic. Takes 20 seconds on 2 CPU cores, needs
`pip install metatomic-torch`. Run: python examples/plumed_cv.py [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from metatomic.torch import ModelEvaluationOptions, ModelOutput, System, load_atomistic_model

from openmm_gnn import load_learned_cv, load_system
from openmm_gnn.base.specs.force import ExportFormat
from openmm_gnn.forces.modules.cv_module import CVModule
from openmm_gnn.forces.modules.exports import export_for

INPUT = """cv: METATOMIC ...
    MODEL={folder}/cv.pt
    EXTENSIONS_DIRECTORY={folder}/extensions
{species}
    SPECIES_TO_TYPES={types}
...
first: SELECT_COMPONENTS ARG=cv COMPONENTS=1
METAD ARG=first SIGMA=0.05 HEIGHT=1.0 BIASFACTOR=8 PACE=500 TEMP=300
PRINT ARG=cv FILE=COLVAR STRIDE=100
"""


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    peptide, cv = load_system("alanine-dipeptide"), load_learned_cv("alanine-dipeptide")
    path = export_for(peptide, cv, folder / "cv.pt", file_format=ExportFormat.METATOMIC)
    numbers = [atom.element.atomic_number for atom in peptide.topology.atoms()]
    elements = sorted(set(numbers))
    atoms = {one: ",".join(str(k) for k, number in enumerate(numbers, 1) if number == one) for one in elements}
    species = "\n".join(f"    SPECIES{k}={atoms[one]}" for k, one in enumerate(elements, 1))
    lines = INPUT.format(folder=folder, species=species, types=",".join(map(str, elements)))
    (folder / "plumed.dat").write_text(lines)
    print(lines)

    model = load_atomistic_model(str(path), str(folder / "extensions"))
    positions = torch.from_numpy(peptide.positions).requires_grad_()
    no_cell, no_box = torch.zeros((3, 3), dtype=torch.float64), torch.zeros(3, dtype=torch.bool)
    system = System(torch.tensor(numbers, dtype=torch.int32), positions, no_cell, no_box)
    options = ModelEvaluationOptions("nm", {"feature": ModelOutput(sample_kind="system")})
    values = model([system], options, check_consistency=True)["feature"].block().values[0]
    gradient = torch.autograd.grad(values[0], positions)[0]
    ours = CVModule(cv, peptide.topology)(positions.detach())
    print(f"values {values.tolist()}, gradient up to {gradient.abs().max():.2f} per nm")
    print(f"largest difference from our own values: {(values - ours).abs().max():.1e}; it should be below 1e-5")


if __name__ == "__main__":
    main()
