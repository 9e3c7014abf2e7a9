"""Which neighbours should an encoder see? The error of its denoising head by each neighbour rule.

python benchmarks/neighbor_rules.py ENCODER ...      geom2vec's checkpoints, bundles with a denoising head, names

By the rules fading and full messages vanish at the cutoff, by nearest and index they end there as published.
Noise of the strength of the training is added to the heavy atoms of a protein (villin headpiece, from OpenMM's own
files), and predicted. 1 means that nothing was learned: the mean square of what is left, by that of the noise.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from encoders import protein
from harness import save_results
from rich.console import Console
from rich.table import Table

from openmm_gnn import load_encoder
from openmm_gnn.base.specs.encoder import NeighborRule
from openmm_gnn.networks.encoders.encoder import known_elements


def denoising_error(checkpoint: str, rule: NeighborRule, draws: int) -> tuple[float, float]:
    """Mean over draws of the noise, the same for each rule, and its standard error."""
    encoder, (numbers, positions) = load_encoder(checkpoint, rule), protein()
    known = torch.isin(numbers, torch.tensor(known_elements(encoder.spec)))
    numbers, positions = numbers[known], positions[known]
    generator = torch.Generator().manual_seed(0)
    errors = []
    for _ in range(draws):
        noise = encoder.spec.noise_scale * torch.randn(positions.shape, generator=generator)
        left = encoder.predicted_noise(numbers, positions + noise) - noise
        errors.append(float(left.square().mean() / noise.square().mean()))
    found = torch.tensor(errors)
    return float(found.mean()), float(found.std() / draws**0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title=f"error of denoising, villin headpiece, {given.draws} draws")
    table.add_column("checkpoint")
    for rule in NeighborRule:
        table.add_column(rule.value, justify="right")
    rows = []
    for checkpoint in given.checkpoints:
        errors = {rule.value: denoising_error(checkpoint, rule, given.draws) for rule in NeighborRule}
        rows.append({"checkpoint": Path(checkpoint).name, **{rule: error for rule, (error, _) in errors.items()}})
        table.add_row(Path(checkpoint).name, *(f"{error:.3f} ± {spread:.3f}" for error, spread in errors.values()))
    Console().print(table)
    save_results("neighbor_rules", rows, given.quick)


if __name__ == "__main__":
    main()
