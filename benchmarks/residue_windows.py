"""What residue windows cost and what they miss, against one graph of the whole protein.

Error: tokens of villin (OpenMM's test.pdb, 289 heavy atoms) from windows of 0 to 8 residues on either side, against
those of the whole graph, |t_window - t_whole| / |t_whole|, root mean square over all tokens and channels.

Cost: processor time on one thread and the growth of memory at its peak, of one frame of 50 to 5000 residues, each point
in a process of its own. The proteins are copies of villin's residues, turned at random, on a cubic grid of 1.73 nm: one
copy (4.2 kDa) per 5.2 nm3, which is the density of the inside of a protein (1.35 g/cm3), so that an atom has as many
neighbours as there. Copies overlap: the geometry serves to count neighbours and nothing else. The last copy is cut off
where the number of residues is reached.

Speed: wall-clock time of 500 residues by one thread, two threads, and two processes with half of the frames each. Other
work on the machine hurts these figures most, so the load is printed beside them.

    python benchmarks/residue_windows.py [--quick] [--plot] [--checkpoint et_l6_h64_rbf64_r75.pth]
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

import mdtraj
import numpy as np
import openmm.app
import torch
from harness import save_results
from rich.console import Console
from rich.table import Table
from scipy.spatial.transform import Rotation

from openmm_gnn import Featurizer
from openmm_gnn.base.figures import COLORS, figure_file

RESIDUES = (50, 150, 500, 1500, 5000)
WINDOWS = range(9)
COST_WINDOW = 2
SPACING_NM = 1.73
SPEED_RESIDUES, SPEED_FRAMES = 500, 4
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "figures" / "residue_windows.png"
Row = dict[str, Any]


def villin() -> tuple[mdtraj.Topology, np.ndarray]:
    """The protein alone, and positions (582, 3) nm."""
    pdb = openmm.app.PDBFile(str(Path(openmm.app.__file__).parent / "data" / "test.pdb"))
    topology = mdtraj.Topology.from_openmm(pdb.topology)
    atoms = topology.select("protein")
    return topology.subset(atoms), np.array(pdb.getPositions(asNumpy=True)._value)[atoms]


def crowd(residues: int) -> tuple[mdtraj.Topology, np.ndarray]:
    """A dense protein of so many residues, see above; a chain for each copy."""
    one, places = villin()
    places = places - places.mean(axis=0)
    copies = -(-residues // one.n_residues)
    side = math.ceil(round(copies ** (1 / 3), 9))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    grid = grid[np.argsort(np.abs(grid - (side - 1) / 2).max(axis=1), kind="stable")][:copies]  # from the middle out
    topology = _repeated(one, copies)
    turns = Rotation.random(copies, random_state=1).as_matrix()
    positions = np.concatenate([places @ turn.T + SPACING_NM * cell for turn, cell in zip(turns, grid, strict=True)])
    kept = [atom.index for atom in topology.atoms if atom.residue.index < residues]
    return topology.subset(kept), positions[kept]


def _repeated(one: mdtraj.Topology, copies: int) -> mdtraj.Topology:
    """By doubling, as joining copies all that was joined before."""
    if copies == 1:
        return one
    half = _repeated(one, copies // 2)
    twice = half.join(half)
    return twice.join(one) if copies % 2 else twice


def featurizer_of(context: str, topology: mdtraj.Topology, encoder: str = "peptide-et") -> Featurizer:
    return Featurizer(encoder, topology, context=context, window=COST_WINDOW if context == "window" else None)


def token_errors(encoder: str) -> list[Row]:
    topology, positions = villin()
    whole = Featurizer(encoder, topology).features(positions)
    rows = []
    for window in [*WINDOWS, 34]:
        away = Featurizer(encoder, topology, context="window", window=window).features(positions) - whole
        row: Row = {"window": window}
        for name, part in (("scalars", np.s_[:, 0]), ("vectors", np.s_[:, 1:])):
            row[name] = float(np.sqrt(np.square(away[part]).mean() / np.square(whole[part]).mean()))
        spread = whole[:, 0] - whole[:, 0].mean(axis=0)
        row["scalars_of_spread"] = float(np.sqrt(np.square(away[:, 0]).mean() / np.square(spread).mean()))
        rows.append(row)
    return rows


def memory_mb(what: str) -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) / 1024


def measure_cost(residues: int, context: str) -> Row:
    """One point, in this process: memory of the first call, processor time of the quickest of up to four."""
    torch.set_num_threads(1)
    topology, positions = crowd(residues)
    few = [atom.index for atom in topology.atoms if atom.residue.index < 3]
    featurizer_of(context, topology.subset(few)).features(positions[few])  # what a first call alone costs
    started = time.process_time()
    featurizer = featurizer_of(context, topology)
    row: Row = {"residues": residues, "context": context, "atoms": featurizer.num_atoms}
    row["setup_s"] = time.process_time() - started
    Path("/proc/self/clear_refs").write_text("5")
    before, times = memory_mb("VmRSS"), []
    while not times or (sum(times) < 5 and len(times) < 4):
        start = time.process_time()
        featurizer.features(positions)
        times.append(time.process_time() - start)
        row.setdefault("memory_mb", memory_mb("VmHWM") - before)
    row["seconds"] = min(times)
    return row


def measure_speed(context: str, threads: int, frames: int) -> float:
    """Wall-clock seconds of so many frames; waits for a line before, so that processes begin together."""
    torch.set_num_threads(threads)
    topology, positions = crowd(SPEED_RESIDUES)
    featurizer = featurizer_of(context, topology)
    given = np.stack([positions] * frames)
    featurizer.features(given[0])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    start = time.perf_counter()
    featurizer.features(given)
    return time.perf_counter() - start


def alone(*arguments: object, threads: int = 1) -> subprocess.Popen[str]:
    """This file in a process of its own."""
    # One arena and no kept pages: what is freed goes back, and the peak is that of what is held.
    kept = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"} if arguments[0] == "cost" else {}
    return subprocess.Popen(
        [sys.executable, __file__, "--point", json.dumps(arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": str(threads), **kept},
    )


def cost(residues: int, context: str) -> Row:
    text, _ = alone("cost", residues, context).communicate()
    return json.loads(text)


def speed(context: str, threads: int, processes: int) -> float:
    """Frames per second of wall-clock time."""
    workers = [alone("speed", context, threads, SPEED_FRAMES // processes, threads=threads) for _ in range(processes)]
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    times = [json.loads(text) for text in _released(workers)]
    return SPEED_FRAMES / max(times)


def _released(workers: list[subprocess.Popen[str]]) -> list[str]:
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    return [worker.communicate()[0] for worker in workers]


def exponent(rows: list[Row], key: str, context: str, least: int) -> float:
    """Slope of log(value) against log(residues), by least squares, from so many residues on."""
    chosen = [row for row in rows if row["context"] == context and row["residues"] >= least]
    return float(
        np.polyfit(
            *(np.log([row["residues"] for row in chosen]), np.log([max(row[key], 1e-3) for row in chosen])), deg=1
        )[0]
    )


def draw(document: Row) -> None:
    with figure_file(PICTURE, 11.2, 3.8, "Residue windows") as figure:
        axes: Any = figure.subplots(1, 3)
        for number, (name, rows) in enumerate(document["errors"].items()):
            shown = [row for row in rows if row["window"] in WINDOWS]
            windows, color = [row["window"] for row in shown], COLORS[number % len(COLORS)]
            for part, style in (("scalars", "o-"), ("vectors", "s--")):
                axes[0].plot(windows, [row[part] for row in shown], style, color=color, label=f"{name}, {part}")
        axes[0].set(xlabel="residues on either side", ylabel="error of the tokens, relative", ylim=(0, None))
        for axis, key, label in (
            (axes[1], "seconds", "processor time of a frame (s)"),
            (axes[2], "memory_mb", "memory at its peak (MB)"),
        ):
            for context, style, color in (("whole", "o-", COLORS[0]), ("window", "s--", COLORS[1])):
                mine = [row for row in document["cost"] if row["context"] == context]
                residues, values = [row["residues"] for row in mine], [row[key] for row in mine]
                name = "one graph" if context == "whole" else f"windows of {COST_WINDOW} on either side"
                power = document["exponents"][f"{key}_{context}"]
                axis.plot(residues, values, style, color=color, label=f"{name}: residues$^{{{power:.2f}}}$")
            axis.set(xscale="log", yscale="log", xlabel="residues", ylabel=label)
            axis.legend(loc="upper left")
        axes[0].legend()


def table_of(title: str, headings: tuple[str, ...], rows: list[list[str]]) -> Table:
    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def show(document: Row, console: Console) -> None:
    for name, rows in document["errors"].items():
        figures = [[str(row["window"]), *(f"{row[part]:.4f}" for part in list(row)[1:])] for row in rows]
        headings = ("residues on either side", "scalars", "vectors", "scalars, of their spread over tokens")
        console.print(table_of(f"Error of villin's tokens, {name}", headings, figures))
    figures = [
        [str(row["residues"]), str(row["atoms"]), row["context"], f"{row['seconds']:.3f}", f"{row['memory_mb']:.1f}"]
        for row in document["cost"]
    ]
    headings = ("residues", "atoms", "graph", "s", "MB")
    console.print(table_of(f"peptide-et, one frame, one thread, window {COST_WINDOW}", headings, figures))
    for name, value in document["exponents"].items():
        console.print(f"  {name} grows with the residues to the power of {value:.2f}")
    figures = [
        [row["context"], str(row["threads"]), str(row["processes"]), f"{row['per_s']:.2f}", f"{row['speed_up']:.2f}"]
        for row in document["speed"]
    ]
    title = f"{SPEED_RESIDUES} residues, wall-clock, load of the machine {document['load']:.1f}"
    console.print(table_of(title, ("graph", "threads", "processes", "frames/s", "times one"), figures))


def speeds(rounds: int) -> list[Row]:
    """The best of a few rounds, in turn: other work can only make a figure smaller."""
    ways = [(context, *way) for context in ("window", "whole") for way in ((1, 1), (2, 1), (1, 2))]
    best = dict.fromkeys(ways, 0.0)
    for _ in range(rounds):
        for way in ways:
            best[way] = max(best[way], speed(*way))
    return [
        {
            **{"context": context, "threads": threads, "processes": processes, "per_s": per_s},
            "speed_up": per_s / best[context, 1, 1],
        }
        for (context, threads, processes), per_s in best.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--plot", action="store_true", help="draw docs/figures/residue_windows.png")
    parser.add_argument("--checkpoint", type=Path, help="of geom2vec's, to have its error beside peptide-et's")
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.point:
        kind, *arguments = given.point
        call: Callable[..., Any] = {"cost": measure_cost, "speed": measure_speed}[kind]
        sys.stdout.write(json.dumps(call(*arguments)))
        return
    torch.set_num_threads(1)
    console = Console()
    encoders = ["peptide-et", *([str(given.checkpoint)] if given.checkpoint else [])]
    counts = RESIDUES[:3] if given.quick else RESIDUES
    rows = [cost(residues, context) for residues in counts for context in ("whole", "window")]
    document: Row = {
        "errors": {Path(name).stem: token_errors(name) for name in encoders},
        "cost": rows,
        "cost_window": COST_WINDOW,
        "exponents": {
            f"{key}_{context}": exponent(rows, key, context, counts[1])
            for key in ("seconds", "memory_mb")
            for context in ("whole", "window")
        },
        "load": os.getloadavg()[0],
        "speed": speeds(1 if given.quick else 2),
    }
    show(document, console)
    save_results("residue_windows", document, given.quick)
    if given.plot:
        draw(document)
        console.print(f"drawn: docs/figures/{PICTURE.name}")


if __name__ == "__main__":
    main()
