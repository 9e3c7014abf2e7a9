"""How much of the noise encoders leave on structures they were not trained on, all by the neighbour rule fading.

    python benchmarks/denoising.py --encoder biomolecule-et --encoder et_l6_h64_rbf64_r75.pth ... 4pti.pdb 1ubq.pdb ...

Noise of 0.2 angstrom on the heavy atoms of the solute. 1 means that nothing was learned: the mean square of what is
left, by that of the noise. The villin headpiece of OpenMM's own files comes first; other structures are PDB entries
that the command is given. Beside it frames per second of villin, 16 frames at a time on one thread.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import openmm.app
import torch
from harness import interleaved_medians, save_results
from rich.console import Console
from rich.table import Table

from openmm_gnn import load_encoder
from openmm_gnn.learning.pretraining.denoising_meter import denoising_error, solute
from openmm_gnn.networks.encoders.encoder import Encoder

VILLIN = Path(openmm.app.__file__).parent / "data" / "test.pdb"
NOISE = 0.2
"""Angstrom."""
FRAMES = 16


def errors_on(encoder: Encoder, structure: Path, draws: int) -> tuple[float, float]:
    """Mean over draws of the noise, and its standard error."""
    molecule = solute(structure, encoder.spec)
    found = torch.tensor([denoising_error(encoder, [molecule], NOISE, seed) for seed in range(draws)])
    return float(found.mean()), float(found.std() / draws**0.5)


def frames_of(encoder: Encoder) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Atomic numbers, positions and batch of some frames of villin."""
    numbers, positions = solute(VILLIN, encoder.spec)
    return numbers.repeat(FRAMES), positions.repeat(FRAMES, 1), torch.arange(FRAMES).repeat_interleave(len(numbers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("structures", nargs="*", type=Path, help="PDB or PDBx/mmCIF files")
    parser.add_argument("--encoder", action="append", required=True, help="name or file; may be given several times")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="nothing is kept")
    given = parser.parse_args()
    torch.set_num_threads(1)
    structures = {"villin": VILLIN} | {path.stem: path for path in given.structures}
    encoders = {Path(name).stem: load_encoder(name, "fading") for name in given.encoder}
    table = Table(title=f"share of the noise that is left, {given.draws} draws")
    for column in ("encoder", "weights", *structures, "frames/s"):
        table.add_column(column, justify="left" if column == "encoder" else "right")
    calls = {name: partial(encoder, *frames_of(encoder)) for name, encoder in encoders.items()}
    with torch.no_grad():
        times = interleaved_medians(calls, seconds=2.0 if given.quick else 20.0)
    rows = []
    for name, encoder in encoders.items():
        errors = {key: errors_on(encoder, path, given.draws) for key, path in structures.items()}
        weights, speed = sum(weight.numel() for weight in encoder.parameters()), FRAMES / times[name]
        rows.append({"encoder": name, "weights": weights, "errors": errors, "frames_per_second": speed})
        cells = [f"{error:.3f} ± {spread:.3f}" for error, spread in errors.values()]
        table.add_row(name, f"{weights:,}", *cells, f"{speed:.0f}")
    Console().print(table)
    save_results("denoising", rows, given.quick)


if __name__ == "__main__":
    main()
