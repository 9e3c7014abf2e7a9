"""The second half of `openmm-gnn demo`: two peptides whose residues are embedded while they move."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from openmm_gnn.reporters.embedding_store import EmbeddingStore

ENCODER = "biomolecule-et"
LENGTHS_PS = {"alanine-dipeptide": 100.0, "chignolin": 20.0}
FRAMES = 100
FIGURE = "features.png"


def show_live_features(out: Path, threads: int, console: Console) -> Path:
    """Run the peptides with live features, say what was stored, and draw it; what was interrupted goes on."""
    from openmm_gnn.analysis.feature_plot import save_movement

    stores = {name: _run(name, length_ps, out / name, threads, console) for name, length_ps in LENGTHS_PS.items()}
    console.print(_table(stores))
    return save_movement(stores, out / FIGURE)


def _run(name: str, length_ps: float, path: Path, threads: int, console: Console) -> EmbeddingStore:
    from openmm_gnn.md.run_settings import ComputeSettings, RunSettings
    from openmm_gnn.md.systems.systems import load_system
    from openmm_gnn.reporters.embedding_store import EmbeddingStore
    from openmm_gnn.runs.features import FOLDER
    from openmm_gnn.runs.settings import FeatureSettings
    from openmm_gnn.runs.simulate import simulate

    peptide = load_system(name)
    stride = max(1, round(length_ps / peptide.time_step_ps / FRAMES))
    settings = RunSettings(steps=stride * FRAMES, stride=stride, equilibration=2.0)
    simulate(
        *(peptide, path, settings),
        compute=ComputeSettings("CPU", threads=threads),
        resume=True,
        console=console,
        features=FeatureSettings(ENCODER),
    )
    return EmbeddingStore.open(path / FOLDER)


def _table(stores: dict[str, EmbeddingStore]) -> object:
    from rich.table import Table

    table = Table(title=f"Embeddings of every residue by {ENCODER}, stored while the simulation ran")
    for heading in ("system", "frames", "tokens x (1 + 3) x width", "ps", "checksums", "kB"):
        table.add_column(heading, justify="left" if heading == "system" else "right")
    for name, store in stores.items():
        shape = " x ".join(str(size) for size in store.embeddings.shape[1:])
        damaged = len(store.verify())
        size = (store.path / "frames.npy").stat().st_size / 1000
        table.add_row(
            *(name, str(len(store)), shape, f"{store.times_ps[-1]:g}"),
            *("right" if damaged == 0 else f"{damaged} wrong", f"{size:.0f}"),
        )
    return table
