"""Encoders of geom2vec's shapes on a GPU: frames per second of a protein and of batches of small molecules.

Weights are random, which changes no time. Villin headpiece's size (291 atoms) in batches of 1, 16 and 64 frames, 512
windows of residues (40 atoms), and 64 or 1024 frames of 10 atoms; float32 in plain PyTorch and with compiled loops over
edges, and these with bfloat16 by autocast. Edges are found on the device, those of all frames by one search, and also
timed by themselves. Times by device events; memory of the compiled form in float32.

    python benchmarks/gpu/run.py encoders [--quick]
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch
from device import Rows, device_medians, require_gpu
from rich.console import Console
from rich.table import Table
from torch import Tensor

from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec
from openmm_gnn.networks.encoders.encoder import Encoder

SPECS = {
    "ET": EncoderSpec(Architecture.TORCHMD_ET, 6, 7.5, noise_scale=0.2),
    "ViSNet": EncoderSpec(Architecture.VISNET, 6, 7.5, noise_scale=0.2),
    "TensorNet": EncoderSpec(Architecture.TENSORNET, 3, 5.0, num_radial=32, noise_scale=0.2),
}
SHAPES = ((291, 1), (291, 16), (291, 64), (40, 512), (10, 64), (10, 1024))
ATOMS_PER_CUBIC_ANGSTROM = 0.05


def frames(num_atoms: int, num_frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Atomic numbers, positions (angstrom) and frame of each atom: jittered balls as dense as a protein."""
    generator = torch.Generator().manual_seed(0)
    side = int(num_atoms ** (1 / 3)) + 1
    grid = torch.cartesian_prod(*(torch.arange(side + 1.0) for _ in range(3)))
    nearest = (grid - grid.mean(0)).norm(dim=1).argsort()[:num_atoms]
    spacing = ATOMS_PER_CUBIC_ANGSTROM ** (-1 / 3)
    jitter = torch.randn((num_frames, num_atoms, 3), generator=generator)
    positions = (spacing * grid[nearest] + 0.3 * jitter).reshape(-1, 3)
    numbers = torch.tensor([6, 7, 8])[torch.randint(0, 3, (num_atoms,), generator=generator)].repeat(num_frames)
    batch = torch.arange(num_frames).repeat_interleave(num_atoms)
    return numbers.cuda(), positions.cuda(), batch.cuda()


def row(name: str, num_atoms: int, num_frames: int, seconds: float) -> dict[str, Any]:
    torch.manual_seed(0)
    encoder = Encoder(SPECS[name]).requires_grad_(False).eval().cuda()
    given = frames(num_atoms, num_frames)

    def half() -> object:
        with torch.autocast("cuda", torch.bfloat16):
            return encoder(*given)

    torch.cuda.reset_peak_memory_stats()
    exact = encoder(*given)[0].float()
    peak = torch.cuda.max_memory_allocated()
    coarse = half()[0].float()  # type: ignore[index]
    plain = Encoder(SPECS[name]).requires_grad_(False).eval().cuda()
    plain.load_state_dict(encoder.state_dict())
    plain.network.use_compiled(False)
    contenders = {"float32": lambda: encoder(*given), "bfloat16": half, "plain": lambda: plain(*given)}
    medians = device_medians(contenders, seconds)
    edges = device_medians({"edges": lambda: encoder.edges(*given[1:])}, seconds / 4)["edges"]
    return {
        "encoder": name,
        "atoms": num_atoms,
        "frames": num_frames,
        "frames_per_s": {key: 1e3 * num_frames / value for key, value in medians.items()},
        "edges_ms": edges,
        "compiled_error": float((plain(*given)[0] - exact).norm() / exact.norm()),
        "bfloat16_error": float((coarse - exact).norm() / exact.norm()),
        "peak_MB": peak / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    require_gpu()
    rows, kept = [], Rows("encoders", quick)
    with torch.no_grad():
        for name in SPECS:
            for num_atoms, num_frames in SHAPES[:1] if quick else SHAPES:
                measure = partial(row, name, num_atoms, num_frames, 0.3 if quick else 1.5)
                rows.append(kept.measured(f"{name}, {num_frames} frames of {num_atoms} atoms", measure))
    table = Table(title="encoders on the GPU: frames per second by device events")
    headings = ("encoder", "atoms", "frames", "plain", "float32", "ratio", "error", "bfloat16", "error", "edges, ms")
    for heading in (*headings, "MB at peak"):
        table.add_column(heading, justify="right")
    for entry in rows:
        rates = entry["frames_per_s"]
        row_of = [entry["encoder"], str(entry["atoms"]), str(entry["frames"]), f"{rates['plain']:.0f}"]
        row_of += [
            f"{rates['float32']:.0f}",
            f"{rates['float32'] / rates['plain']:.1f}",
            f"{entry['compiled_error']:.1e}",
        ]
        row_of += [f"{rates['bfloat16']:.0f}", f"{entry['bfloat16_error']:.1e}", f"{entry['edges_ms']:.3f}"]
        table.add_row(*row_of, f"{entry['peak_MB']:.0f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
