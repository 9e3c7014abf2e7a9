"""Encoders of geom2vec's shapes on one thread: compiled with tables and fading neighbours, beside plain PyTorch.

python benchmarks/encoders.py [--quick]

Weights are random, which changes no time. A protein of 291 heavy atoms (villin headpiece, from OpenMM's own files) one
frame at a time, and 64 frames at once of 10 atoms. "plain" is the modules' PyTorch form with every neighbour within the
cutoff, as the published code does it, whose own figures are "public"; "full" the compiled form with the same
neighbours; "ours" what `load_encoder` gives. Times are of the processor, so that other work on the machine does not
count.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from functools import partial
from pathlib import Path

import numpy as np
import openmm.app
import torch
from harness import interleaved_medians, save_results
from rich.console import Console
from rich.table import Table

from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec, NeighborRule
from openmm_gnn.base.units import ANGSTROM_PER_NM
from openmm_gnn.networks.encoders.encoder import Encoder

SPECS = {
    "ET": EncoderSpec(Architecture.TORCHMD_ET, 6, 7.5, noise_scale=0.2),
    "ViSNet": EncoderSpec(Architecture.VISNET, 6, 7.5, noise_scale=0.2),
    "TensorNet": EncoderSpec(Architecture.TENSORNET, 3, 5.0, num_radial=32, noise_scale=0.2),
}
PUBLISHED = {"ET": (2.5, 478.0), "ViSNet": (1.7, 255.0), "TensorNet": (8.0, 434.0)}
"""Frames per second of the published code, one thread of another machine: the protein, and 64 frames of 10 atoms."""


def protein() -> tuple[torch.Tensor, torch.Tensor]:
    """Atomic numbers and positions, angstrom, of the heavy atoms of villin headpiece."""
    pdb = openmm.app.PDBFile(str(Path(openmm.app.__file__).parent / "data" / "test.pdb"))
    heavy = [
        atom
        for residue in pdb.topology.residues()
        if residue.name not in ("HOH", "CL", "NA")
        for atom in residue.atoms()
        if atom.element.atomic_number > 1
    ]
    positions = np.array([pdb.getPositions(asNumpy=True)._value[atom.index] for atom in heavy]) * ANGSTROM_PER_NM
    return torch.tensor([atom.element.atomic_number for atom in heavy]), torch.from_numpy(positions).float()


def encoders_of(spec: EncoderSpec) -> dict[str, Encoder]:
    """The contenders, with the same weights."""
    made = {}
    for name, rule in (("plain", NeighborRule.FULL), ("full", NeighborRule.FULL), ("ours", NeighborRule.FADING)):
        torch.manual_seed(0)
        encoder = Encoder(dataclasses.replace(spec, neighbor_rule=rule)).requires_grad_(False)
        made[name] = encoder.train(name == "plain")  # there are no tables in training mode, and no dropout
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    numbers, positions = protein()
    small = positions[:10] + 0.1 * torch.randn(64, 10, 3)
    systems = {
        f"{len(numbers)} atoms": ((numbers, positions), 1),
        "64 x 10": (
            (numbers[:10].repeat(64), small.reshape(-1, 3), torch.arange(64).repeat_interleave(10)),
            64,
        ),
    }
    table = Table(title="frames per second, one thread")
    for heading in ("encoder", "system", "plain", "full", "ours", "x plain", "public", "x public"):
        table.add_column(heading, justify="right", no_wrap=True)
    rows = []
    for name, spec in SPECS.items():
        encoders = encoders_of(spec)
        for which, (system, (given, frames)) in enumerate(systems.items()):
            calls = {label: partial(encoder, *given) for label, encoder in encoders.items()}
            with torch.no_grad():
                seconds = interleaved_medians(calls, 1.0 if quick else 12.0, clock=time.process_time)
            rate = {label: frames / value for label, value in seconds.items()}
            published = PUBLISHED[name][which]
            rows.append({"encoder": name, "system": system, **rate, "published": published})
            table.add_row(
                name,
                system,
                *(f"{rate[label]:.{0 if frames > 1 else 1}f}" for label in ("plain", "full", "ours")),
                f"{rate['ours'] / rate['plain']:.1f}",
                f"{published:g}",
                f"{rate['ours'] / published:.1f}",
            )
    Console().print(table)
    save_results("encoders", rows, quick)


if __name__ == "__main__":
    main()
