"""Networks over tokens on a GPU: time and memory against the number of tokens and the window that merges them.

Equivariant attention, width 64, 8 heads, 3 layers, at the sizes for which geom2vec's authors print figures: adenylate
kinase (214 residues), nsp13 (596) and a complex of 3170 tokens; windows 1 to 8; float32, and bfloat16 by autocast. One
training step (forward, backward, Adam) of a batch of frames, and a forward without gradients. Times by device events,
memory as PyTorch's allocator saw it at its peak.

    python benchmarks/gpu/run.py token_networks [--quick]

Published, read off a plot, window 1 -> 8, batches not stated: 214 residues 0.26 -> 0.17 s and 17 -> 4-5 GB; nsp13
0.91 -> 0.35 s and 113 -> 11-14 GB; the complex 7.2 -> 0.33-0.53 s and 300 -> 12-24 GB (arXiv 2512.06520).
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import torch
from device import Rows, device_medians, require_gpu
from rich.console import Console
from rich.table import Table

from openmm_gnn.base.specs.tokens import CVNetworkSpec, Merging, Mixer
from openmm_gnn.networks.tokens.cv_network import CVNetwork

TOKENS = {"adenylate kinase": (214, 64), "nsp13": (596, 64), "complex": (3170, 16)}
"""Tokens, and frames of a batch."""
WINDOWS = (1, 2, 4, 8)
WIDTH, HEADS, LAYERS = 64, 8, 3


def network(tokens: int, window: int) -> CVNetwork:
    torch.manual_seed(0)
    merging = Merging.NONE if window == 1 else Merging.EQUIVARIANT
    spec = CVNetworkSpec(
        tokens,
        WIDTH,
        mixer=Mixer.EQUIVARIANT_ATTENTION,
        width=WIDTH,
        num_heads=HEADS,
        num_layers=LAYERS,
        merging=merging,
        window=window,
    )
    return CVNetwork(spec).cuda()


def row(name: str, tokens: int, frames: int, window: int, half: bool, seconds: float) -> dict[str, Any]:
    lobe = network(tokens, window)
    optimizer = torch.optim.Adam(lobe.parameters())
    given = torch.randn(frames, tokens, 4, WIDTH, device="cuda"), torch.randn(frames, tokens, 3, device="cuda")

    def forward() -> None:
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=half):
            lobe(*given)

    def training_step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            loss = lobe(*given).float().square().sum()
        loss.backward()
        optimizer.step()

    found: dict[str, Any] = {"system": name, "tokens": tokens, "frames": frames, "window": window}
    found["type"] = "bfloat16" if half else "float32"
    for what, call in (("forward", forward), ("training", training_step)):
        try:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            call()
            found[f"{what}_GB"] = torch.cuda.max_memory_allocated() / 1e9
            found[f"{what}_ms"] = device_medians({what: call}, seconds)[what]
        except torch.cuda.OutOfMemoryError:
            found[f"{what}_GB"] = found[f"{what}_ms"] = None
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    require_gpu()
    systems = dict(list(TOKENS.items())[:1]) if quick else TOKENS
    kept = Rows("token_networks", quick)
    rows = [
        kept.measured(
            f"{name}, window {window}, {'bfloat16' if half else 'float32'}",
            partial(row, name, tokens, frames, window, half, 0.2 if quick else 0.8),
        )
        for name, (tokens, frames) in systems.items()
        for window in WINDOWS
        for half in (False, True)
    ]
    table = Table(title=f"equivariant attention, width {WIDTH}, {HEADS} heads, {LAYERS} layers, on the GPU")
    for heading in ("system", "tokens", "frames", "window", "type", "forward, ms", "GB", "training, ms", "GB"):
        table.add_column(heading, justify="right")
    for entry in rows:
        figures = [entry[f"{what}_{unit}"] for what in ("forward", "training") for unit in ("ms", "GB")]
        shape = [entry["system"], *(str(entry[key]) for key in ("tokens", "frames", "window")), entry["type"]]
        table.add_row(*shape, *("too large" if value is None else f"{value:.2f}" for value in figures))
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
