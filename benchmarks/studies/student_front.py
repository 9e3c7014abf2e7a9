"""Error against cost of networks of AMOEBA's non-bonded forces: width, layers, energy or direct forces, cutoff.

Every network is trained by the same command for the same number of steps, and evaluated on held-out trajectories; its
cost is that of the exported module on one thread, along consecutive configurations. Networks trained already are kept
in the working directory, so a killed run goes on.

    python benchmarks/studies/student_front.py amoeba-300K [--work students] [--steps 3000] [--quick]

docs/measured.md says how the labels are made.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from openmm_gnn.forces.modules.openmm_module import script_module
from openmm_gnn.md.systems.systems import load_system
from openmm_gnn.networks.weights import load_model

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from harness import save_results

SYSTEM = "amoeba-water"
STUDENTS: dict[str, str] = {
    "energy, 16 channels, 1 layer": "--conservative --width 16 --layers 1",
    "energy, 16 channels, 2 layers": "--conservative --width 16 --layers 2",
    "energy, 32 channels, 1 layer": "--conservative --width 32 --layers 1",
    "energy, 32 channels, 2 layers": "--conservative --width 32 --layers 2",
    "energy, 32 channels, 2 layers, cutoff 0.36 nm": "--conservative --width 32 --layers 2 --cutoff 0.36",
    "direct, 32 channels, 2 layers": "--width 32 --layers 2",
    "direct, 64 channels, 2 layers": "--width 64 --layers 2",
}
SHARED = (
    "--network vector --bonds --pair-cutoff 0.9 --radial 20 --min-distance 0.08 --batch-size 2 --learning-rate 0.005 "
    "--validate-every 500 --validation-frames 15 --threads 1 --quiet"
)
COMMAND = [str(Path(sys.executable).with_name("openmm-gnn"))]


def trained(name: str, data: Path, work: Path, steps: int) -> Path:
    """The bundle of a student, trained now if it is not there."""
    out = work / f"{name.replace(', ', '-').replace(' ', '_')}-{steps}"
    if not (out / "done").exists():
        options = [] if "--cutoff" in STUDENTS[name] else ["--cutoff", "0.45"]
        subprocess.run(
            [*COMMAND, "train", str(data), "--train-seeds", "1-7", "--validation-seeds", "8", *SHARED.split(), *options,
             *STUDENTS[name].split(), "--steps", str(steps), "--out", str(out)],
            check=True,
        )  # fmt: skip
        (out / "done").touch()
    return out / "model.safetensors"


def errors(bundle: Path, data: Path) -> dict[str, Any]:
    """What `evaluate` prints, of trajectories 9 and 10."""
    command = [*COMMAND, "evaluate", str(bundle), str(data), "--seeds", "9,10", "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def milliseconds(bundle: Path, seconds: float) -> float:
    """Median time of the exported module on positions that move by steps of 2 fs at 300 K."""
    system = load_system(SYSTEM)
    module = torch.jit.freeze(script_module(load_model(str(bundle)), system.topology))
    box = torch.from_numpy(np.asarray(system.box_vectors))
    positions, generator = torch.from_numpy(system.start(1)), torch.Generator().manual_seed(1)
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 40 or time.perf_counter() - started < seconds:
        positions = positions + 5e-4 * torch.randn(positions.shape, generator=generator, dtype=positions.dtype)
        start = time.perf_counter()
        module(positions, box)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[20:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("students"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    steps = 20 if arguments.quick else arguments.steps
    bundles = {name: trained(name, arguments.data, arguments.work, steps) for name in STUDENTS}
    rows = []
    table = Table(title=f"{SYSTEM}, {steps} training steps, held-out trajectories, one thread")
    for heading in ("network", "relative error, %", "MAE, meV/A", "ms"):
        table.add_column(heading, justify="left" if heading == "network" else "right")
    for name, bundle in bundles.items():
        found, cost = errors(bundle, arguments.data), milliseconds(bundle, 1.0 if arguments.quick else 5.0)
        rows.append({"network": name, **found, "ms": cost})
        table.add_row(name, f"{100 * found['relative_error']:.2f}", f"{found['mae']:.2f}", f"{cost:.1f}")
    Console().print(table)
    save_results("student_front", {"steps": steps, "rows": rows}, arguments.quick)


if __name__ == "__main__":
    main()
