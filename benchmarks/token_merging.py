"""Time and memory of a CV network against the number of tokens and the window that merges them.

Equivariant attention of width 64, one layer of 4 heads, one frame, float32: a forward without gradients, and a training
step (forward, backward, Adam). Each point in a process of its own, whose peak of memory is reset before the step; for
comparison the same attention with the matrix of its weights written out.

    python benchmarks/token_merging.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from harness import save_results
from rich.console import Console
from rich.table import Table
from torch import Tensor

from openmm_gnn.base.figures import COLORS, QUIET_COLOR, figure_file
from openmm_gnn.base.specs.tokens import CVNetworkSpec, Merging, Mixer
from openmm_gnn.kernels.attention import attention_weights
from openmm_gnn.networks.tokens import equivariant_layers
from openmm_gnn.networks.tokens.cv_network import CVNetwork

TOKENS = (100, 300, 1000, 3000, 10000, 20000)
WINDOWS = (1, 2, 4, 8)
MOST_MATRIX_TOKENS = 3000
"""With more, the matrices of one training step would fill the memory of a small machine."""
WIDTH, HEADS, LAYERS = 64, 4, 1
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "figures" / "token_merging.png"
Row = dict[str, Any]


def with_matrix(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """What `attend` gives, by the textbook."""
    return attention_weights(query, key, scale) @ value


def peak_growth(call: Callable[[], object]) -> tuple[float, float]:
    """Processor seconds of a call, and by how many MB the memory of this process grew at its peak."""
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_mb("VmRSS")
    start = time.process_time()
    call()
    seconds = time.process_time() - start
    return seconds, memory_mb("VmHWM") - before


def memory_mb(what: str) -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


def measure(tokens: int, window: int, matrix: bool) -> Row:
    """One point, in this process: memory of the first call, time of the quickest of up to three."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if matrix:
        equivariant_layers.attend = with_matrix
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
    network = CVNetwork(spec)
    optimizer = torch.optim.Adam(network.parameters())
    given = torch.randn(1, tokens, 4, WIDTH), torch.randn(1, tokens, 3)

    def forward() -> None:
        with torch.no_grad():
            network(*given)

    def training_step() -> None:
        optimizer.zero_grad()
        network(*given).square().sum().backward()
        optimizer.step()

    few = CVNetwork(CVNetworkSpec(8, WIDTH, mixer=Mixer.EQUIVARIANT_ATTENTION, width=WIDTH, num_heads=HEADS))
    few(torch.randn(1, 8, 4, WIDTH), torch.randn(1, 8, 3)).sum().backward()  # what a first call alone costs
    row: Row = {"tokens": tokens, "window": window, "matrix": matrix}
    for name, call in (("forward", forward), ("training", training_step)):
        seconds, row[f"{name}_mb"] = peak_growth(call)
        while seconds < 2 and len(row.setdefault(f"{name}_all", [])) < 3:
            row[f"{name}_all"].append(seconds)
            seconds = peak_growth(call)[0]
        row[f"{name}_s"] = min([seconds, *row.pop(f"{name}_all", [])])
    return row


def measured_alone(tokens: int, window: int, matrix: bool = False) -> Row:
    command = [sys.executable, __file__, "--point", str(tokens), str(window), str(int(matrix))]
    # One arena and no kept pages: what is freed goes back, and the peak is that of what is held.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, env=environment)
    return json.loads(done.stdout)


def exponent(rows: list[Row], key: str, least: int, window: int = 1, matrix: bool = False) -> float:
    """Slope of log(value) against log(tokens), by least squares, from so many tokens on."""
    points = [
        (math.log(row["tokens"]), math.log(max(row[key], 1e-3)))
        for row in rows
        if row["window"] == window and row["matrix"] == matrix and row["tokens"] >= least
    ]
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def draw(rows: list[Row]) -> None:
    with figure_file(PICTURE, 9.0, 4.0, "Merged tokens") as figure:
        axes: Any = figure.subplots(1, 2)
        for axis, key, label in (
            (axes[0], "training_s", "time of a training step (s)"),
            (axes[1], "training_mb", "memory at its peak (MB)"),
        ):
            for window, color in zip(WINDOWS, COLORS, strict=False):
                mine = [row for row in rows if row["window"] == window and not row["matrix"]]
                tokens, values = [row["tokens"] for row in mine], [row[key] for row in mine]
                axis.plot(tokens, values, "o-", color=color, label=f"{window} residue{'s' * (window > 1)} per token")
            other = [row for row in rows if row["matrix"]]
            tokens, values = [row["tokens"] for row in other], [row[key] for row in other]
            axis.plot(tokens, values, ":", color=QUIET_COLOR, label="1, attention matrix written out")
            axis.set(xscale="log", yscale="log", xlabel="tokens", ylabel=label)
        axes[0].legend()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--point", nargs=3, type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.point:
        sys.stdout.write(json.dumps(measure(given.point[0], given.point[1], bool(given.point[2]))))
        return
    counts, windows = (TOKENS[:3], WINDOWS[:2]) if given.quick else (TOKENS, WINDOWS)
    rows = [measured_alone(tokens, window) for tokens in counts for window in windows]
    rows += [measured_alone(tokens, 1, matrix=True) for tokens in counts if tokens <= MOST_MATRIX_TOKENS]
    table = Table(title=f"Equivariant attention, width {WIDTH}, {HEADS} heads, {LAYERS} layer, one frame, one thread")
    for heading in ("tokens", "window", "forward, s", "MB", "training step, s", "MB"):
        table.add_column(heading, justify="right")
    for row in rows:
        figures = [f"{row['forward_s']:.4f}", f"{row['forward_mb']:.1f}", f"{row['training_s']:.4f}"]
        window = "1, with the matrix" if row["matrix"] else str(row["window"])
        table.add_row(str(row["tokens"]), window, *figures, f"{row['training_mb']:.1f}")
    console = Console()
    console.print(table)
    least = counts[1]
    exponents = {
        "training_mb": exponent(rows, "training_mb", least),
        "forward_mb": exponent(rows, "forward_mb", least),
        "training_mb_with_matrix": exponent(rows, "training_mb", least, matrix=True),
        "training_s": exponent(rows, "training_s", least),
    }
    console.print(f"window 1, from {least} tokens on, grows with the tokens to the power of:")
    for name, value in exponents.items():
        console.print(f"  {name}: {value:.2f}")
    save_results("token_merging", {"points": rows, "exponents": exponents}, given.quick)
    if not given.quick:
        draw(rows)
        console.print(f"drawn: docs/figures/{PICTURE.name}")


if __name__ == "__main__":
    main()
