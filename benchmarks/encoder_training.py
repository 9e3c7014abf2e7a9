"""A training step of an encoder by denoising, on one thread: the compiled loops over edges beside plain PyTorch.

python benchmarks/encoder_training.py [--quick]

Molecules are stretches of 35 heavy atoms of villin headpiece (from OpenMM's own files), weights random, which changes
no time. A step is noise, neighbours, both passes, clipping, AdamW with amsgrad and the moving average. Times are of the
processor, so that other work on the machine does not count. Target: half the time of plain PyTorch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from time import process_time

import torch
from encoders import protein
from harness import interleaved_medians, save_results
from rich.console import Console
from rich.table import Table
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel

from openmm_gnn.base.specs.encoder import Architecture, EncoderSpec
from openmm_gnn.networks.encoders.encoder import Encoder

MOLECULE = 35
CASES = [
    (EncoderSpec(Architecture.TORCHMD_ET, 3, 5.0, num_radial=32, noise_scale=0.2), 4),
    (EncoderSpec(Architecture.TORCHMD_ET, 4, 7.5, noise_scale=0.2), 16),
    (EncoderSpec(Architecture.TORCHMD_ET, 6, 7.5, noise_scale=0.2), 16),
    (EncoderSpec(Architecture.TENSORNET, 3, 5.0, num_radial=32, noise_scale=0.2), 4),
    (EncoderSpec(Architecture.TENSORNET, 3, 5.0, num_radial=32, noise_scale=0.2), 16),
]


def stepper(spec: EncoderSpec, molecules: int, compiled: bool) -> tuple[Callable[[], object], int]:
    """What runs one step, and the number of its edges."""
    torch.manual_seed(0)
    encoder = Encoder(spec)
    encoder.network.use_compiled(compiled)
    average = AveragedModel(encoder, avg_fn=lambda average, current, _: torch.lerp(current, average, 0.999))
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=5e-4, amsgrad=True)
    numbers, positions = protein()
    starts = torch.randint(0, len(numbers) - MOLECULE, (molecules,)).tolist()
    given = torch.cat([numbers[start : start + MOLECULE] for start in starts])
    places = torch.cat([positions[start : start + MOLECULE] for start in starts])
    batch = torch.arange(molecules).repeat_interleave(MOLECULE)

    def step() -> None:
        noise = torch.randn_like(places)
        predicted = encoder.predicted_noise(given, places + spec.noise_scale * noise, batch) / spec.noise_scale
        optimizer.zero_grad()
        (predicted - noise).square().mean().backward()
        clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(encoder)

    return step, encoder.edges(places, batch)[0].shape[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="5 seconds for each row in place of 20; nothing is stored")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    table = Table(
        "encoder", "layers", "cutoff", "molecules", "edges", "plain", "compiled", "faster", title="ms per step"
    )
    rows = []
    for spec, molecules in CASES:
        plain, edges = stepper(spec, molecules, False)
        compiled, _ = stepper(spec, molecules, True)
        seconds = interleaved_medians({"plain": plain, "compiled": compiled}, 5 if quick else 20, clock=process_time)
        per_step = {name: 1000 * value for name, value in seconds.items()}
        name, faster = spec.architecture.value, per_step["plain"] / per_step["compiled"]
        rows.append({"encoder": name, "layers": spec.num_layers, "cutoff": spec.cutoff, "molecules": molecules,
                     "edges": edges, "ms_per_step": per_step})  # fmt: skip
        table.add_row(
            name, str(spec.num_layers), f"{spec.cutoff:g}", str(molecules), str(edges), f"{per_step['plain']:.1f}",
            f"{per_step['compiled']:.1f}", f"{faster:.1f} x",
        )  # fmt: skip
    Console().print(table)
    save_results("encoder_training", rows, quick)


if __name__ == "__main__":
    main()
